/**
 * The loaded rows of runs: the newest without a gap, page after page, and older ones that events have mentioned. Pure.
 *
 * A run's number is its position in the order of submission. It never changes, so `before` of one page is the start of the next, even
 * if runs change in between.
 */

/** Number of runs per page. */
export const PAGE = 200;

/** Maximum number of pages that are loaded automatically for one action of the user. */
export const TOGETHER = 5;

/** The path of a page of `what`: `runs` or `jobs`. */
export function path(what, before = null) {
  return `${what}?limit=${PAGE}${before === null ? '' : `&before=${before}`}`;
}

/** Rows with the greatest number first. */
export function newestFirst(rows) {
  return [...rows].sort((a, b) => b.number - a.number);
}

/** See the module. */
export class Loaded {
  /** Rows by run id. */
  rows = new Map();
  /** All runs with this number or a greater one are loaded; null: none is. */
  before = null;
  /** Number of runs with a smaller number than `before`. */
  older = 0;
  /** Runs with events since the last request: its response may be older than the events. */
  heard = new Set();

  /** Merges the row of an event. */
  hear(row) {
    this.heard.add(row.run);
    this.rows.set(row.run, { ...this.rows.get(row.run), ...row });
  }

  /** Must be called before each request. */
  ask() {
    this.heard.clear();
  }

  /** Adds the page after the last one. Returns its rows, without those that an event has changed since the request. */
  take({ runs, before, older }) {
    const fresh = runs.filter(({ run }) => !this.heard.has(run));
    for (const row of fresh) this.rows.set(row.run, row);
    [this.before, this.older] = [before, older];
    return fresh;
  }

  /** Replaces all rows with `pages`, which start at the newest run. Rows of events since the request stay. */
  replace(pages) {
    const there = new Set(pages.flatMap(({ runs }) => runs.map(({ run }) => run)));
    for (const run of this.rows.keys()) {
      if (!there.has(run) && !this.heard.has(run)) this.rows.delete(run);
    }
    return pages.flatMap((page) => this.take(page));
  }

  /** Number of runs that are not loaded. */
  unread() {
    const known = [...this.rows.values()].filter(({ number }) => number < this.before).length;
    return Math.max(0, this.older - known);
  }

  /** Whether all runs with a number above `number` are loaded. */
  reaches(number) {
    return this.older === 0 || this.before <= number + 1;
  }
}
