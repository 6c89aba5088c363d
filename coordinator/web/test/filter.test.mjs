import assert from 'node:assert/strict';
import { test } from 'node:test';
import { column, nobodyHas, sorted } from '../columns.js';
import { fields, flatten, lookup, matches, parameters, parse } from '../filter.js';

const ROW = { run: 'ab12', name: 'gpt tiny', status: 'running', step: 40, loss: { value: 0.5, bits: 'x' }, tags: ['baseline', 'paper'], reason: null };
const PARAMS = flatten({ optimizer: { lr: 0.01, betas: [0.9, 0.99] }, model: { kind: 'gpt', inner: { lr: 7 } }, batch: { size: 64 } });
const holds = (text) => matches(parse(text), (field) => lookup(ROW, PARAMS, field));

test('a filter is words and conditions', () => {
  assert.deepEqual(parse('gpt -lr>=1e-3 reason:"lost node"'), [
    { negate: false, field: null, op: null, value: 'gpt' },
    { negate: true, field: 'lr', op: '>=', value: '1e-3' },
    { negate: false, field: 'reason', op: ':', value: 'lost node' },
  ]);
  assert.deepEqual(fields(parse('a lr>1 b:c')), ['lr', 'b']);
  assert.deepEqual(parse('  '), []);
});

test('all terms must hold', () => {
  for (const yes of ['', 'GPT', 'ab12', 'paper', 'status:run', 'status=running', 'lr>0.001', 'lr>=0.01', 'optimizer.lr<1', 'loss<1', 'loss:0.5', '-tags:old',
    'tags:base', 'size!=32', 'kind=gpt status:running', '"gpt tiny"', 'reason=none', 'betas:0.99']) assert.ok(holds(yes), yes);
  for (const no of ['mlp', 'status=run', 'lr>0.01', 'lr>nothing', '-gpt', 'loss>1', 'unknown>1', 'unknown:x', 'gpt status:failed', 'name=gpt']) assert.ok(!holds(no), no);
});

test('a short name finds the shortest path of the job that ends so', () => {
  assert.equal(lookup(ROW, PARAMS, 'lr'), 0.01);
  assert.equal(lookup(ROW, PARAMS, 'inner.lr'), 7);
  assert.equal(lookup(ROW, undefined, 'lr'), undefined);
  assert.equal(PARAMS['optimizer.betas'], '0.9, 0.99');
});

test('whole numbers that would be rounded are compared as they stand', () => {
  const of = (text) => parameters(text)['seed'];
  assert.equal(of('{"seed":9007199254740993}'), '9007199254740993');
  assert.equal(of('{"seed":-9223372036854775807}'), '-9223372036854775807');
  assert.equal(of('{"seed":9007199254740991}'), 9007199254740991);
  const others = parameters('{"name":"a \\"1: 9007199254740993","optimizer":{"lr":0.12345678901234567,"eps":1e-300},"list":[9007199254740993, 1]}');
  assert.deepEqual(others, { name: 'a "1: 9007199254740993', 'optimizer.lr': 0.12345678901234567, 'optimizer.eps': 1e-300, list: '9007199254740993, 1' });
});

test('rows sort by value, and what has none comes last in both directions', () => {
  const rows = [2, null, 10, 1].map((value, index) => ({ run: String(index), loss: value === null ? null : { value, bits: '' } }));
  const order = (descending) => sorted(rows, column('loss'), descending, 0).map(({ run }) => run);
  assert.deepEqual(order(false), ['3', '0', '2', '1']);
  assert.deepEqual(order(true), ['2', '0', '3', '1']);
});

test('a column that no run has is known for one once all jobs are read', () => {
  const rows = [ROW, { ...ROW, run: 'cd34' }];
  const known = () => PARAMS;
  assert.ok(nobodyHas('optimizer.lrr', rows, known));
  for (const key of ['optimizer.lr', 'lr', 'step', 'reason']) assert.ok(!nobodyHas(key, rows, known), key);
  assert.ok(!nobodyHas('optimizer.lrr', rows, (run) => (run === 'ab12' ? PARAMS : undefined)));
  assert.ok(!nobodyHas('optimizer.lrr', [], known));
});
