/** Alarms of a run: each with its place, its evidence as a chart, and suggestions. */

import { get } from './api.js';
import { h, ticked } from './dom.js';
import { Evidence, isDistribution } from './evidence.js';
import { clock, grouped } from './format.js';
import { run as runAddress } from './route.js';
import { View } from './view.js';
import { Watch } from './grid.js';
import { partName } from './panel.js';

/** Steps that a plot shows before and after the start of its alarm: at least `AROUND`, and at least `SHARE` of the steps since then. */
const AROUND = 60;
const SHARE = 0.25;
/** Kinds of alarms that are only visible over the whole time since their start. */
const SLOW = ['memory_growth', 'fragmentation', 'plateau', 'overfitting'];

/** The alarms of a run: active ones before ended ones, errors before warnings, then by step, because an earlier alarm may be the cause. */
export async function alarmsOf(run, signal) {
  const list = await get(`runs/${run}/alarms`, signal);
  return list.sort((a, b) => (a.until_step !== null) - (b.until_step !== null)
    || (b.severity === 'error') - (a.severity === 'error') || a.since_step - b.since_step);
}

/** Vertical lines for charts: the starts of alarms, and the steps that the run was rolled back to. */
export function marksOf(alarms, branches = []) {
  return [
    ...branches.map(({ after_step }) => ({ step: after_step, colour: 'dim' })),
    ...alarms.map((alarm) => ({ step: alarm.since_step, colour: alarm.severity === 'error' ? 'bad' : 'warn' })),
  ];
}

/** Cards for all alarms of `source` (a run as in panels): `{element, end}`. */
export function alarmCards(source, row, alarms) {
  const watches = [];
  const cards = alarms.map((alarm) => card(source, row, alarm, watches));
  return {
    element: h('section', { class: 'alarms', 'aria-label': 'alarms' }, cards),
    end: () => watches.forEach((watch) => watch.end()),
  };
}

function card(source, row, alarm, watches) {
  const { name, part } = alarm.series;
  const range = around(alarm, row.step);
  const steep = alarm.kind === 'divergence';
  // A separate view: zooming here does not affect the page's charts.
  const view = new View();
  const spread = isDistribution(name);
  // There are few histograms, so all are shown.
  Object.assign(view, { ...(spread ? {} : range), logy: steep });
  view.zoom = () => {};
  const watch = new Watch(view);
  watches.push(watch);
  const whole = { chart: name, ...(SLOW.includes(alarm.kind) ? {} : range), logy: steep ? '1' : null };
  const title = part === null ? name : `${name} of ${partName(name, part)}`;
  const marks = marksOf([alarm]);
  const address = spread ? runAddress(source.id, 'histograms', { find: name }) : runAddress(source.id, 'charts', whole);
  const panel = spread
    ? watch.watch(new Evidence({ run: source, name, kind: alarm.kind, view, cursor: watch.cursor, marks }))
    : watch.add({ name, part, title, runs: [source], marks });
  const over = alarm.until_step !== null;
  return h('article', { class: `alarm ${alarm.severity}${over ? ' over' : ''}` },
    h('div', { class: 'said' },
      h('h3', null, h('span', { class: 'kind' }, over ? 'ended' : alarm.severity), ticked(alarm.title)),
      h('p', { class: 'dim' }, `${alarm.kind.replace(/_/g, ' ')} · since step ${grouped(alarm.since_step)}, ${clock(alarm.since_ms)}`,
        over && ` · until step ${grouped(alarm.until_step)}`),
      alarm.place && h('p', null, 'where: ', h('strong', null, ticked(alarm.place))),
      h('p', null, ticked(alarm.what)),
      alarm.try.length > 0 && [h('p', { class: 'dim' }, 'what to try'), h('ol', null, alarm.try.map((advice) => h('li', null, ticked(advice))))],
      h('p', null, h('a', { href: address }, `open the ${spread ? 'histograms' : 'chart'} of ${name}`))),
    panel.element);
}

/** The range of steps around the start of an alarm. */
function around({ kind, since_step, until_step }, now) {
  const after = (until_step ?? now) - since_step;
  const reach = Math.max(AROUND, Math.ceil(after * SHARE));
  const from = Math.max(0, since_step - reach);
  if (SLOW.includes(kind)) return { from, to: Math.max(until_step ?? now, since_step + reach) };
  return { from, to: Math.max(since_step + reach, Math.min(now, since_step + 2 * reach)) };
}
