/**
 * What a page hears of the coordinator's events, and the rows of all runs that they keep up to date.
 *
 * After a break, whoever listens to `resync` reads anew what it shows: events of the meantime are lost.
 */

import { get } from './api.js';

const listeners = new Map();
const rows = new Map();
/** Runs of which an event has come since the rows were last asked for: the answer may be older. */
const newer = new Set();
let known = false;
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
  if (event === 'run') {
    newer.add(data.run);
    rows.set(data.run, { ...rows.get(data.run), ...data });
  }
  tell(event, data);
  if (event !== 'state') return;
  if (data) missed(before);
  before = true;
}

/** Makes up for what was told while nobody heard: before the first event that are rows at most, after a break it may be anything. */
async function missed(broken) {
  // An answer that is under way may be from before.
  await loading?.catch(() => {});
  const old = known ? new Map(rows) : null;
  const fresh = await reload().catch(() => []);
  if (broken) tell('resync');
  else if (old) fresh.filter((row) => JSON.stringify(row) !== JSON.stringify(old.get(row.run))).forEach((row) => tell('run', row));
}

/** All runs by id, oldest first; read once, then kept up to date. */
export async function runs() {
  if (!known) await reload();
  return rows;
}

/** Reads all rows; those that are as old as the answer. */
function reload() {
  loading ??= read().finally(() => { loading = null; });
  return loading;
}

async function read() {
  newer.clear();
  const list = await get('runs');
  const there = new Set(list.map(({ run }) => run));
  for (const run of rows.keys()) {
    if (!there.has(run) && !newer.has(run)) rows.delete(run);
  }
  const fresh = list.filter(({ run }) => !newer.has(run));
  for (const row of fresh) rows.set(row.run, row);
  known = true;
  return fresh;
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
