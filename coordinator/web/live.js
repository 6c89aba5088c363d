/**
 * The one stream of events of a page, and the rows of all runs that it keeps up to date.
 *
 * After a break, whoever listens to `resync` reads anew what it shows: events of the meantime are lost.
 */

import { get } from './api.js';

const listeners = new Map();
let rows = null;
let loading = null;

/** Calls `work` with the data of each `run`, `points`, `nodes`, `resync` or `state` event, until the returned function is called. */
export function on(event, work) {
  if (!listeners.has(event)) listeners.set(event, new Set());
  listeners.get(event).add(work);
  return () => listeners.get(event).delete(work);
}

function tell(event, data) {
  for (const work of listeners.get(event) ?? []) work(data);
}

/** Opens the stream. The browser opens it again after a break. */
export function connect() {
  const source = new EventSource('/api/events');
  let before = false;
  source.addEventListener('open', async () => {
    tell('state', true);
    if (before) {
      await reload().catch(() => {});
      tell('resync');
    }
    before = true;
  });
  source.addEventListener('error', () => {
    before = true;
    tell('state', false);
    // A browser gives up for good when the answer was no stream, as that of a proxy: then we ask again.
    if (source.readyState === EventSource.CLOSED) setTimeout(connect, 3000);
  });
  source.addEventListener('run', (event) => {
    const row = JSON.parse(event.data);
    rows?.set(row.run, { ...rows.get(row.run), ...row });
    tell('run', row);
  });
  source.addEventListener('points', (event) => tell('points', JSON.parse(event.data)));
  source.addEventListener('nodes', () => tell('nodes'));
}

/** All runs by id, oldest first; read once, then kept up to date. */
export async function runs() {
  if (!rows) await reload();
  return rows;
}

async function reload() {
  loading ??= get('runs').finally(() => { loading = null; });
  const list = await loading;
  rows = new Map(list.map((row) => [row.run, row]));
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
