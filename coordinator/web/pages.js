/**
 * The rows of runs that were read, page after page: the newest without a gap, and of older ones those that were heard of. Pure.
 *
 * A run's number is its place in the order of submission. It never changes, so `before` of one page is where the next begins, whatever
 * happens in between.
 */

/** Runs of a page. */
export const PAGE = 200;

/** Pages that are read for a question at a time; then whoever asks decides whether to go on. */
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
  /** By id. */
  rows = new Map();
  /** All runs with this number or a greater one are here; null: nothing was read. */
  before = null;
  /** How many runs have a smaller number. */
  older = 0;
  /** Runs that were heard of since the last question was asked: its answer may be older. */
  heard = new Set();

  /** An event has said this of a run. */
  hear(row) {
    this.heard.add(row.run);
    this.rows.set(row.run, { ...this.rows.get(row.run), ...row });
  }

  /** A question is about to be asked. */
  ask() {
    this.heard.clear();
  }

  /** Takes the page that was asked for behind the last one; its rows that are new here. */
  take({ runs, before, older }) {
    const fresh = runs.filter(({ run }) => !this.heard.has(run));
    for (const row of fresh) this.rows.set(row.run, row);
    [this.before, this.older] = [before, older];
    return fresh;
  }

  /** Takes pages that were read from the newest run on: a run that is in none of them, and was not heard of, is not here any more. */
  replace(pages) {
    const there = new Set(pages.flatMap(({ runs }) => runs.map(({ run }) => run)));
    for (const run of this.rows.keys()) {
      if (!there.has(run) && !this.heard.has(run)) this.rows.delete(run);
    }
    return pages.flatMap((page) => this.take(page));
  }

  /** Runs that are not here. */
  unread() {
    const known = [...this.rows.values()].filter(({ number }) => number < this.before).length;
    return Math.max(0, this.older - known);
  }

  /** Whether all runs that were submitted after number `number` are here. */
  reaches(number) {
    return this.older === 0 || this.before <= number + 1;
  }
}
