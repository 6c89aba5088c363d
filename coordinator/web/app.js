/** The frame of the page: navigation, keyboard shortcuts, theme, state of the connection. */

import { get } from './api.js';
import { announce, fill, h } from './dom.js';
import * as live from './live.js';
import { parse } from './route.js';
import * as theme from './theme.js';

/** Pages by the first part of the address. The modules of a page are loaded when it is first shown. */
const PAGES = {
  runs: async (route) => (await import('./runs.js')).runsPage(route),
  run: async (route) => (await import('./run.js')).runPage(route),
  compare: async (route) => (await import('./compare.js')).comparePage(route),
  cluster: async (route) => (await import('./cluster.js')).clusterPage(route),
};

const KEYS = [
  ['j  k', 'next and previous run'], ['Enter', 'open the run'], ['x', 'select the run for a comparison'], ['/', 'go to the filter'],
  ['g r', 'go to all runs'], ['g c', 'go to the cluster'], ['g d', 'compare the selected runs'], ['1 … 9', 'tabs of a run'],
  ['← →', 'move the cursor in the focused chart'], ['+  0', 'zoom in at the cursor, show all'], ['t', 'switch between dark and light'], ['?', 'show this list'],
  ['Esc', 'leave a field, close this list'],
];

/** Time between two checks whether metrics are stored, because there is no event for it. */
const LOOK_MS = 30_000;

const main = document.getElementById('main');
let shown = null;
let turn = 0;

async function show() {
  const route = parse(location.hash);
  for (const link of document.querySelectorAll('#nav a')) {
    const own = parse(link.getAttribute('href')).page;
    if (own === route.page || (own === 'runs' && route.page === 'run')) link.setAttribute('aria-current', 'page');
    else link.removeAttribute('aria-current');
  }
  if (route.page === shown?.page && shown.stay?.(route)) return;
  turn += 1;
  const own = turn;
  const make = PAGES[route.page] ?? (() => Promise.reject(new Error(`page \`${route.page}\` does not exist`)));
  let next;
  try {
    next = await make(route);
  } catch (error) {
    next = { element: h('div', { class: 'page' }, h('p', { class: 'empty' }, error.message)), end: () => {}, title: 'error' };
  }
  if (own !== turn) {
    next.end();
    return;
  }
  shown?.end();
  shown = { ...next, page: next.title === 'error' ? 'error' : route.page };
  document.title = `${next.title} · Lockstep`;
  fill(main, next.element);
  main.scrollTop = 0;
}

function help() {
  const dialog = document.getElementById('help');
  if (!dialog.firstChild) {
    fill(dialog, h('h2', null, 'keyboard shortcuts'), h('dl', { class: 'facts' }, KEYS.map(([key, does]) => [h('dt', null, h('kbd', null, key)), h('dd', null, does)])),
      h('form', { method: 'dialog' }, h('button', { type: 'submit' }, 'close')));
  }
  dialog.showModal();
}

let before = null;

function pressed(event) {
  const field = event.target.closest('input:not([type=checkbox]):not([type=range]), textarea, select');
  if (event.key === 'Escape' && field) field.blur();
  if (field || event.ctrlKey || event.metaKey || event.altKey) return;
  const after = before === 'g' ? { r: '#/runs', c: '#/cluster' }[event.key] : null;
  const compare = before === 'g' && event.key === 'd' ? document.querySelector('a[href^="#/compare"]') : null;
  before = event.key;
  if (after) location.hash = after;
  else if (compare) compare.click();
  else if (event.key === '/') document.querySelector('[data-filter]')?.focus();
  else if (event.key === '?') help();
  else if (event.key === 't') theme.toggle();
  // Enter activates the focused link or button.
  else if (event.key === 'Enter' && event.target.closest('a, button, summary')) return;
  else if (!shown?.keys?.key(event.key)) return;
  event.preventDefault();
}

/** Shows a badge on every page while metrics are not stored. */
async function lookAtNumbers() {
  const { numbers_not_kept: why } = await get('coordinator');
  const badge = document.getElementById('unkept');
  badge.hidden = !why;
  badge.title = why ? `the coordinator no longer stores the metrics of runs: ${why}` : '';
}

// Every page needs the rows, so they are requested while its modules are loaded. The page that awaits them shows an error.
live.runs().catch(() => {});
theme.start();
document.getElementById('theme').addEventListener('click', theme.toggle);
document.getElementById('keys').addEventListener('click', help);
document.querySelector('.skip').addEventListener('click', (event) => {
  // The link must not change the hash, which is the address of the page.
  event.preventDefault();
  main.focus();
});
document.addEventListener('keydown', pressed);
window.addEventListener('hashchange', show);
live.on('state', (heard) => {
  const state = document.getElementById('live');
  state.textContent = heard ? 'live' : 'not connected';
  state.className = heard ? 'status running' : 'status failed';
  if (heard) lookAtNumbers().catch(() => {});
  else announce('lost connection to the coordinator; reconnecting');
});
live.on('resync', () => shown?.page === 'error' && show());
// A hidden tab sends no requests.
setInterval(() => document.hidden || lookAtNumbers().catch(() => {}), LOOK_MS);
// Events only after the first page is shown, so that they do not delay it.
show().finally(live.connect);
// Preloads the page of a run, which is usually opened next.
setTimeout(() => import('./run.js').catch(() => {}), 1000);
