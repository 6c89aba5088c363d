/** What is wrong with a run: each alarm with its evidence, where it was, and what to try. */

import { get } from './api.js';
import { h, ticked } from './dom.js';
import { Evidence, isDistribution } from './evidence.js';
import { clock, grouped } from './format.js';
import { run as runAddress } from './route.js';
import { View } from './view.js';
import { Watch } from './grid.js';
import { partName } from './panel.js';

/** Steps before and after an alarm's beginning that its plot shows, at least; and as a share of the steps since. */
const AROUND = 60;
const SHARE = 0.25;
/** What shows only over all of the time since. */
const SLOW = ['memory_growth', 'fragmentation', 'plateau', 'overfitting'];

/** The alarms of a run: those that stand before those that are over, and what came first, which may be the cause, before the rest. */
export async function alarmsOf(run, signal) {
  const list = await get(`runs/${run}/alarms`, signal);
  return list.sort((a, b) => (a.until_step !== null) - (b.until_step !== null)
    || (b.severity === 'error') - (a.severity === 'error') || a.since_step - b.since_step);
}

/** Vertical lines for charts: where alarms began, and whereto the run was rolled back. */
export function marksOf(alarms, branches = []) {
  return [
    ...branches.map(({ after_step }) => ({ step: after_step, colour: 'dim' })),
    ...alarms.map((alarm) => ({ step: alarm.since_step, colour: alarm.severity === 'error' ? 'bad' : 'warn' })),
  ];
}

/** All alarms of `source` (as a panel's run). `{element, end}`. */
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
  // A view of its own: what is done to this plot is not done to the page's charts.
  const view = new View();
  const spread = isDistribution(name);
  // Histograms are few: all of them are shown.
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
      h('h3', null, h('span', { class: 'kind' }, over ? 'over' : alarm.severity), ticked(alarm.title)),
      h('p', { class: 'dim' }, `${alarm.kind.replace(/_/g, ' ')} · since step ${grouped(alarm.since_step)}, ${clock(alarm.since_ms)}`,
        over && ` · until step ${grouped(alarm.until_step)}`),
      alarm.place && h('p', null, 'where: ', h('strong', null, ticked(alarm.place))),
      h('p', null, ticked(alarm.what)),
      alarm.try.length > 0 && [h('p', { class: 'dim' }, 'what to try'), h('ol', null, alarm.try.map((advice) => h('li', null, ticked(advice))))],
      h('p', null, h('a', { href: address }, `open the ${spread ? 'histograms' : 'chart'} of ${name}`))),
    panel.element);
}

/** The steps around the beginning of an alarm. */
function around({ kind, since_step, until_step }, now) {
  const after = (until_step ?? now) - since_step;
  const reach = Math.max(AROUND, Math.ceil(after * SHARE));
  const from = Math.max(0, since_step - reach);
  if (SLOW.includes(kind)) return { from, to: Math.max(until_step ?? now, since_step + reach) };
  return { from, to: Math.max(since_step + reach, Math.min(now, since_step + 2 * reach)) };
}
