import assert from 'node:assert/strict';
import { test } from 'node:test';
import { axisOf, columnEnds, density, evidence, evidenceName } from '../bins.js';
import { ofSeries } from '../format.js';
import { byteTicks, linearTicks, logTicks, padded, scale, timeTicks } from '../scale.js';

test('ticks are round and inside', () => {
  assert.deepEqual(linearTicks(0, 1, 5), [0, 0.2, 0.4, 0.6, 0.8, 1]);
  assert.deepEqual(linearTicks(0, 1000000, 4), [0, 250000, 500000, 750000, 1000000]);
  assert.deepEqual(linearTicks(-0.35, 0.3, 4), [-0.2, 0, 0.2]);
  assert.deepEqual(linearTicks(0.1, 0.3, 2), [0.1, 0.2, 0.3]);
  assert.deepEqual(linearTicks(5, 5, 4), [5]);
  assert.deepEqual(linearTicks(0, 0.0042, 4), [0, 0.001, 0.002, 0.003, 0.004], 'a step slightly above a round number becomes that number');
  assert.deepEqual(logTicks(1, 1000, 6), [1, 10, 100, 1000]);
  assert.deepEqual(logTicks(1, 20, 6), [1, 2, 5, 10, 20]);
  assert.ok(logTicks(1e-9, 1e9, 5).length <= 6);
  assert.deepEqual(timeTicks(0, 7200, 4), [0, 1800, 3600, 5400, 7200]);
  assert.deepEqual(byteTicks(0, 2.5 * 2 ** 30, 5), [0, 0.5, 1, 1.5, 2, 2.5].map((tick) => tick * 2 ** 30));
});

test('a scale goes there and back', () => {
  for (const [min, max, log] of [[0, 10, false], [1e-3, 1e3, true], [-1, 1, true]]) {
    const own = scale(min, max, 100, 20, log);
    assert.ok(Math.abs(own.pixel(min) - 100) < 1e-9 && Math.abs(own.pixel(max) - 20) < 1e-9);
    assert.ok(Math.abs(own.value(own.pixel(0.5)) - 0.5) < 1e-9);
  }
  assert.equal(scale(-1, 1, 0, 1, true).log, false);
});

test('an axis has room around its values, and none below zero without need', () => {
  assert.deepEqual(padded(0, 10), [0, 10.5]);
  const [low, high] = padded(-1, 1);
  assert.ok(low < -1 && high > 1);
  assert.ok(padded(3, 3)[0] < 3 && padded(3, 3)[1] > 3);
  assert.deepEqual(padded(Infinity, -Infinity), [0, 1]);
  assert.ok(padded(1, 100, true)[0] > 0);
});

test('bins lie one upon the other, and their shares are those of pixels', () => {
  const item = { edges: [-1, 0, 1], counts: [1, 3], std: 1 };
  const cells = density(item, (value) => 50 - value * 50);
  assert.deepEqual(cells, [{ top: 50, bottom: 100, share: 0.25 / 50 }, { top: 0, bottom: 50, share: 0.75 / 50 }]);
  const thin = { edges: [-1, -0.004, 0, 0.004, 0.008, 0.012, 1], counts: [1, 1, 2, 1, 0, 5], std: 1 };
  const merged = density(thin, (value) => 50 - value * 100);
  assert.ok(merged.every(({ top, bottom }) => bottom - top >= 1), 'no cell is thinner than a pixel');
  assert.ok(merged.every((cell, index) => index === 0 || cell.bottom === merged[index - 1].top), 'none is missing');
  const all = merged.reduce((sum, { top, bottom, share }) => sum + share * (bottom - top), 0);
  assert.ok(Math.abs(all - 1) < 1e-9, 'no value is lost');
  const axis = axisOf([item], 100, 0, true);
  assert.ok(Math.abs(axis.pixel(-1) - 100) < 1e-9 && Math.abs(axis.pixel(1)) < 1e-9 && Math.abs(axis.pixel(0) - 50) < 1e-9);
  assert.ok(axis.ticks.includes(0) && axis.ticks.every((tick) => tick >= -1 && tick <= 1));
  assert.deepEqual(columnEnds([10, 20, 40]), [10, 15, 30, 40]);
});

test('of histograms an alarm shows what it is about, and the spread of nothing is none', () => {
  const healthy = { step: 200, at_ms: 1, count: 8, zeros: 6, nans: 0, infs: 0, std: 0.5 };
  const broken = { step: 400, at_ms: 2, count: 8, zeros: 0, nans: 7, infs: 1, std: 0 };
  const values = (kind) => evidence([healthy, broken], kind).values;
  assert.deepEqual(values('dead_units'), [0.75, 0]);
  assert.deepEqual(values('not_finite'), [0, 8]);
  assert.deepEqual(values('vanishing'), [0.5, null]);
  assert.deepEqual(evidence([healthy, broken], 'vanishing').steps, [200, 400]);
  assert.equal(ofSeries(evidenceName('dead_units'), 0.75), '75 %');
});
