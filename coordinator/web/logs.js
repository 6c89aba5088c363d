/** The end of the log of a process, updated while the run continues. */

import { text } from './api.js';
import { fill, h, throttle } from './dom.js';
import { bytes } from './format.js';
import * as live from './live.js';
import { amend } from './route.js';

/** Minimum time between two reloads. */
const GAP_MS = 1000;
const FIRST = 65536;
const MOST = 4 * 1024 * 1024;

/** Creates the tab. */
export async function logs({ run }, params, signal) {
  let tail = FIRST;
  let before = null;
  const processes = [...new Set([...run.placement.map(({ process }) => process), ...Array(run.processes).keys()])].sort((a, b) => a - b);
  const asked = params.get('process') ?? '0';
  const process = h('select', { onchange: () => {
    amend({ process: process.value });
    before = null;
    read();
  } }, (processes.length > 0 ? processes : [0]).map((own) => h('option', { value: String(own), selected: String(own) === asked }, `process ${own}`)));
  const only = h('input', { type: 'search', placeholder: 'filter lines', 'aria-label': 'filter lines', 'data-filter': '', value: params.get('find') ?? '', oninput: () => {
    amend({ find: only.value });
    show();
  } });
  const more = h('button', { type: 'button', onclick: () => {
    tail = Math.min(tail * 4, MOST);
    read();
  } }, 'show more');
  const said = h('span', { class: 'dim', role: 'status' });
  const lines = h('pre', { class: 'log', tabindex: '0', 'aria-label': 'log' });
  const show = () => {
    const atEnd = lines.scrollHeight - lines.scrollTop - lines.clientHeight < 30;
    const wanted = only.value.toLowerCase();
    const kept = (before ?? '').split('\n').filter((line) => line.toLowerCase().includes(wanted));
    fill(lines, kept.map((line) => h('span', { class: level(line) }, `${line}\n`)));
    if (atEnd) lines.scrollTop = lines.scrollHeight;
  };
  const read = async () => {
    try {
      const now = await text(`runs/${run.run}/logs?process=${process.value}&tail=${tail}`, signal);
      const size = new Blob([now]).size;
      said.textContent = now === '' ? 'no output yet' : `the last ${bytes(size)}`;
      more.hidden = size < tail * 0.9 || tail >= MOST;
      if (now === before) return;
      const first = before === null;
      before = now;
      show();
      if (first) requestAnimationFrame(() => { lines.scrollTop = lines.scrollHeight; });
    } catch (error) {
      if (!signal.aborted) said.textContent = error.message;
    }
  };
  await read();
  const soon = throttle(GAP_MS, read);
  const stops = ['run', 'points'].map((event) => live.on(event, (data) => data.run === run.run && soon()));
  stops.push(live.on('resync', soon));
  return {
    element: h('div', { class: 'logs' }, h('div', { class: 'controls' }, process, only, more, said), lines),
    end: () => stops.forEach((stop) => stop()),
  };
}

function level(line) {
  if (/\b(ERROR|panicked|error:)/.test(line)) return 'bad';
  return /\bWARN/.test(line) ? 'warn' : null;
}
