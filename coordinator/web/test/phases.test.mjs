import assert from 'node:assert/strict';
import { test } from 'node:test';
import { PHASES, colourOf, placeOf } from '../phases.js';

const palette = { dim: 'grey', series: ['c0', 'c1', 'c2', 'c3', 'c4', 'c5', 'c6', 'c7'] };

test('no two phases share a colour, and one that is missing changes no other', () => {
  const colours = PHASES.map((name) => colourOf(name, palette));
  assert.equal(new Set(colours).size, PHASES.length);
  assert.deepEqual([colourOf('data', palette), colourOf('other', palette)], ['c0', 'grey']);
  assert.ok(placeOf('data') < placeOf('other') && placeOf('other') < placeOf('new'));
});
