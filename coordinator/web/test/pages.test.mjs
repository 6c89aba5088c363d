import assert from 'node:assert/strict';
import { test } from 'node:test';
import { Loaded, newestFirst, path } from '../pages.js';

const row = (number, more = {}) => ({ run: `run-${number}`, number, ...more });
const page = (from, to, older) => ({ runs: Array.from({ length: to - from + 1 }, (_, index) => row(from + index)), before: from, older });
const numbers = (loaded) => newestFirst(loaded.rows.values()).map(({ number }) => number);

test('pages follow each other without gap or double, whatever comes in between', () => {
  const loaded = new Loaded();
  loaded.ask();
  const first = page(8, 10, 7);
  // An active run that was submitted long ago.
  first.runs.unshift(row(2, { status: 'running' }));
  loaded.take(first);
  assert.deepEqual([loaded.unread(), loaded.reaches(7), loaded.reaches(6)], [6, true, false]);
  loaded.ask();
  loaded.hear(row(11, { status: 'queued' }));
  loaded.hear(row(6, { status: 'newer' }));
  loaded.take(page(5, 7, 4));
  assert.deepEqual(numbers(loaded), [11, 10, 9, 8, 7, 6, 5, 2]);
  assert.equal(loaded.rows.get('run-6').status, 'newer', 'the response may be older than the event');
  assert.deepEqual([loaded.unread(), loaded.reaches(4), loaded.reaches(3)], [3, true, false]);
  loaded.ask();
  loaded.take(page(1, 4, 0));
  assert.deepEqual(numbers(loaded), [11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1]);
  assert.deepEqual([loaded.unread(), loaded.reaches(0)], [0, true]);
});

test('what is read anew replaces what was there, but for what was heard meanwhile', () => {
  const loaded = new Loaded();
  loaded.take(page(1, 3, 0));
  loaded.ask();
  loaded.hear(row(5));
  const fresh = loaded.replace([page(3, 4, 1), page(2, 2, 0)]);
  assert.deepEqual(fresh.map(({ number }) => number), [3, 4, 2]);
  assert.deepEqual(numbers(loaded), [5, 4, 3, 2]);
});

test('a page is asked for by the number that it comes before', () => {
  assert.equal(path('runs'), 'runs?limit=200');
  assert.equal(path('jobs', 7), 'jobs?limit=200&before=7');
});
