/** Requests to the coordinator. Responses are JSON, except logs. */

/** A response with an error status. */
class ApiError extends Error {
  constructor(status, text) {
    super(text.trim() || `the coordinator returned HTTP status ${status}`);
    this.status = status;
  }
}

/** GET of `/api/<path>`. */
export async function get(path, signal) {
  return (await request(path, { signal })).json();
}

/** GET of `/api/<path>` as text. */
export async function text(path, signal) {
  return (await request(path, { signal })).text();
}

/** PUT of a JSON value. */
export async function put(path, value) {
  await request(path, { method: 'PUT', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(value) });
}

/** GET of `/api/<path>`; null if the status is 404. */
export async function maybe(path, signal) {
  try {
    return await get(path, signal);
  } catch (error) {
    if (error instanceof ApiError && error.status === 404) return null;
    throw error;
  }
}

async function request(path, options) {
  const answer = await fetch(`/api/${path}`, options);
  if (!answer.ok) throw new ApiError(answer.status, await answer.text());
  return answer;
}

/** Maximum number of series per request. More would make the URL too long. */
const TOGETHER = 24;

let waiting = new Map();

/**
 * Points of all parts of one series: a list as `/points` returns it. Calls in the same turn with the same run and range share a
 * request.
 */
export function points(run, name, range) {
  const query = Object.entries(range).filter(([, value]) => value !== null && value !== undefined);
  const key = `${run}?${query.map(([field, value]) => `${field}=${value}`).join('&')}`;
  if (waiting.size === 0) setTimeout(send, 0);
  if (!waiting.has(key)) waiting.set(key, new Map());
  const batch = waiting.get(key);
  return new Promise((resolve, reject) => {
    if (!batch.has(name)) batch.set(name, []);
    batch.get(name).push({ resolve, reject });
  });
}

function send() {
  const batches = waiting;
  waiting = new Map();
  for (const [key, batch] of batches) {
    const [run, query] = key.split('?');
    const names = [...batch.keys()];
    for (let index = 0; index < names.length; index += TOGETHER) {
      answer(run, query, names.slice(index, index + TOGETHER), batch);
    }
  }
}

async function answer(run, query, names, batch) {
  const asked = names.map((name) => `name=${encodeURIComponent(name)}`).join('&');
  try {
    const { series } = await get(`runs/${run}/points?${asked}&${query}`);
    const own = new Map(names.map((name) => [name, []]));
    for (const each of series) {
      for (const name of names) {
        const family = name.endsWith('*') && each.name.startsWith(name.slice(0, -1));
        if (each.name === name || family) own.get(name).push(each);
      }
    }
    for (const name of names) batch.get(name).forEach(({ resolve }) => resolve(own.get(name)));
  } catch (error) {
    for (const name of names) batch.get(name).forEach(({ reject }) => reject(error));
  }
}
