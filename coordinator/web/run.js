/** The page of one run: head, tabs and their shared state. */

import { get } from './api.js';
import { alarmsOf, marksOf } from './alarms.js';
import { checkpoints } from './checkpoints.js';
import { fill, h, throttle, ticked } from './dom.js';
import { grouped } from './format.js';
import { Grid, Watch } from './grid.js';
import { histograms } from './histogram.js';
import * as live from './live.js';
import { logs } from './logs.js';
import { media } from './media.js';
import { model } from './model.js';
import { overview, runLink } from './overview.js';
import { provenance } from './provenance.js';
import { current, go, run as runAddress } from './route.js';
import { bar, status } from './runs.js';
import { stepsPerEpoch } from './series.js';
import { system } from './system.js';
import { View, controls } from './view.js';

const TABS = ['overview', 'charts', 'histograms', 'system', 'model', 'samples', 'checkpoints', 'provenance', 'logs'];
/** Minimum time between two reloads of alarms and the list of series. */
const GAP_MS = 3000;

/** Creates the page. */
export async function runPage(route) {
  const id = encodeURIComponent(route.id);
  const [run, rows, { series, branches }, alarms] = await Promise.all([get(`runs/${id}`), live.runs(), get(`runs/${id}/series`), alarmsOf(id)]);
  const page = new RunPage({ run, rows, series, branches, alarms });
  await page.show(route);
  return { element: page.element, end: () => page.end(), keys: page, title: `${run.name} ${run.run}`, stay: (next) => page.stay(next) };
}

class RunPage {
  constructor(found) {
    Object.assign(this, found);
    this.head = h('header', { class: 'run-head' });
    this.tabs = h('nav', { class: 'tabs', 'aria-label': 'tabs of the run' });
    this.body = h('div', { class: 'tab' });
    this.element = h('div', { class: 'page' }, this.head, this.tabs, this.body);
    const soon = throttle(GAP_MS, () => this.readAnew());
    this.stops = [
      live.on('run', (row) => {
        if (row.run !== this.run.run) return;
        const { generation, status: was, checkpoint_failed: failed } = this.run;
        // The row has no `checkpoint_failed` once a checkpoint is saved.
        this.run.checkpoint_failed = null;
        Object.assign(this.run, row);
        this.drawHead();
        const failure = (of) => `${of?.step} ${of?.attempts}`;
        if (generation !== row.generation || was !== row.status || failure(failed) !== failure(row.checkpoint_failed)) this.readAnew();
      }),
      live.on('resync', () => this.readAnew()),
      live.on('note', ({ run }) => run === this.run.run && this.readAnew()),
      live.on('points', ({ run }) => run === this.run.run && soon()),
    ];
  }

  /** The run as charts need it. */
  source() {
    const first_ms = Math.min(...this.series.map((own) => own.first_ms ?? Infinity));
    return {
      id: this.run.run, label: this.run.name, branches: this.branches.map(({ branch }) => branch),
      context: { began_ms: this.run.started_at_ms ?? (Number.isFinite(first_ms) ? first_ms : 0), steps_per_epoch: stepsPerEpoch(this.run.checkpoints) ?? 1 },
    };
  }

  async show(route) {
    const { params } = route;
    const again = this.tab === (route.tab || 'overview');
    this.tab = TABS.includes(route.tab) ? route.tab : 'overview';
    this.shown?.end();
    this.abort?.abort();
    this.abort = new AbortController();
    const { signal } = this.abort;
    this.drawHead();
    // A reload of the same tab keeps its contents until the new ones are ready.
    if (!again) fill(this.body, h('p', { class: 'empty' }, 'loading…'));
    this.view = new View(params);
    const state = { run: this.run, rows: this.rows, series: this.series, alarms: this.alarms, source: this.source(), view: this.view };
    const makers = {
      overview: () => overview(state),
      charts: () => this.charts(state, params),
      histograms: () => histograms(state, params, signal),
      system: () => system(state),
      model: () => model(state, signal),
      samples: () => media(state, signal),
      checkpoints: () => checkpoints(state, signal),
      provenance: () => provenance(state),
      logs: () => logs(state, params, signal),
    };
    let shown;
    try {
      shown = await makers[this.tab]();
    } catch (error) {
      shown = { element: h('p', { class: 'empty' }, error.message), end: () => {} };
    }
    // The user has opened another tab meanwhile.
    if (signal.aborted) {
      shown.end();
      return;
    }
    this.shown = shown;
    fill(this.body, shown.element);
  }

