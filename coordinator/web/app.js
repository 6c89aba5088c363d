/** The page as a whole: which part is shown, keys, theme, whether the coordinator is heard. */

import { get } from './api.js';
import { announce, fill, h } from './dom.js';
import * as live from './live.js';
import { parse } from './route.js';
import * as theme from './theme.js';

/** Pages by the first part of the address; what is not needed for the first one is read when it is. */
const PAGES = {
  runs: async (route) => (await import('./runs.js')).runsPage(route),
  run: async (route) => (await import('./run.js')).runPage(route),
  compare: async (route) => (await import('./compare.js')).comparePage(route),
  cluster: async (route) => (await import('./cluster.js')).clusterPage(route),
};

const KEYS = [
  ['j  k', 'next and previous run'], ['Enter', 'open it'], ['x', 'choose it for a comparison'], ['/', 'to the filter'],
  ['g r', 'all runs'], ['g c', 'the cluster'], ['g d', 'compare the chosen runs'], ['1 … 9', 'parts of a run'],
  ['← →', 'move the cursor in the focused chart'], ['+  0', 'zoom in there, show all'], ['t', 'dark or light'], ['?', 'this list'], ['Esc', 'leave a field, close this'],
];

/** Between two looks whether the numbers of runs are kept: no event tells that they are not. */
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
  const make = PAGES[route.page] ?? (() => Promise.reject(new Error(`there is no page \`${route.page}\``)));
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
    fill(dialog, h('h2', null, 'keys'), h('dl', { class: 'facts' }, KEYS.map(([key, does]) => [h('dt', null, h('kbd', null, key)), h('dd', null, does)])),
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
  // A link or button that has the focus does with Enter what it is for.
  else if (event.key === 'Enter' && event.target.closest('a, button, summary')) return;
  else if (!shown?.keys?.key(event.key)) return;
  event.preventDefault();
}

/** Says above every page that numbers are not kept, for as long as that is so. */
async function lookAtNumbers() {
  const { numbers_not_kept: why } = await get('coordinator');
  const badge = document.getElementById('unkept');
  badge.hidden = !why;
  badge.title = why ? `the coordinator no longer keeps the numbers of runs: ${why}` : '';
}

// Every page needs the rows: they are asked for while its files are read. Who needs them hears of an error.
live.runs().catch(() => {});
theme.start();
document.getElementById('theme').addEventListener('click', theme.toggle);
document.getElementById('keys').addEventListener('click', help);
document.querySelector('.skip').addEventListener('click', (event) => {
  // The hash is the address of a page here.
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
  else announce('the coordinator does not answer; trying again');
});
live.on('resync', () => shown?.page === 'error' && show());
// A tab that nobody sees asks for nothing.
setInterval(() => document.hidden || lookAtNumbers().catch(() => {}), LOOK_MS);
// What is seen first comes first.
show().finally(live.connect);
// Whoever looks at the table will open a run: by then its page is there.
setTimeout(() => import('./run.js').catch(() => {}), 1000);
