/** The page that compares runs: their curves in shared charts, their differences, and their parameters against the loss. */

import { get, maybe } from './api.js';
import { axes, described, labels, table } from './difference.js';
import { fill, h } from './dom.js';
import { number } from './format.js';
import { Grid, Watch } from './grid.js';
import * as live from './live.js';
import { newestFirst } from './pages.js';
import { runLink } from './overview.js';
import { parallel } from './parallel.js';
import { amend, format } from './route.js';
import { status } from './runs.js';
import { stepsPerEpoch } from './series.js';
import { ofLine, onChange } from './theme.js';
import { View, controls } from './view.js';

/** Maximum number of runs. More lines are unreadable. */
const MOST = 50;

/** Creates the page. */
export async function comparePage({ params }) {
  const rows = await live.runs();
  const wanted = (params.get('runs') ?? '').split(',').filter(Boolean).slice(0, MOST);
  const found = await Promise.all(wanted.map(async (id) => {
    const run = await maybe(`runs/${encodeURIComponent(id)}`);
    return run && { run, ...await get(`runs/${run.run}/series`) };
  }));
  const runs = found.filter(Boolean);
  const title = 'compare';
  const bar = chooser(runs, rows);
  if (runs.length === 0) return { element: h('div', { class: 'page' }, bar, h('p', { class: 'empty' }, 'select runs to compare, here or in the table of runs')), end: () => {}, title };
  const view = new View(params);
  const watch = new Watch(view);
  const all = runs.map(({ run }) => described(run));
  const names = labels(runs.map(({ run }) => run), all);
  const sources = runs.map(({ run, branches, series }, index) => ({
    id: run.run, label: names[index], colour: index, branches: branches.map(({ branch }) => branch),
    context: { began_ms: run.started_at_ms ?? series[0]?.first_ms ?? 0, steps_per_epoch: stepsPerEpoch(run.checkpoints) ?? 1 },
  }));
  const grid = new Grid({ runs: sources, series: runs.flatMap(({ series }) => series), watch, params });
  const lines = runs.length > 1 && parallel(axes(all), sources.map(({ label }) => label));
  const options = { epochs: runs.every(({ run }) => stepsPerEpoch(run.checkpoints) !== null), branches: runs.some(({ branches }) => branches.length > 0) };
  return {
    element: h('div', { class: 'page' }, bar,
      h('section', null, h('h3', null, 'curves'), controls(view, options), grid.element),
      lines && h('section', null, h('h3', null, 'parameters and loss'), h('div', { class: 'scroll' }, lines.element)),
      differences(all, runs.map(({ run }) => run), params)),
    end: () => {
      watch.end();
      if (lines) lines.end();
      bar.stop();
    },
    title,
  };
}

/** The list of compared runs with their colours. Runs can be removed and added. */
function chooser(runs, rows) {
  const to = (ids) => format({ page: 'compare', params: { runs: ids.join(',') } });
  const ids = runs.map(({ run }) => run.run);
  const chips = runs.map(({ run }, index) => {
    const chip = h('i', { class: 'chip' });
    chip.style.background = ofLine(index);
    return { chip, element: h('span', { class: 'tag' }, chip, runLink(run.run, rows), ' ', status(run),
      h('a', { href: to(ids.filter((id) => id !== run.run)), 'aria-label': `remove ${run.name}` }, '×')) };
  });
  const options = newestFirst(rows.values()).filter(({ run }) => !ids.includes(run)).map(({ run, name, step }) => h('option', { value: run }, `${name}, step ${step}`));
  const input = h('input', { type: 'text', list: 'runs-to-add', placeholder: 'add a run', 'aria-label': 'add a run', 'data-filter': '' });
  const add = (event) => {
    event.preventDefault();
    const id = input.value.trim();
    if (id) location.hash = to([...ids, id]);
  };
  const element = h('div', { class: 'toolbar' }, chips.map((own) => own.element), h('form', { onsubmit: add }, input, h('datalist', { id: 'runs-to-add' }, options)));
  element.stop = onChange(() => chips.forEach(({ chip }, index) => { chip.style.background = ofLine(index); }));
  return element;
}

/** A table of the differences. The other runs are compared with the first. */
function differences(all, runs, params) {
  const body = h('div', { class: 'scroll' });
  const every = h('input', { type: 'checkbox', checked: params.get('all') === '1', onchange: () => {
    amend({ all: every.checked ? '1' : null });
    draw();
  } });
  const cell = (value) => (value === null ? '–' : typeof value === 'number' ? number(value, 8) : String(value));
  const draw = () => {
    const parts = table(all).map(({ part, rows }) => ({ part, rows: rows.filter(({ differs }) => differs || every.checked), of: rows.length }));
    fill(body, h('table', { class: 'differences' },
      h('thead', null, h('tr', null, h('th', { scope: 'col' }, ''), runs.map(({ name, run }) => h('th', { scope: 'col' }, name, ' ', h('code', null, run.slice(0, 4)))))),
      parts.map(({ part, rows, of }) => h('tbody', null,
        h('tr', { class: 'part' }, h('th', { scope: 'colgroup', colSpan: runs.length + 1 }, part, h('span', { class: 'dim' }, rows.length === 0 ? ` all ${of} equal` : ''))),
        rows.map(({ key, values }) => h('tr', null, h('th', { scope: 'row' }, h('code', null, key)), values.map((value, index) => h('td', {
          class: value !== values[0] ? 'differs' : index === 0 && 'base', title: cell(value).length > 40 ? cell(value) : null,
        }, cell(value)))))))));
  };
  draw();
  return h('section', null, h('h3', null, 'differences'), h('label', null, every, 'show equal rows'), body);
}
