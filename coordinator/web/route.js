/** The address of a view: `#/page/id/tab?key=value`. `parse`, `format` and `run` are pure. */

/** Parts of a hash: `{page, id, tab, params}`, params a Map. */
export function parse(hash) {
  const [path, query = ''] = hash.replace(/^#\/?/, '').split(/\?(.*)/s);
  const [page = '', id = '', tab = ''] = path.split('/').map(decode);
  const params = new Map([...new URLSearchParams(query)]);
  return { page: page || 'runs', id, tab, params };
}

/** The hash of an address. Parameters that are empty, null, undefined or false are omitted. */
export function format({ page, id = '', tab = '', params = {} }) {
  const path = [page, id, tab].filter((part) => part !== '').map(encode).join('/');
  const entries = params instanceof Map ? [...params] : Object.entries(params);
  const query = entries
    .filter(([, value]) => value !== undefined && value !== null && value !== '' && value !== false)
    .map(([key, value]) => `${encode(key)}=${encode(String(value))}`);
  return `#/${path}${query.length > 0 ? `?${query.join('&')}` : ''}`;
}

/** The hash of a run's tab. */
export function run(id, tab = '', params = {}) {
  return format({ page: 'run', id, tab, params });
}

/** Navigates to `hash`. */
export function go(hash) {
  write();
  location.hash = hash;
}

/** The current address, parsed. */
export function current() {
  write();
  return parse(location.hash);
}

let pending = null;

/**
 * Changes parameters of the address without an entry in the history and without an event. Changes are collected for 100 ms, because
 * browsers reject addresses that change too often, as while a slider moves.
 */
export function amend(changes) {
  if (pending && pending.path !== pathOf(location.hash)) pending = null;
  if (!pending) {
    pending = { path: pathOf(location.hash), changes: {} };
    setTimeout(write, 100);
  }
  Object.assign(pending.changes, changes);
}

function write() {
  if (!pending) return;
  const { path, changes } = pending;
  pending = null;
  // The user has followed a link meanwhile, so the changes belong to another view.
  if (path !== pathOf(location.hash)) return;
  const now = parse(location.hash);
  for (const [key, value] of Object.entries(changes)) {
    if (value === undefined || value === null || value === '' || value === false) now.params.delete(key);
    else now.params.set(key, String(value));
  }
  const hash = format(now);
  if (hash !== location.hash) history.replaceState(null, '', hash);
}

function pathOf(hash) {
  return hash.split('?')[0];
}

function encode(part) {
  // `/` `,` `:` and `>` are not escaped: they are more readable so, and have no meaning in a query.
  return encodeURIComponent(part).replace(/%2C/g, ',').replace(/%3A/g, ':').replace(/%3E/g, '>').replace(/%2F/g, '/');
}

function decode(part) {
  try {
    return decodeURIComponent(part);
  } catch {
    return part;
  }
}
