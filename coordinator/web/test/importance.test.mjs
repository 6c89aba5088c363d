import assert from 'node:assert/strict';
import { test } from 'node:test';

import { measured } from '../importance.js';

test('features are listed by way, the one that counts most first, and names may have slashes', () => {
  const series = [
    { name: 'loss', last: 1 },
    { name: 'importance/gradient/a', last: 0.5 },
    { name: 'importance/permutation/a', last: -0.1 },
    { name: 'importance/permutation/b/c', last: 2 },
    { name: 'importance/permutation/d', last: null },
  ];
  const ways = measured(series);
  assert.deepEqual(ways.map(([way]) => way), ['permutation', 'gradient']);
  assert.deepEqual(ways[0][1].map(({ feature, value }) => [feature, value]), [['b/c', 2], ['d', 0], ['a', -0.1]]);
  assert.deepEqual(measured([{ name: 'loss', last: 1 }]), []);
});
