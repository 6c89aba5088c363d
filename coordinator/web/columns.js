/** Columns of the runs table: value, text and order. Pure. */

import { ago, clock, grouped, lasted, number, remaining, seconds, short } from './format.js';
import { lookup, plain } from './filter.js';

/** `{key, title, value(row, now), text(value, row, now), hint(value), numeric}`. Rows are sorted by `value`; `text` is displayed. */
export const COLUMNS = [
  { key: 'name', title: 'name', value: (row) => row.name },
  { key: 'run', title: 'run', value: (row) => row.run },
  { key: 'status', title: 'status', value: (row) => row.status },
  { key: 'progress', title: 'progress', value: (row) => (row.steps ? row.step / row.steps : 0), text: (_, row) => `${grouped(row.step)} / ${grouped(row.steps)}`, numeric: true },
  { key: 'eta', title: 'time left', value: (row, now) => remaining(row, null, now), text: seconds, numeric: true },
  { key: 'loss', title: 'loss', value: (row) => plain(row.loss), text: (value) => number(value, 5), numeric: true },
  { key: 'grad_norm', title: 'grad norm', value: (row) => plain(row.grad_norm), text: (value) => number(value), numeric: true },
  { key: 'samples_per_second', title: 'samples/s', value: (row) => row.samples_per_second, text: (value) => number(value, 3), numeric: true },
  { key: 'ranks', title: 'ranks', value: (row) => row.ranks, text: grouped, numeric: true },
  { key: 'processes', title: 'processes', value: (row) => row.processes, text: grouped, numeric: true },
  { key: 'generation', title: 'generation', value: (row) => row.generation, text: grouped, numeric: true },
  { key: 'created', title: 'created', value: (row) => row.created_at_ms, text: (value, _, now) => ago(value, now), hint: (value) => clock(value), numeric: true },
  { key: 'duration', title: 'duration', value: lasted, text: seconds, numeric: true },
  { key: 'tags', title: 'tags', value: (row) => (row.tags ?? []).join(' ') },
  { key: 'reason', title: 'reason', value: (row) => row.reason },
  { key: 'alarms', title: 'alarms', value: (row) => row.alarms ?? null, text: (value) => (value ? String(value) : '–'), numeric: true },
  { key: 'parent', title: 'resumed from', value: (row) => row.parent, text: short },
  { key: 'replay_of', title: 'replay of', value: (row) => row.replay_of },
  { key: 'final_state_digest', title: 'final state', value: (row) => row.final_state_digest, text: short },
];

/** The default columns. */
export const DEFAULT = ['name', 'status', 'progress', 'loss', 'grad_norm', 'samples_per_second', 'ranks', 'created', 'duration', 'tags', 'run'];

/** The column named `key`: one of `COLUMNS`, or a key of the job. `paramsOf(run)` is a flattened job, or undefined. */
export function column(key, paramsOf) {
  const known = COLUMNS.find((each) => each.key === key);
  if (known) return known;
  return {
    key, title: key, job: true, numeric: false,
    value: (row) => lookup(row, paramsOf(row.run), key) ?? null,
    text: (value) => (typeof value === 'number' ? number(value, 6) : value === null ? '–' : String(value)),
  };
}

/** Whether the jobs of all `rows` are loaded, and none has the key `key`. */
export function nobodyHas(key, rows, paramsOf) {
  return rows.length > 0 && rows.every((row) => paramsOf(row.run) && lookup(row, paramsOf(row.run), key) === undefined);
}

/** Rows sorted by a column's values. Rows without a value come last in both directions. */
export function sorted(rows, own, descending, now) {
  const keyed = rows.map((row, index) => ({ row, index, value: own.value(row, now) }));
  const missing = (value) => value === null || value === undefined || value === '';
  keyed.sort((a, b) => {
    if (missing(a.value) || missing(b.value)) return missing(a.value) - missing(b.value) || a.index - b.index;
    const order = typeof a.value === 'number' && typeof b.value === 'number'
      ? a.value - b.value
      : String(a.value).localeCompare(String(b.value), 'en', { numeric: true });
    return (descending ? -order : order) || a.index - b.index;
  });
  return keyed.map(({ row }) => row);
}
