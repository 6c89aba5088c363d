/** The provenance of a run: code, data, environment, numerics. */

import { digest, facts, h, table } from './dom.js';
import { bytes } from './format.js';

/** Creates the tab. */
export function provenance({ run }) {
  const { code } = run;
  const made = code ? facts([
    ['commit', digest(code.commit, 40)], ['branch', code.branch ?? 'none'], ['remote', code.remote ?? 'none'],
    ['work tree', code.dirty ? h('strong', { class: 'warn' }, 'had uncommitted changes') : 'no uncommitted changes'],
    ['tags', code.tags.join(', ') || 'none'], ['directory', code.directory || '/'],
    ['stored changes', code.tree ? [digest(code.tree.digest), ` ${bytes(code.tree.bytes)}`] : 'none'],
    ['stored source', code.source ? [digest(code.source.digest), ` ${bytes(code.source.bytes)}`] : 'none'],
    ['to restore it', h('code', null, `coord checkout ${run.run}`)],
  ]) : h('p', { class: 'dim' }, 'the job was not in a git work tree');
  const data = run.data.map((file) => [h('code', null, file.path), { text: bytes(file.bytes), class: 'number' }, digest(file.digest, 24)]);
  const section = (title, ...content) => h('section', null, h('h3', null, title), content);
  return {
    element: h('div', null,
      section('code', made),
      section('data', data.length > 0 ? table(['path', 'size', 'digest'], data, { class: 'plain' }) : h('p', { class: 'dim' }, 'none')),
      section('environment', values(run.environment)),
      section('numerics', h('p', { class: 'dim' }, 'measured properties of the processes that can change the bits of the result'), values(run.numerics))),
    end: () => {},
  };
}

/** A table of names and values. Long values are collapsed. */
function values(map) {
  const entries = Object.entries(map);
  if (entries.length === 0) return h('p', { class: 'dim' }, 'not measured yet');
  const unset = entries.filter(([, value]) => value === '(not set)').map(([key]) => key);
  const rows = entries.filter(([, value]) => value !== '(not set)').map(([key, value]) => [
    h('code', null, key),
    value.length > 160 ? h('details', null, h('summary', null, `${value.slice(0, 120)}…`), h('pre', { class: 'wrap' }, value)) : value,
  ]);
  return [table(['name', 'value'], rows, { class: 'plain' }), unset.length > 0 && h('p', { class: 'dim' }, `not set: ${unset.join(', ')}`)];
}
