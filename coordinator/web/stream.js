/**
 * The stream of events, shared by all tabs of a browser: a browser opens at most six connections to a coordinator, and a stream
 * occupies one of them permanently.
 *
 * This file is a shared worker, which owns the stream and forwards events to all tabs. A browser without shared workers imports it as a
 * module, and opens the stream in the page. The meaning of events is not known here.
 */

const EVENTS = ['run', 'points', 'nodes', 'note'];
/** Time until a stream is reopened that the browser has closed. */
const AGAIN_MS = 3000;

/** Opens the stream. Calls `tell(event, data)` for each event, and `tell('state', connected)` when the connection changes. */
export function open(tell) {
  const source = new EventSource('/api/events');
  source.addEventListener('open', () => tell('state', true));
  source.addEventListener('error', () => {
    tell('state', false);
    // A browser does not reconnect after a response that is not a stream, for example of a proxy.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => open(tell), AGAIN_MS);
  });
  for (const event of EVENTS) source.addEventListener(event, ({ data }) => tell(event, JSON.parse(data)));
}

if ('SharedWorkerGlobalScope' in globalThis) serve();

/** Forwards events to tabs as `[event, data]`. A tab posts `true` to subscribe and `false` when it is closed. */
function serve() {
  const tabs = new Set();
  let heard = null;
  globalThis.addEventListener('connect', ({ ports: [tab] }) => {
    tab.onmessage = ({ data: listens }) => {
      if (listens) tabs.add(tab);
      else tabs.delete(tab);
      if (listens && heard !== null) tab.postMessage(['state', heard]);
    };
  });
  open((event, data) => {
    if (event === 'state') heard = data;
    tabs.forEach((tab) => tab.postMessage([event, data]));
  });
}
