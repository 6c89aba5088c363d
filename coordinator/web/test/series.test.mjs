import assert from 'node:assert/strict';
import { test } from 'node:test';
import { ema, extent, groups, grown, line, lowerBound, nearest, positions, stacked, stepsPerEpoch } from '../series.js';

const points = (steps, values, more = {}) => line({ exact: true, steps, times_ms: steps.map((step) => step * 1000), values, ...more });

test('smoothing begins at the first value, keeps gaps, and does nothing at weight 0', () => {
  assert.deepEqual(ema([4, 4, 4], 0.9).map((value) => Number(value.toFixed(9))), [4, 4, 4]);
  const smoothed = ema([0, null, 1], 0.5);
  assert.equal(smoothed[1], null);
  assert.ok(Math.abs(smoothed[2] - 2 / 3) < 1e-12);
  const values = [1, 2];
  assert.equal(ema(values, 0), values);
});

test('a line grows by what comes after its end; an exact point bounds itself', () => {
  const old = points([10, 20], [1, 2], { exact: false, min: [0, 1], max: [3, 4] });
  const all = grown(old, points([15, 20, 21, 22], [9, 9, 5, 6]));
  assert.deepEqual(all.steps, [10, 20, 21, 22]);
  assert.deepEqual(all.values, [1, 2, 5, 6]);
  assert.deepEqual(all.min, [0, 1, 5, 6]);
  assert.deepEqual(all.max, [3, 4, 5, 6]);
  assert.equal(grown(old, points([20], [7])), old);
  assert.equal(grown(points([1], [1]), points([2], [2])).min, null);
  assert.deepEqual(grown(points([1], [1]), points([3], [2], { exact: false, min: [1], max: [4] })).max, [1, 4]);
});

test('the nearest step is found, at the ends, too', () => {
  const steps = [10, 20, 30];
  assert.deepEqual([0, 14, 15, 16, 99].map((step) => nearest(steps, step)), [0, 0, 0, 1, 2]);
  assert.equal(nearest([], 5), -1);
  assert.deepEqual([5, 10, 11, 31].map((step) => lowerBound(steps, step)), [0, 0, 1, 3]);
});

test('ranges leave out nulls, and outliers and what has no logarithm if asked to', () => {
  assert.deepEqual(extent([[1, null, -3], [2]]), [-3, 2]);
  assert.deepEqual(extent([[0, 0.5, 2]], { positive: true }), [0.5, 2]);
  const many = Array.from({ length: 200 }, (_, index) => index);
  const [min, max] = extent([[...many, 1e9]], { clip: true });
  assert.ok(min >= 1 && max < 1e9);
  assert.deepEqual(extent([[null]]), [Infinity, -Infinity]);
});

test('positions are in the unit of the axis', () => {
  const own = points([10, 20], [1, 1]);
  assert.deepEqual(positions(own, 'step'), [10, 20]);
  assert.deepEqual(positions(own, 'time'), [10, 20]);
  assert.deepEqual(positions(own, 'relative', { began_ms: 4000 }), [6, 16]);
  assert.deepEqual(positions(own, 'epoch', { steps_per_epoch: 5 }), [2, 4]);
  assert.equal(stepsPerEpoch([{ step: 5, epoch: 0 }, { step: 100, epoch: 4 }]), 25);
  assert.equal(stepsPerEpoch([{ step: 5, epoch: 0 }]), null);
});

test('groups come in the order of a page, names in that of people', () => {
  const names = ['device/x', 'grad_norm/l10', 'grad_norm/l2', 'reward/a', 'lr', 'custom', 'loss', 'eval/loss', 'phase/data', 'phase/data'];
  assert.deepEqual(groups(names.map((name) => ({ name }))), [
    ['main', ['loss', 'lr', 'custom']], ['eval', ['eval/loss']], ['reward', ['reward/a']], ['grad_norm', ['grad_norm/l2', 'grad_norm/l10']],
    ['phase', ['phase/data']], ['device', ['device/x']],
  ]);
});

test('a stack sums up, at the steps of the longest line', () => {
  const [low, high] = stacked([points([1, 2, 3], [1, 1, 1]), points([1, 3], [2, 4])]);
  assert.deepEqual(low.values, [1, 1, 1]);
  assert.deepEqual(high.steps, [1, 2, 3]);
  assert.deepEqual(high.low, [1, 1, 1]);
  assert.deepEqual(high.values, [3, 3, 5]);
});
