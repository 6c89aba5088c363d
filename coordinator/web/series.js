/**
 * Data of charts: smoothing, appending, ranges, groups. Pure.
 *
 * A line is `{steps, times, values, min, max}`: lists of equal length; `min` and `max` are null if every point is exact. A value
 * that is not finite is null.
 */

/** Groups of series in display order. `null` is the place of user-defined groups. */
const ORDER = [
  'main', 'eval', 'throughput', null, 'grad_norm', 'weight_norm', 'update_ratio', 'rank', 'phase', 'process', 'device',
];
const MAIN = ['loss', 'grad_norm', 'lr', 'step_seconds'];

/** The group of a series: its name up to the first `/`, or `main`. */
export function groupOf(name) {
  const slash = name.indexOf('/');
  return slash < 0 ? 'main' : name.slice(0, slash);
}

/** `[group, names]` of all series, both in display order. `list`: as `/series` returns it. */
export function groups(list) {
  const found = new Map();
  for (const { name } of list) {
    const group = groupOf(name);
    if (!found.has(group)) found.set(group, new Set());
    found.get(group).add(name);
  }
  const place = (group) => (ORDER.includes(group) ? ORDER.indexOf(group) : ORDER.indexOf(null));
  const rank = (name) => (MAIN.includes(name) ? MAIN.indexOf(name) : MAIN.length);
  return [...found]
    .sort(([a], [b]) => place(a) - place(b) || compareNames(a, b))
    .map(([group, names]) => [group, [...names].sort((a, b) => rank(a) - rank(b) || compareNames(a, b))]);
}

/** Compares names so that `l2` comes before `l10`. */
export function compareNames(a, b) {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** Converts one series of `/points` to a line. */
export function line(points) {
  return {
    steps: points.steps,
    times: points.times_ms,
    values: points.values,
    min: points.exact ? null : points.min,
    max: points.exact ? null : points.max,
  };
}

/** Exponential moving average with `weight` in [0, 1), without bias towards zero at the start. Nulls stay and are not counted. */
export function ema(values, weight) {
  if (!(weight > 0)) return values;
  let [sum, total] = [0, 0];
  return values.map((value) => {
    if (value === null) return null;
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + (1 - weight);
    return sum / total;
  });
}

/** Appends the points of `tail` after the last step of `old`. An exact point is its own minimum and maximum. */
export function grown(old, tail) {
  const last = old.steps.length > 0 ? old.steps[old.steps.length - 1] : -Infinity;
  const from = tail.steps.findIndex((step) => step > last);
  if (from < 0) return old;
  const joined = (a, b) => a.concat(b.slice(from));
  const bounded = old.min || tail.min;
  return {
    steps: joined(old.steps, tail.steps),
    times: joined(old.times, tail.times),
    values: joined(old.values, tail.values),
    min: bounded ? joined(old.min ?? old.values, tail.min ?? tail.values) : null,
    max: bounded ? joined(old.max ?? old.values, tail.max ?? tail.values) : null,
  };
}

/** The index of the step nearest to `step`; -1 in an empty list. */
export function nearest(steps, step) {
  if (steps.length === 0) return -1;
  const after = lowerBound(steps, step);
  if (after === 0) return 0;
  if (after === steps.length) return after - 1;
  return step - steps[after - 1] <= steps[after] - step ? after - 1 : after;
}

/** The first index whose element is not below `value`. */
export function lowerBound(sorted, value) {
  let [low, high] = [0, sorted.length];
  while (low < high) {
    const middle = (low + high) >> 1;
    if (sorted[middle] < value) low = middle + 1;
    else high = middle;
  }
  return low;
}

/** Positions of a line's points on the x axis. `axis` is `step`, `time`, `relative` (seconds since `began_ms`) or `epoch`. */
export function positions(own, axis, { began_ms = 0, steps_per_epoch = 1 } = {}) {
  switch (axis) {
    case 'time': return own.times.map((time) => time / 1000);
    case 'relative': return own.times.map((time) => (time - began_ms) / 1000);
    case 'epoch': return own.steps.map((step) => step / steps_per_epoch);
    default: return own.steps;
  }
}

/** Steps per epoch, estimated from the checkpoints; null if no checkpoint has a later epoch than 0. */
export function stepsPerEpoch(checkpoints) {
  // A checkpoint's epoch is that of the next step, rounded down. The later the checkpoint, the smaller the error.
  const known = (checkpoints ?? []).filter((checkpoint) => checkpoint.epoch > 0);
  if (known.length === 0) return null;
  const last = known[known.length - 1];
  return last.step / last.epoch;
}

/**
 * `[min, max]` of lists of values. Ignores nulls; with `positive`, values that are not positive; with `clip`, the lowest and highest
 * 1 % of the values. `[Infinity, -Infinity]` if no value is left.
 */
export function extent(lists, { positive = false, clip = false } = {}) {
  let [min, max] = [Infinity, -Infinity];
  const kept = [];
  for (const list of lists) {
    for (const value of list) {
      if (value === null || (positive && !(value > 0))) continue;
      if (clip) kept.push(value);
      if (value < min) min = value;
      if (value > max) max = value;
    }
  }
  if (!clip || kept.length < 20) return [min, max];
  kept.sort((a, b) => a - b);
  return [kept[Math.floor(kept.length * 0.01)], kept[Math.ceil(kept.length * 0.99) - 1]];
}

/** Cumulative sums of several lines, at the steps of the longest line, for a stacked area chart. */
export function stacked(lines) {
  const longest = lines.reduce((a, b) => (b.steps.length > a.steps.length ? b : a), lines[0]);
  const below = longest.steps.map(() => 0);
  return lines.map((own) => {
    const low = below.slice();
    longest.steps.forEach((step, index) => {
      const at = own.steps === longest.steps ? index : nearest(own.steps, step);
      below[index] += at < 0 ? 0 : Math.max(0, own.values[at] ?? 0);
    });
    return { ...own, steps: longest.steps, times: longest.times, low, values: below.slice(), min: null, max: null };
  });
}
