/**
 * The coordinator's events, and rows of runs that the events keep up to date: the newest runs, and older ones once they are requested.
 *
 * Events during an interruption are lost. Afterwards listeners of `resync` reload their data.
 */

import { get } from './api.js';
import { Loaded, path } from './pages.js';

const listeners = new Map();
const loaded = new Loaded();
let loading = null;

/** Calls `work` with the data of each `run`, `points`, `nodes`, `note`, `resync` or `state` event, until the returned function is called. */
export function on(event, work) {
  if (!listeners.has(event)) listeners.set(event, new Set());
  listeners.get(event).add(work);
  return () => listeners.get(event).delete(work);
}

function tell(event, data) {
  for (const work of listeners.get(event) ?? []) work(data);
}

/** Starts to receive events: from the stream that all tabs share, or from a separate one if the browser has no shared workers. */
export async function connect() {
  const own = async () => (await import('./stream.js')).open(hear);
  if (!('SharedWorker' in globalThis)) return own();
  const worker = new SharedWorker('/assets/stream.js', { type: 'module', name: 'lockstep' });
  worker.addEventListener('error', own, { once: true });
  worker.port.onmessage = ({ data: [event, data] }) => hear(event, data);
  worker.port.postMessage(true);
  window.addEventListener('pagehide', () => worker.port.postMessage(false));
  window.addEventListener('pageshow', ({ persisted }) => persisted && worker.port.postMessage(true));
}

let before = false;

function hear(event, data) {
  if (event === 'run') loaded.hear(data);
  tell(event, data);
  if (event !== 'state') return;
  if (data) missed(before);
  before = true;
}

/** Catches up after a (re)connection. Before the first event only rows can have changed; after an interruption anything can. */
async function missed(broken) {
  // A response that is under way may be older than the connection.
  await loading?.catch(() => {});
  const old = loaded.before === null ? null : new Map(loaded.rows);
  const fresh = await reload().catch(() => []);
  if (broken) tell('resync');
  else if (old) fresh.filter((row) => JSON.stringify(row) !== JSON.stringify(old.get(row.run))).forEach((row) => tell('run', row));
}

/** Rows by run id: the newest runs, all active runs, and those loaded with `more`. Loaded once, then kept up to date. */
export async function runs() {
  if (loaded.before === null) await reload();
  return loaded.rows;
}

/** Number of older runs that are not loaded. */
export function unread() {
  return loaded.unread();
}

/** Whether all runs with a number above `number` are loaded. */
export function reaches(number) {
  return loaded.reaches(number);
}

/** Loads one page of older runs. */
export async function more() {
  await loading?.catch(() => {});
  if (loaded.before === null || loaded.older === 0) return;
  await one(async () => loaded.take(await get(path('runs', loaded.before))));
}

/** Reloads all loaded pages. Returns the rows that no event has changed since the request. */
function reload() {
  return one(async () => {
    const pages = [await get(path('runs'))];
    const least = () => pages.at(-1);
    while (loaded.before !== null && least().older > 0 && least().before > loaded.before) pages.push(await get(path('runs', least().before)));
    return loaded.replace(pages);
  });
}

/** Runs one request at a time. Calls during a request share its result. */
function one(read) {
  loading ??= (async () => {
    loaded.ask();
    return read();
  })().finally(() => { loading = null; });
  return loading;
}

const jobs = new Map();

/** A run's flattened job; undefined until it is loaded. A job never changes. */
export function params(run) {
  return jobs.get(run);
}

/** Stores a run's flattened job. */
export function keepParams(run, flat) {
  jobs.set(run, flat);
}
