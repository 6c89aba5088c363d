/**
 * Series as the charts hold them: smoothing, growing, ranges, groups. Pure.
 *
 * A line is `{steps, times, values, min, max}`: equally long lists; `min` and `max` are null where every point is exact. A value
 * that is not finite is null.
 */

/** Groups of series in the order in which a page shows them; those of the user's own come where `null` stands. */
const ORDER = [
  'main', 'eval', 'throughput', null, 'grad_norm', 'weight_norm', 'update_ratio', 'rank', 'phase', 'process', 'device',
];
const MAIN = ['loss', 'grad_norm', 'lr', 'step_seconds'];

/** The group of a series: what stands before its first `/`. */
export function groupOf(name) {
  const slash = name.indexOf('/');
  return slash < 0 ? 'main' : name.slice(0, slash);
}

/** `[group, names]` of all series, groups and names in the order to show. `list`: as `/series` answers. */
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

/** Order of names in which `l2` comes before `l10`. */
export function compareNames(a, b) {
  return a.localeCompare(b, 'en', { numeric: true });
}

/** A line of what `/points` answers of one series. */
export function line(points) {
  return {
    steps: points.steps,
    times: points.times_ms,
    values: points.values,
    min: points.exact ? null : points.min,
    max: points.exact ? null : points.max,
  };
}

/** `weight` in [0, 1): exponential moving average, without the pull towards zero of its beginning. Nulls stay, and count for nothing. */
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

/** `old` with the points of `tail` that come after it. A point that is exact is its own least and greatest. */
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

/** Where the points of a line lie on the x axis: `axis` is `step`, `time`, `relative` (seconds since `began_ms`) or `epoch`. */
export function positions(own, axis, { began_ms = 0, steps_per_epoch = 1 } = {}) {
  switch (axis) {
    case 'time': return own.times.map((time) => time / 1000);
    case 'relative': return own.times.map((time) => (time - began_ms) / 1000);
    case 'epoch': return own.steps.map((step) => step / steps_per_epoch);
    default: return own.steps;
  }
}

/** Steps of an epoch, as far as checkpoints tell it; null if they do not. */
export function stepsPerEpoch(checkpoints) {
  // A checkpoint's epoch is that of the next step, rounded down: the later it is, the less that matters.
  const known = (checkpoints ?? []).filter((checkpoint) => checkpoint.epoch > 0);
  if (known.length === 0) return null;
  const last = known[known.length - 1];
  return last.step / last.epoch;
}

/**
 * `[least, greatest]` of lists of values, without nulls, and without what is not positive if `positive`. With `clip`, the
 * outermost hundredth at each end does not count. `[Infinity, -Infinity]` if nothing is left.
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

/** Values of several lines summed up one on the other, at the steps of the longest: what a stacked area shows. */
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
