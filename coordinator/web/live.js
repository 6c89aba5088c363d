/**
 * What a page hears of the coordinator's events, and the rows of runs that they keep up to date: the newest, and older ones once somebody
 * asks for them.
 *
 * After a break, whoever listens to `resync` reads anew what it shows: events of the meantime are lost.
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

/** Begins to hear: through the stream that all tabs share, or one of this page's own where a browser cannot share. */
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

/** Makes up for what was told while nobody heard: before the first event that are rows at most, after a break it may be anything. */
async function missed(broken) {
  // An answer that is under way may be from before.
  await loading?.catch(() => {});
  const old = loaded.before === null ? null : new Map(loaded.rows);
  const fresh = await reload().catch(() => []);
  if (broken) tell('resync');
  else if (old) fresh.filter((row) => JSON.stringify(row) !== JSON.stringify(old.get(row.run))).forEach((row) => tell('run', row));
}

/** Runs by id: the newest, all that go on, and what was read with `more`; read once, then kept up to date. */
export async function runs() {
  if (loaded.before === null) await reload();
  return loaded.rows;
}

/** How many older runs are not among them. */
export function unread() {
  return loaded.unread();
}

/** Whether all runs that were submitted after number `number` are among them. */
export function reaches(number) {
  return loaded.reaches(number);
}

/** Reads a page of older runs. */
export async function more() {
  await loading?.catch(() => {});
  if (loaded.before === null || loaded.older === 0) return;
  await one(async () => loaded.take(await get(path('runs', loaded.before))));
}

/** Reads anew what is here; the rows that are as old as the answers. */
function reload() {
  return one(async () => {
    const pages = [await get(path('runs'))];
    const least = () => pages.at(-1);
    while (loaded.before !== null && least().older > 0 && least().before > loaded.before) pages.push(await get(path('runs', least().before)));
    return loaded.replace(pages);
  });
}

/** One question at a time; who comes meanwhile gets the same answer. */
function one(read) {
  loading ??= (async () => {
    loaded.ask();
    return read();
  })().finally(() => { loading = null; });
  return loading;
}

const jobs = new Map();

/** A run's job, flattened, once it has been read; a job never changes. */
export function params(run) {
  return jobs.get(run);
}

/** Keeps a run's job. */
export function keepParams(run, flat) {
  jobs.set(run, flat);
}
