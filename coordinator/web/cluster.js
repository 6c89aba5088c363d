/** The page of the cluster: nodes, devices and their runs, queued runs with reasons, the coordinator. */

import { get } from './api.js';
import { facts, fill, h, table, throttle } from './dom.js';
import { ago, bytes, clock, grouped, seconds } from './format.js';
import * as live from './live.js';
import { runLink } from './overview.js';
import { status } from './runs.js';

/** Creates the page. */
export async function clusterPage() {
  const body = h('div', { class: 'page' });
  const draw = async () => {
    const [nodes, coordinator, rows] = await Promise.all([get('nodes'), get('coordinator'), live.runs()]);
    fill(body, summary(nodes), queue([...rows.values()], rows), devices(nodes, rows), about(coordinator));
  };
  await draw();
  const soon = throttle(1000, () => draw().catch((error) => console.warn(error.message)));
  const stops = ['nodes', 'resync'].map((event) => live.on(event, soon));
  let before = '';
  // Only changes of a run's status or placement are visible here, not its steps.
  stops.push(live.on('run', (row) => {
    const key = `${row.run} ${row.status} ${row.reason} ${row.generation}`;
    if (key !== before) soon();
    before = key;
  }));
  return { element: body, end: () => stops.forEach((stop) => stop()), title: 'cluster' };
}

function summary(nodes) {
  const devices = nodes.filter(({ alive }) => alive).flatMap((node) => node.devices);
  const free = devices.filter(({ run, fenced }) => !run && !fenced).length;
  const away = nodes.filter(({ alive }) => !alive).length;
  return h('p', null, `${nodes.length} nodes${away > 0 ? `, ${away} of them not connected` : ''}; ${devices.length} devices, ${free} free, ${devices.filter(({ fenced }) => fenced).length} fenced`);
}

function queue(list, rows) {
  const waiting = list.filter((row) => row.status === 'queued');
  return h('section', null, h('h3', null, 'queue'), waiting.length === 0
    ? h('p', { class: 'dim' }, 'no run is queued')
    : table(['run', 'since', 'ranks', 'reason'], waiting.map((row) => [
      runLink(row.run, rows), clock(row.created_at_ms), { text: grouped(row.ranks), class: 'number' }, row.reason ?? '–',
    ]), { class: 'plain' }));
}

function devices(nodes, rows) {
  const now = Date.now();
  const colours = { alive: 'running', detached: 'starting', leaving: 'starting', gone: 'cancelled', lost: 'failed' };
  const state = ({ alive, state: word, changed_at_ms }) => h('span', { class: `status ${colours[word]}` }, alive ? word : `${word} ${ago(changed_at_ms, now)}`);
  const fence = (fenced) => {
    if (!fenced) return '–';
    const why = fenced.wrong ? ['wrong state of ', runLink(fenced.wrong[0], rows), ` at step ${fenced.wrong[1]}`] : 'by hand';
    return h('strong', { class: 'bad' }, `since ${clock(fenced.at_ms)}: `, why);
  };
  const lines = nodes.flatMap((node) => node.devices.map((device, index) => [
    index === 0 ? [node.id, node.host !== node.id && h('span', { class: 'dim' }, ` ${node.host}`)] : '',
    index === 0 ? state(node) : '',
    { text: device.name, class: 'nowrap' },
    { text: occupant(node, device, rows), class: 'wide' }, { text: device.process === null ? '–' : String(device.process), class: 'number' },
    { text: fence(device.fenced), class: device.fenced ? 'wide' : null }, { text: device.model, class: 'nowrap' },
    { text: bytes(device.memory_bytes), class: 'number' },
  ]));
  const bare = nodes.filter((node) => node.devices.length === 0).map((node) => [node.id, state(node), '–', '', '', '', '', '']);
  return h('section', null, h('h3', null, 'nodes and devices'),
    table(['node', 'state', 'device', 'run', 'process', 'fenced', 'model', 'memory'], [...lines, ...bare], { class: 'plain' }));
}

/** The run on a device. */
function occupant(node, device, rows) {
  if (!device.run) return h('span', { class: 'dim' }, !node.alive ? '–' : device.fenced ? 'fenced' : 'free');
  return [runLink(device.run, rows), rows.has(device.run) && [' ', status(rows.get(device.run))]];
}

function about(coordinator) {
  const named = { lease_ms: (value) => seconds(value / 1000) };
  return h('section', null, h('h3', null, 'coordinator'),
    facts(Object.entries(coordinator).map(([key, value]) => [
      key.replace(/_ms$/, '').replace(/_/g, ' '), named[key] ? named[key](value) : value === null || typeof value !== 'object' ? String(value) : JSON.stringify(value),
    ])));
}
