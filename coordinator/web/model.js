/** The model as a tree of modules and parameters, and the importance of its inputs. */

import { maybe } from './api.js';
import { h } from './dom.js';
import { grouped, percent } from './format.js';
import { importance } from './importance.js';
import { run as runAddress } from './route.js';

/** Modules with more children than this are initially closed. */
const OPEN_UP_TO = 12;

/** Creates the tab. */
export async function model({ run, series }, signal) {
  const found = await maybe(`runs/${run.run}/model`, signal);
  if (!found) return { element: h('p', { class: 'empty' }, 'no model yet: processes report it when they start'), end: () => {} };
  const charts = new Set(series.map(({ name }) => name));
  const { tree } = found;
  const element = h('div', null,
    h('p', null, `${found.kind}, `, h('strong', null, grouped(found.parameters)), ' parameters'),
    h('div', { class: 'tree' }, tree.children.map((child) => node(child, '', found.parameters, run.run, charts, 0))),
    importance({ run, series }));
  return { element, end: () => {} };
}

function node(own, prefix, total, run, charts, depth) {
  const path = prefix ? `${prefix}.${own.name}` : own.name;
  const share = total > 0 ? own.parameters / total : 0;
  const inner = h('i');
  inner.style.width = `${share * 100}%`;
  const chart = ['grad_norm', 'weight_norm', 'update_ratio'].map((group) => `${group}/${path}`).filter((name) => charts.has(name));
  const line = [
    h('code', null, own.name),
    own.shape && h('span', { class: 'dim' }, ` [${own.shape.join(' × ')}]`),
    own.trainable === false && h('span', { class: 'tag' }, 'frozen'),
    h('span', { class: 'links' }, chart.map((name) => [' ', h('a', { href: runAddress(run, 'charts', { chart: name }) }, name.slice(0, name.indexOf('/')).replace('_', ' '))])),
    h('span', { class: 'share', title: percent(share) }, h('span', { class: 'bar', 'aria-hidden': 'true' }, inner), grouped(own.parameters)),
  ];
  const children = own.children ?? [];
  if (children.length === 0) return h('div', { class: 'leaf' }, line);
  return h('details', { open: depth < 2 && children.length <= OPEN_UP_TO }, h('summary', null, line),
    h('div', null, children.map((child) => node(child, path, total, run, charts, depth + 1))));
}
