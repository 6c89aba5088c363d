import assert from 'node:assert/strict';
import { test } from 'node:test';
import { axes, described, labels, table } from '../difference.js';
import { format, parse, run } from '../route.js';

test('an address is read as it was written', () => {
  const hash = run('vxkj', 'charts', { chart: 'grad_norm/l3.weight', q: 'a&b=c #%>1', from: 0, off: false, none: null });
  const found = parse(hash);
  assert.deepEqual([found.page, found.id, found.tab], ['run', 'vxkj', 'charts']);
  assert.deepEqual([...found.params], [['chart', 'grad_norm/l3.weight'], ['q', 'a&b=c #%>1'], ['from', '0']]);
  assert.equal(format(found), hash);
  assert.equal(parse('').page, 'runs');
  assert.equal(parse('#/run/%zz').id, '%zz');
});

const RUN = (lr, kind, loss, more = {}) => described({
  job: JSON.stringify({ optimizer: { lr, kind } }), code: { commit: 'c', tree: null, source: null }, data: [{ path: 'a', digest: 'd' }], environment: { os: 'x' },
  numerics: {}, status: 'finished', step: 5, loss: loss === null ? null : { value: loss }, ...more,
});

test('differences are what is not equal in all runs, and what is not there differs', () => {
  const parts = table([RUN(0.1, 'sgd', 1), RUN(0.1, 'adamw', 2, { environment: {} })]);
  const differs = parts.flatMap(({ part, rows }) => rows.filter((row) => row.differs).map(({ key }) => `${part}/${key}`));
  assert.deepEqual(differs, ['job/optimizer.kind', 'environment/os', 'result/loss']);
});

test('axes are the differing parameters and the loss', () => {
  const found = axes([RUN(1e-4, 'sgd', 1), RUN(1e-2, 'sgd', null), RUN(1, 'adamw', 3)]);
  assert.deepEqual(found.map(({ key }) => key), ['optimizer.kind', 'optimizer.lr', 'loss']);
  assert.deepEqual(found[0].at, [1, 1, 0]);
  assert.ok(Math.abs(found[1].at[1] - 0.5) < 1e-9, 'spread by the logarithm');
  assert.deepEqual(found[2].at, [0, null, 1]);
});

test('a legend calls runs by the one parameter in which they differ', () => {
  const runs = [{ name: 'gpt', run: 'aaaaaa' }, { name: 'gpt', run: 'bbbbbb' }];
  assert.deepEqual(labels(runs, [RUN(0.004, 'sgd', 1), RUN(0.001, 'sgd', 2)]), ['lr 0.004', 'lr 0.001']);
  assert.deepEqual(labels(runs, [RUN(0.004, 'sgd', 1), RUN(0.001, 'adamw', 2)]), ['gpt aaaa', 'gpt bbbb']);
  assert.deepEqual(labels(runs, [RUN(0.004, 'sgd', 1), RUN(0.004, 'sgd', 2)]), ['gpt aaaa', 'gpt bbbb']);
  assert.deepEqual(labels(runs.slice(0, 1), [RUN(0.004, 'sgd', 1)]), ['gpt aaaa']);
});
