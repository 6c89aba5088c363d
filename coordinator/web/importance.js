/** The importance of each input feature: bars for columns of a table, a picture for cells of an image. */

import { h } from './dom.js';
import { number } from './format.js';
import { run as runAddress } from './route.js';

const PREFIX = 'importance/';
const CELL = /^row (\d+), column (\d+)$/;
/** Maximum number of bars. */
const MOST_BARS = 24;

/** `[[way, [{feature, name, value}]]]`: the latest importance of each feature, from the list of series, the greatest first. Pure. */
export function measured(series) {
  const ways = new Map();
  for (const { name, last } of series) {
    if (!name.startsWith(PREFIX)) continue;
    const [way, ...rest] = name.slice(PREFIX.length).split('/');
    if (!ways.has(way)) ways.set(way, []);
    ways.get(way).push({ feature: rest.join('/'), name, value: last ?? 0 });
  }
  for (const features of ways.values()) features.sort((a, b) => b.value - a.value);
  return [...ways].sort(([a], [b]) => (a === 'permutation' ? -1 : b === 'permutation' ? 1 : 0));
}

const WORDS = {
  permutation: 'increase of the loss if the feature is shuffled among the samples',
  gradient: 'mean absolute value of gradient times input',
};

/** Creates the section; null if no importance was measured. */
export function importance({ run, series }) {
  const ways = measured(series);
  if (ways.length === 0) return null;
  return h('section', { class: 'importance' }, h('h2', null, 'feature importance'), h('div', { class: 'ways' }, ways.map(([way, features]) =>
    h('div', null, h('h3', null, way), h('p', { class: 'dim' }, WORDS[way] ?? ''),
      features.every(({ feature }) => CELL.test(feature)) ? picture(features) : bars(run.run, features)))));
}

function bars(run, features) {
  const most = Math.max(...features.map(({ value }) => value), Number.MIN_VALUE);
  const rest = features.length - MOST_BARS;
  return h('div', null, features.slice(0, MOST_BARS).map(({ feature, name, value }) => {
    const inner = h('i');
    inner.style.width = `${Math.max(0, value / most) * 100}%`;
    return h('a', { class: 'feature', href: runAddress(run, 'charts', { chart: name }) },
      h('code', null, feature), h('span', { class: 'bar', 'aria-hidden': 'true' }, inner), h('span', null, number(value)));
  }), rest > 0 && h('p', { class: 'dim' }, `and ${rest} less important ${rest === 1 ? 'feature' : 'features'}`));
}

/** The cells at their places in the image. More important cells are more opaque. */
function picture(cells) {
  const placed = cells.map((cell) => ({ ...cell, at: CELL.exec(cell.feature).slice(1).map(Number) }));
  const most = Math.max(...cells.map(({ value }) => value), Number.MIN_VALUE);
  const columns = Math.max(...placed.map(({ at }) => at[1])) + 1;
  placed.sort((a, b) => a.at[0] - b.at[0] || a.at[1] - b.at[1]);
  const grid = h('div', { class: 'cells' }, placed.map(({ feature, value }) => {
    const cell = h('i', { title: `${feature}: ${number(value)}` });
    cell.style.opacity = Math.max(0.02, value / most);
    return cell;
  }));
  grid.style.gridTemplateColumns = `repeat(${columns}, 1fr)`;
  return grid;
}
