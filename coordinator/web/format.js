/** Numbers, sizes and times as text. Pure: nothing here reads the clock or the document. */

/** The text of a missing value. */
export const NONE = '–';

/** A number in about `digits` significant digits, short enough for a table cell. */
export function number(value, digits = 4) {
  if (value === null || value === undefined || Number.isNaN(value)) return NONE;
  if (typeof value !== 'number') return String(value);
  if (!Number.isFinite(value)) return value > 0 ? '∞' : '-∞';
  if (value === 0) return '0';
  const size = Math.abs(value);
  if (Number.isInteger(value) && size < 1e7) return grouped(value);
  if (size >= 1e7 || size < 1e-3) return exponent(value, digits);
  if (size >= 10 ** (digits - 1)) return grouped(value);
  return trimmed(value.toPrecision(digits));
}

/** A whole number with narrow spaces between thousands, from five digits on. */
export function grouped(value) {
  if (value === null || value === undefined) return NONE;
  const sign = value < 0 ? '-' : '';
  const digits = String(Math.abs(Math.round(value)));
  return sign + (digits.length < 5 ? digits : digits.replace(/\B(?=(\d{3})+$)/g, '\u202f'));
}

/** Bytes in the largest unit with at least one digit before the point. */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ['B', 'KiB', 'MiB', 'GiB', 'TiB', 'PiB'];
  let size = value;
  let unit = 0;
  while (Math.abs(size) >= 1024 && unit < units.length - 1) {
    size /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? Math.round(size) : trimmed(size.toPrecision(Math.abs(size) >= 1000 ? 4 : 3))} ${units[unit]}`;
}

/** Seconds in the one or two largest suitable units, from nanoseconds to days. */
export function seconds(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  const size = Math.abs(value);
  if (size === 0) return '0 s';
  if (size < 1e-6) return `${trimmed((value * 1e9).toPrecision(3))} ns`;
  if (size < 1e-3) return `${trimmed((value * 1e6).toPrecision(3))} µs`;
  if (size < 1) return `${trimmed((value * 1e3).toPrecision(3))} ms`;
  if (size < 60) return `${trimmed(value.toPrecision(3))} s`;
  const whole = Math.round(size);
  const parts = [
    [Math.floor(whole / 86400), 'd'],
    [Math.floor(whole / 3600) % 24, 'h'],
    [Math.floor(whole / 60) % 60, 'min'],
    [whole % 60, 's'],
  ];
  const first = parts.findIndex(([count]) => count > 0);
  const said = parts.slice(first, first + 2).filter(([count]) => count > 0);
  return (value < 0 ? '-' : '') + said.map(([count, unit]) => `${count} ${unit}`).join(' ');
}

/** The time from `at_ms` to `now_ms`, as `3 min ago`. */
export function ago(at_ms, now_ms) {
  if (!at_ms) return NONE;
  const past = (now_ms - at_ms) / 1000;
  return past < 1 ? 'now' : `${seconds(Math.floor(past)).split(' ').slice(0, 2).join(' ')} ago`;
}

/** A time in local time, with the date unless `day` is false. */
export function clock(at_ms, day = true) {
  if (!at_ms) return NONE;
  const at = new Date(at_ms);
  const two = (part) => String(part).padStart(2, '0');
  const time = `${two(at.getHours())}:${two(at.getMinutes())}:${two(at.getSeconds())}`;
  return day ? `${at.getFullYear()}-${two(at.getMonth() + 1)}-${two(at.getDate())} ${time}` : time;
}

/** A time as the label of a tick on an axis with a range of `span` seconds: only the parts of date and time that differ between ticks. */
export function tickClock(at_ms, span) {
  const [day, time] = clock(at_ms).split(' ');
  if (span > 4 * 86400) return day.slice(5);
  if (span > 86400) return `${day.slice(5)} ${time.slice(0, 5)}`;
  return span > 1200 ? time.slice(0, 5) : time;
}

/** A share from 0 to 1 as a percentage. */
export function percent(share) {
  return share === null || share === undefined ? NONE : `${trimmed((share * 100).toPrecision(3))} %`;
}

/** The first 12 characters of a digest, which the API accepts as a prefix. */
export function short(digest) {
  return digest ? digest.slice(0, 12) : NONE;
}

/** The unit of a series, from its name: `bytes`, `seconds`, `share` or `number`. */
export function unitOf(name) {
  if (/_bytes$/.test(name)) return 'bytes';
  if (/^phase\/|seconds$/.test(name)) return 'seconds';
  if (/(^|\/)(accuracy|utilisation|cpu)$|^share of /.test(name)) return 'share';
  return 'number';
}

/** A value of a series in its unit. */
export function ofSeries(name, value) {
  if (value === null || value === undefined) return NONE;
  switch (unitOf(name)) {
    case 'bytes': return bytes(value);
    case 'seconds': return seconds(value);
    case 'share': return value <= 64 ? percent(value) : number(value);
    default: return number(value);
  }
}

/** Estimated seconds until the last step, or null: from the current rate of samples if it and the batch size are known, else the average. */
export function remaining(row, batch, now_ms) {
  if (row.status !== 'running' || !row.step || row.step >= row.steps) return null;
  const left = row.steps - row.step;
  if (batch && row.samples_per_second) return (left * batch) / row.samples_per_second;
  // A resumed or restarted run did not start at step 0, so its average rate is unknown.
  if (row.parent || row.generation > 1 || !row.started_at_ms) return null;
  return (left * (now_ms - row.started_at_ms)) / 1000 / row.step;
}

/** Seconds from start to end, or to `now_ms` if the run has not ended. */
export function lasted(row, now_ms) {
  if (!row.started_at_ms) return null;
  return Math.max(0, (row.ended_at_ms ?? now_ms) - row.started_at_ms) / 1000;
}

function exponent(value, digits) {
  const [mantissa, power] = value.toExponential(digits - 1).split('e');
  return `${trimmed(mantissa)}e${power.replace('+', '')}`;
}

function trimmed(text) {
  return text.includes('.') && !text.includes('e') ? text.replace(/\.?0+$/, '') : text;
}
