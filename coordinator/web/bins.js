/** Positions of histogram bins on a canvas. Pure. */

import { linearTicks, scale } from './scale.js';

/**
 * The axis of values for `items`, from pixel `low` to pixel `high`: `{pixel(value), ticks}`. With `logarithmic`, the axis is logarithmic
 * in both directions from zero, and linear around zero, within a tenth of the typical standard deviation.
 */
export function axisOf(items, low, high, logarithmic) {
  const edges = items.flatMap((item) => item.edges).filter(Number.isFinite);
  const [min, max] = edges.reduce(([least, most], edge) => [Math.min(least, edge), Math.max(most, edge)], [Infinity, -Infinity]);
  const straight = scale(min, max === min ? min + 1 : max, low, high);
  if (!logarithmic) return { pixel: straight.pixel, ticks: linearTicks(min, max, 5) };
  const largest = Math.max(Math.abs(min), Math.abs(max)) || 1;
  const middle = Math.max(typical(items) / 10, largest / 1e4);
  const bent = scale(Math.asinh(min / middle), Math.asinh(max / middle), low, high);
  const powers = [];
  for (let power = Math.ceil(Math.log10(middle)); power <= Math.floor(Math.log10(largest)); power += 1) powers.push(10 ** power);
  const ticks = [...powers.map((value) => -value).reverse(), 0, ...powers].filter((tick) => tick >= min && tick <= max);
  return { pixel: (value) => bent.pixel(Math.asinh(value / middle)), ticks };
}

/**
 * The bins of a histogram as cells `{top, bottom, share}`: pixels, and the share of all values per pixel of height. Bins thinner than a
 * pixel, as around zero, are merged into one cell; drawn separately, the last one would hide the others.
 */
export function density(item, pixel) {
  const total = item.counts.reduce((sum, count) => sum + count, 0) || 1;
  const cells = [];
  let [bottom, within] = [pixel(item.edges[0]), 0];
  item.counts.forEach((count, index) => {
    within += count;
    const top = pixel(item.edges[index + 1]);
    if (bottom - top < 1 && index + 1 < item.counts.length) return;
    cells.push({ top, bottom, share: within / total / Math.max(bottom - top, 1) });
    [bottom, within] = [top, 0];
  });
  return cells;
}

/** Boundaries of the columns of histograms at `steps`: the middles between neighbours, and the first and last step. One more than steps. */
export function columnEnds(steps) {
  if (steps.length === 1) return [steps[0] - 0.5, steps[0] + 0.5];
  const middles = steps.slice(1).map((step, index) => (step + steps[index]) / 2);
  return [steps[0], ...middles, steps[steps.length - 1]];
}

/** The property of a histogram that is evidence of an alarm, by kind of alarm. */
const EVIDENCE = {
  dead_units: ['share of zeros', ({ zeros, count }) => zeros / count],
  not_finite: ['NaN and infinite values', ({ nans, infs }) => nans + infs],
};
const SPREAD = ['standard deviation', ({ std, nans, infs, count }) => (nans + infs < count ? std : null)];

/** Name of the property that `evidence` measures for an alarm of `kind`. */
export function evidenceName(kind) {
  return (EVIDENCE[kind] ?? SPREAD)[0];
}

/** The evidence of an alarm of `kind` in each histogram, as a line of a chart. */
export function evidence(items, kind) {
  const [, of] = EVIDENCE[kind] ?? SPREAD;
  const values = items.map(of).map((value) => (Number.isFinite(value) ? value : null));
  return { steps: items.map(({ step }) => step), times: items.map(({ at_ms }) => at_ms), values, min: null, max: null };
}

/** The median standard deviation of `items`; 1 if none is positive. */
function typical(items) {
  const all = items.map(({ std }) => std).filter((std) => std > 0).sort((a, b) => a - b);
  return all.length > 0 ? all[all.length >> 1] : 1;
}
