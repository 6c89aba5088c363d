/**
 * The stream of events, one for all tabs of a browser: it opens no more than six connections to a coordinator, and a stream
 * keeps one for as long as it lasts.
 *
 * This file is a shared worker, which has the stream and passes on to each tab what it hears. A browser without shared workers
 * reads it as a module, and opens the stream in the page. What events mean is not known here.
 */

const EVENTS = ['run', 'points', 'nodes', 'note'];
/** Time until a stream is opened again that the browser has given up. */
const AGAIN_MS = 3000;

/** Opens the stream: `tell(event, data)` is called with each event, and with `state`: whether the coordinator is heard. */
export function open(tell) {
  const source = new EventSource('/api/events');
  source.addEventListener('open', () => tell('state', true));
  source.addEventListener('error', () => {
    tell('state', false);
    // A browser gives up for good when the answer was no stream, as that of a proxy: then we ask again.
    if (source.readyState === EventSource.CLOSED) setTimeout(() => open(tell), AGAIN_MS);
  });
  for (const event of EVENTS) source.addEventListener(event, ({ data }) => tell(event, JSON.parse(data)));
}

if ('SharedWorkerGlobalScope' in globalThis) serve();

/** Tells tabs, as `[event, data]`. A tab says `true` when it wants to hear, and `false` when it is gone. */
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