  /** Shows the tab of `route` and returns true if the address is of this run. */
  stay(route) {
    if (!this.run.run.startsWith(route.id)) return false;
    this.show(route);
    return true;
  }

  charts({ series, alarms, source, view }, params) {
    const watch = new Watch(view);
    this.grid = new Grid({ runs: [source], series, watch, params, marks: marksOf(alarms, this.branches) });
    const bars = controls(view, { epochs: stepsPerEpoch(this.run.checkpoints) !== null, branches: this.branches.length > 0 });
    return {
      element: h('div', null, bars, this.grid.element),
      end: () => {
        watch.end();
        this.grid = null;
      },
    };
  }

  /** Reloads details, series and alarms, and updates the changed parts of the page. */
  async readAnew() {
    this.again = this.reading;
    if (this.reading || this.ended) return;
    this.reading = true;
    try {
      const id = this.run.run;
      const [run, { series, branches }, alarms] = await Promise.all([get(`runs/${id}`), get(`runs/${id}/series`), alarmsOf(id)]);
      const before = this.basis();
      Object.assign(this.run, run);
      Object.assign(this, { series, branches, alarms });
      this.drawHead();
      this.grid?.setSeries(series);
      this.shown?.follow?.();
      const writing = this.body.contains(document.activeElement) && document.activeElement.matches('input, textarea, select');
      if (before !== this.basis() && !writing) await this.show(current());
    } catch (error) {
      console.warn(error.message);
    }
    this.reading = false;
    // The response may be older than the latest event.
    if (this.again) this.readAnew();
  }

  /** The data that the current tab depends on and does not follow itself. If it changes, the tab is rebuilt. */
  basis() {
    const { run, alarms, branches, series, tab } = this;
    const checkpoints = [run.checkpoints.length, run.failed_checkpoints.length, run.corruptions.length];
    const used = {
      overview: [alarms.map(({ kind, since_step, until_step, what }) => [kind, since_step, until_step, what]), series.length > 0, run.status],
      charts: [branches.length], histograms: [branches.length > 0], system: [run.generation, series.length > 0], checkpoints: [checkpoints, run.status], provenance: [run.generation],
      model: series.filter(({ name }) => name.startsWith('importance/')).map(({ last_step }) => last_step),
    };
    return JSON.stringify(used[tab] ?? []);
  }

  drawHead() {
    const { run } = this;
    const standing = this.alarms.filter(({ until_step }) => until_step === null);
    const badge = standing.length > 0 && h('a', { class: `badge ${standing.some(({ severity }) => severity === 'error') ? 'error' : 'warning'}`, href: runAddress(run.run) },
      `${standing.length} ${standing.length === 1 ? 'alarm' : 'alarms'}: `, ticked(standing[0].title), standing[0].place && [', ', ticked(standing[0].place)]);
    const key = JSON.stringify([run.status, run.reason, run.step, standing.map(({ title }) => title), this.tab]);
    if (key === this.drawn) return;
    this.drawn = key;
    const compare = h('a', { class: 'button', href: `#/compare?runs=${[run.run, run.replay_of].filter(Boolean).join(',')}` }, 'compare');
    const focus = document.activeElement?.closest?.('.run-head, .tabs') && document.activeElement.getAttribute('href');
    fill(this.head, h('h2', null, run.name), h('code', null, run.run), status(run), bar(run),
      h('span', { class: 'dim' }, `${grouped(run.step)} of ${grouped(run.steps)}`), run.replay_of && h('span', null, 'replay of ', runLink(run.replay_of, this.rows)), compare, badge);
    fill(this.tabs, TABS.map((tab) => h('a', { href: runAddress(run.run, tab === 'overview' ? '' : tab), 'aria-current': tab === this.tab ? 'page' : null }, tab)));
    if (focus) this.element.querySelector(`[href="${CSS.escape(focus)}"]`)?.focus();
  }

  /** Handles the keys 1 to 9, which select tabs. */
  key(name) {
    const tab = TABS[Number(name) - 1];
    if (!tab) return false;
    go(runAddress(this.run.run, tab === 'overview' ? '' : tab));
    return true;
  }

  end() {
    this.ended = true;
    this.stops.forEach((stop) => stop());
    this.abort?.abort();
    this.shown?.end();
  }
}
