/** Scales and ticks of axes. Pure. */

/** A mapping of `[min, max]` to `[from, to]` pixels. Logarithmic only if both ends are positive. */
export function scale(min, max, from, to, log = false) {
  const logarithmic = log && min > 0 && max > 0;
  const on = logarithmic ? Math.log10 : (value) => value;
  const low = on(min);
  const span = on(max) - low || 1;
  return {
    min, max, log: logarithmic,
    pixel: (value) => from + ((on(value) - low) / span) * (to - from),
    value: (pixel) => {
      const at = low + ((pixel - from) / (to - from)) * span;
      return logarithmic ? 10 ** at : at;
    },
  };
}

/** About `count` round numbers in `[min, max]`, ascending. */
export function linearTicks(min, max, count) {
  if (!(max > min) || count < 1) return [min];
  const step = round((max - min) / count);
  const ticks = [];
  // Multiplied, not added: 0.1 + 0.1 + 0.1 is not 0.3.
  for (let index = Math.ceil(min / step - 1e-9); index * step <= max + step * 1e-9; index += 1) {
    ticks.push(Number((index * step).toPrecision(12)));
  }
  return ticks;
}

/** Powers of ten in `[min, max]`, at most about `count`. If there are fewer than three, also 2 and 5 times them. */
export function logTicks(min, max, count) {
  const decades = Math.floor(Math.log10(max) + 1e-9) - Math.ceil(Math.log10(min) - 1e-9) + 1;
  if (decades < 1) return linearTicks(min, max, Math.min(count, 4)).filter((tick) => tick > 0);
  const factors = decades < 3 ? [1, 2, 5] : [1];
  const stride = Math.max(1, Math.ceil(decades / count));
  const ticks = [];
  for (let power = Math.floor(Math.log10(min)); power <= Math.ceil(Math.log10(max)); power += 1) {
    if (power % stride !== 0) continue;
    for (const factor of factors) {
      const tick = Number((factor * 10 ** power).toPrecision(12));
      if (tick >= min * (1 - 1e-9) && tick <= max * (1 + 1e-9)) ticks.push(tick);
    }
  }
  return ticks;
}

/** About `count` whole seconds, minutes, hours or days in `[min, max]` seconds. */
export function timeTicks(min, max, count) {
  const steps = [1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 10800, 21600, 43200, 86400];
  const wanted = (max - min) / count;
  if (!(wanted >= 1)) return linearTicks(min, max, count);
  const step = steps.find((candidate) => candidate >= wanted) ?? 86400 * round(wanted / 86400);
  const ticks = [];
  for (let tick = Math.ceil(min / step) * step; tick <= max; tick += step) ticks.push(tick);
  return ticks;
}

/** `[min, max]` with a margin of about 5 %; a single value gets a margin, too. */
export function padded(min, max, log) {
  if (!(min <= max)) return [0, 1];
  if (log && min > 0) {
    const room = Math.max(1.02, (max / min) ** 0.04);
    return [min / room, max * room];
  }
  const room = (max - min) * 0.05 || Math.abs(max) * 0.05 || 1;
  // Values that are never negative get no negative range.
  return [min >= 0 && min - room < 0 ? 0 : min - room, max + room];
}

/** As `linearTicks`, in round numbers of KiB, MiB and so on. */
export function byteTicks(min, max, count) {
  const unit = 1024 ** Math.max(0, Math.floor(Math.log(Math.max(Math.abs(min), Math.abs(max), 1)) / Math.log(1024)));
  return linearTicks(min / unit, max / unit, count).map((tick) => tick * unit);
}

/** The nearest value to `value` among 1, 2, 2.5, 5 and 10 times a power of ten. */
function round(value) {
  const power = 10 ** Math.floor(Math.log10(value));
  const away = (factor) => Math.abs(Math.log(value / (factor * power)));
  return [1, 2, 2.5, 5, 10].reduce((best, factor) => (away(factor) < away(best) ? factor : best)) * power;
}
