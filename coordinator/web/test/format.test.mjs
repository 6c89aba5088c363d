import assert from 'node:assert/strict';
import { test } from 'node:test';
import { NONE, ago, bytes, clock, grouped, lasted, number, ofSeries, percent, remaining, seconds, tickClock, unitOf } from '../format.js';

test('numbers are short and keep their digits', () => {
  const cases = [[0, '0'], [1.5, '1.5'], [0.123456, '0.1235'], [1723.4, '1723'], [12345.6, '12\u202f346'], [5e-4, '5e-4'], [1.25e9, '1.25e9'], [-2, '-2'], [1000000, '1\u202f000\u202f000']];
  for (const [value, text] of cases) assert.equal(number(value), text);
  for (const value of [null, undefined, NaN]) assert.equal(number(value), NONE);
  assert.equal(number(-Infinity), '-∞');
  assert.equal(grouped(9999), '9999');
});

test('bytes, times and shares have units', () => {
  assert.equal(bytes(0), '0 B');
  assert.equal(bytes(1536), '1.5 KiB');
  assert.equal(bytes(85520809984), '79.6 GiB');
  assert.deepEqual([2e-9, 3.5e-5, 0.25, 1.5, 12, 90, 3600, 90061].map(seconds), ['2 ns', '35 µs', '250 ms', '1.5 s', '12 s', '1 min 30 s', '1 h', '1 d 1 h']);
  assert.equal(percent(0.966), '96.6 %');
  assert.equal(ago(1000, 62000), '1 min ago');
  assert.equal(ago(null, 5), NONE);
  const at = new Date(2026, 10, 26, 9, 5, 7).getTime();
  assert.equal(clock(at), '2026-11-26 09:05:07');
  assert.deepEqual([600, 7200, 100000, 1e6].map((span) => tickClock(at, span)), ['09:05:07', '09:05', '11-26 09:05', '11-26']);
});

test('the unit of a series follows from its name', () => {
  const units = ['process/rss_bytes', 'phase/data', 'step_seconds', 'eval/accuracy', 'process/cpu', 'loss'].map(unitOf);
  assert.deepEqual(units, ['bytes', 'seconds', 'seconds', 'share', 'share', 'number']);
  assert.equal(ofSeries('process/cpu', 0.5), '50 %');
  assert.equal(ofSeries('loss', null), NONE);
});

test('time left comes from the rate of samples, or from the past of a run that began at zero', () => {
  const row = { status: 'running', step: 100, steps: 300, samples_per_second: 640, started_at_ms: 1000, generation: 1, parent: null };
  assert.equal(remaining(row, 64, 51000), 20);
  assert.equal(remaining(row, null, 51000), 100);
  assert.equal(remaining({ ...row, parent: 'x' }, null, 50000), null);
  assert.equal(remaining({ ...row, status: 'finished' }, 64, 50000), null);
  assert.equal(lasted({ started_at_ms: 1000, ended_at_ms: 3500 }, 9000), 2.5);
});
