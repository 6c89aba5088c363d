/** The overview of a run: state, alarms, main curves, note, tags and job. */

import { put } from './api.js';
import { alarmCards, marksOf } from './alarms.js';
import { announce, digest, fill, h, table, ticked } from './dom.js';
import { flatten } from './filter.js';
import { ago, clock, grouped, lasted, number, remaining, seconds } from './format.js';
import { Watch } from './grid.js';
import * as live from './live.js';
import { run as runAddress } from './route.js';
import { bar, status } from './runs.js';
import { View } from './view.js';

/** Series of the overview, in order. It shows the first six that the run has. */
const CURVES = ['loss', 'eval/loss', 'eval/accuracy', 'eval/perplexity', 'grad_norm', 'lr', 'throughput/samples', 'throughput/tokens', 'step_seconds'];

/** Creates the tab. */
export function overview({ run, series, alarms, source }) {
  const job = JSON.parse(run.job);
  const head = h('div', { class: 'facts-wide' });
  const show = () => fill(head, glance(run, job));
  show();
  const timer = setInterval(show, 1000);
  const stop = live.on('run', (row) => {
    if (row.run !== run.run) return;
    show();
    tagged.follow();
  });
  const [tagged, noted] = [tags(run), note(run)];
  const cards = alarmCards(source, run, alarms);
  const view = new View();
  view.zoom = (range) => view.change(range ?? { from: null, to: null, x: null }, false);
  const watch = new Watch(view);
  const names = new Set(series.map(({ name }) => name));
  const curves = CURVES.filter((name) => names.has(name)).slice(0, 6);
  const panels = curves.map((name) => watch.add({ name, runs: [source], marks: marksOf(alarms) }).element);
  return {
    element: h('div', { class: 'overview' },
      head, cards.element,
      panels.length > 0 && h('div', { class: 'charts' }, panels),
      h('div', { class: 'columns' },
        h('section', null, h('h3', null, 'tags'), tagged.element, h('h3', null, 'note'), noted.element),
        h('section', null, h('h3', null, 'job'), parameters(job), h('p', { class: 'dim' }, 'job digest ', digest(run.job_digest))))),
    // Shows changes of tags and note by other users.
    follow: () => {
      tagged.follow();
      noted.follow();
    },
    end: () => {
      clearInterval(timer);
      stop();
      cards.end();
      watch.end();
    },
  };
}

function glance(run, job) {
  const now = Date.now();
  const left = remaining(run, job.batch?.size, now);
  const facts = [
    ['status', status(run)],
    ['steps', [`${grouped(run.step)} of ${grouped(run.steps)}`, bar(run)]],
    ...(run.status === 'running' ? [['time left', left === null ? '–' : `${seconds(Math.round(left))} (${clock(now + left * 1000, left > 43200)})`]] : []),
    ['duration', seconds(lasted(run, now))],
    ['loss', number(run.loss?.value, 6)],
    ['gradient norm', number(run.grad_norm?.value, 5)],
    ['samples/s', number(run.samples_per_second, 4)],
    ['ranks', `${run.ranks} on ${run.processes} ${run.processes === 1 ? 'process' : 'processes'}`],
    ...(run.restarts > 0 ? [['restarts', `${run.restarts}, now generation ${run.generation}`]] : []),
    ['last report', h('span', { title: clock(run.heard_at_ms) }, ago(run.heard_at_ms, now))],
  ];
  const failed = run.checkpoint_failed;
  return [run.reason && h('p', { class: 'reason' }, ticked(run.reason)),
    failed && h('p', { class: 'reason' }, ticked(`checkpoint at step ${grouped(failed.step)} failed${failed.attempts > 1 ? `, ${failed.attempts} times` : ''}: ${failed.reason}`)),
    facts.map(([key, value]) => h('div', null, h('span', { class: 'dim' }, key), h('div', null, value)))];
}

/** The keys of a job, nested ones by dotted path. */
function parameters(job) {
  const rows = Object.entries(flatten(job)).map(([key, value]) => [h('code', null, key), String(value)]);
  return table(['parameter', 'value'], rows, { class: 'plain' });
}

function tags(run) {
  const chips = h('span', { class: 'tags' });
  const input = h('input', { type: 'text', placeholder: 'add a tag', 'aria-label': 'add a tag', size: 12 });
  let drawn = null;
  const save = async (next) => {
    const before = run.tags;
    run.tags = next;
    draw();
    try {
      await put(`runs/${run.run}/tags`, next);
    } catch (error) {
      run.tags = before;
      draw();
      announce(`cannot save the tags: ${error.message}`);
    }
  };
  const draw = () => {
    drawn = String(run.tags);
    fill(chips, (run.tags ?? []).map((tag) => h('span', { class: 'tag' }, tag,
      h('button', { type: 'button', 'aria-label': `remove ${tag}`, onclick: () => save(run.tags.filter((own) => own !== tag)) }, '×'))));
  };
  const add = (event) => {
    event.preventDefault();
    const tag = input.value.trim();
    input.value = '';
    if (tag && !(run.tags ?? []).includes(tag)) save([...(run.tags ?? []), tag]);
  };
  draw();
  return {
    element: h('div', { class: 'tags' }, chips, h('form', { onsubmit: add }, input)),
    follow: () => drawn !== String(run.tags) && draw(),
  };
}

function note(run) {
  const said = h('span', { class: 'dim', role: 'status' });
  const area = h('textarea', { rows: 6, 'aria-label': 'note', placeholder: 'purpose of this run, observations' });
  // The text of the field when it last equalled the coordinator's.
  let base = area.value = run.note ?? '';
  let sent = base;
  const save = async () => {
    if (area.value === base) return;
    const text = sent = area.value;
    try {
      await put(`runs/${run.run}/note`, text);
      base = run.note = text;
      said.textContent = 'saved';
    } catch (error) {
      said.textContent = `cannot save the note: ${error.message}`;
    }
  };
  area.addEventListener('input', () => { said.textContent = 'not saved yet: leave the field or press Ctrl+Enter to save'; });
  area.addEventListener('blur', save);
  area.addEventListener('keydown', (event) => {
    if (event.key === 'Enter' && (event.ctrlKey || event.metaKey)) save();
  });
  const follow = () => {
    const now = run.note ?? '';
    if (now === base) return;
    if (area.value === base) area.value = now;
    // Both texts stay visible, so that neither is lost unnoticed.
    else if (now !== area.value && now !== sent) said.textContent = `not saved yet; another user has changed the note to: ${now}`;
    base = now;
  };
  return { element: h('div', null, area, said), follow };
}

/** A link to a run, with its name if the run is in `rows`. */
export function runLink(id, rows) {
  const row = rows?.get(id);
  return h('a', { href: runAddress(id) }, row ? `${row.name} ` : '', h('code', null, id));
}

