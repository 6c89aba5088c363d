/** Charts in groups that can be opened and closed. Only visible charts load points, and new points as runs continue. */

import { Cursor } from './chart.js';
import { h, fill, throttle } from './dom.js';
import { HeatMap } from './heatmap.js';
import * as live from './live.js';
import { Panel } from './panel.js';
import { amend } from './route.js';
import { groups } from './series.js';

/** Groups with at most this many charts are initially open. */
const OPEN_UP_TO = 8;
/** Minimum time between two updates with new points. */
const GAP_MS = 250;
/** Groups with a heat map of all their series, which shows the layers that deviate. */
const LAYERS = ['grad_norm', 'weight_norm', 'update_ratio'];

/** Notifies panels when they become visible, when the view changes, and when there are new points. */
export class Watch {
  constructor(view) {
    this.view = view;
    this.cursor = new Cursor();
    this.panels = new Set();
    this.dirty = new Set();
    this.generations = new Map();
    this.observer = new IntersectionObserver((entries) => {
      for (const { target, isIntersecting } of entries) target.panel.show(isIntersecting);
    }, { rootMargin: '200px' });
    this.changed = (other) => this.panels.forEach((panel) => panel.viewChanged(other));
    view.listeners.add(this.changed);
    const tell = throttle(GAP_MS, () => {
      const runs = [...this.dirty];
      this.dirty.clear();
      for (const run of runs) this.panels.forEach((panel) => panel.more(run));
    });
    const anew = () => this.changed(true);
    this.stops = [
      live.on('points', ({ run }) => {
        this.dirty.add(run);
        tell();
      }),
      // After a rollback, some points belong to an abandoned branch.
      live.on('run', (row) => {
        const before = this.generations.get(row.run);
        this.generations.set(row.run, row.generation);
        if (before !== undefined && before !== row.generation) anew();
      }),
      live.on('resync', anew),
    ];
  }

  /** Creates and watches a panel. */
  add(options) {
    return this.watch(new Panel({ view: this.view, cursor: this.cursor, ...options }));
  }

  /** Watches an object with `element`, `show`, `viewChanged`, `more` and `end`. */
  watch(panel) {
    panel.element.panel = panel;
    this.panels.add(panel);
    this.observer.observe(panel.element);
    return panel;
  }

  /** Ends one panel; without an argument all panels and the watch itself. */
  end(panel) {
    if (panel) {
      this.observer.unobserve(panel.element);
      this.panels.delete(panel);
      panel.end();
      return;
    }
    this.observer.disconnect();
    this.view.listeners.delete(this.changed);
    this.stops.forEach((stop) => stop());
    this.panels.forEach((each) => each.end());
  }
}

/** All series of `runs` in groups. `series`: as `/series` returns them, for all runs together; `params`: of the address. */
export class Grid {
  constructor({ runs, series, watch, params = new Map(), marks = [] }) {
    Object.assign(this, { runs, watch, marks });
    this.focus = params.get('chart') ?? null;
    this.asked = params.has('open') ? new Set(params.get('open').split(',')) : null;
    this.filter = params.get('find') ?? '';
    this.body = h('div', { class: 'grid-groups' });
    this.search = h('input', {
      type: 'search', placeholder: 'find series', 'aria-label': 'find series', value: this.filter, 'data-filter': '',
      oninput: () => {
        this.filter = this.search.value;
        amend({ find: this.filter });
        this.render();
      },
    });
    this.element = h('div', null, this.search, this.body);
    this.setSeries(series);
  }

  /** Sets the list of series, and rebuilds the groups if it has changed. */
  setSeries(series) {
    const names = series.map(({ name }) => name).sort().join('\n');
    if (names === this.names) return;
    this.names = names;
    this.groups = groups(series);
    this.render();
  }

  render() {
    for (const panel of this.own ?? []) this.watch.end(panel);
    this.own = [];
    const wanted = this.filter.toLowerCase();
    fill(this.body, this.groups.map(([group, all]) => {
      const names = all.filter((name) => name.toLowerCase().includes(wanted));
      return names.length > 0 && this.section(group, names, all);
    }));
    if (!this.body.firstChild) fill(this.body, h('p', { class: 'empty' }, 'no series'));
    if (this.focus) this.scrollTo(this.focus);
  }

  section(group, names, all) {
    const body = h('div', { class: 'charts' });
    const few = names.length <= OPEN_UP_TO && !['phase', 'process', 'device'].includes(group);
    const wanted = this.asked ? this.asked.has(group) : few;
    const open = wanted || this.filter !== '' || names.includes(this.focus);
    const section = h('details', { class: 'group', open, 'data-group': group },
      h('summary', null, h('h3', null, group), h('span', { class: 'dim' }, `${names.length}`)), body);
    const make = () => {
      if (body.firstChild) return;
      const layers = LAYERS.includes(group) && all.length > 1 && this.runs.length === 1;
      const map = layers && this.keep(new HeatMap({
        title: `${group} of all layers`, run: this.runs[0], view: this.watch.view, name: `${group}/*`, logarithmic: true,
        pick: (name) => this.open(name),
      }));
      fill(body, map && map.element, names.map((name) => this.panel(name).element));
    };
    if (open) make();
    // Browsers also send `toggle` for groups that are initially open, which is not a choice of the user.
    let before = open;
    section.addEventListener('toggle', () => {
      if (section.open === before) return;
      before = section.open;
      if (section.open) make();
      this.remember();
    });
    return section;
  }

  panel(name) {
    const panel = this.watch.add({ name, runs: this.runs, marks: this.marks, open: () => this.open(name), tall: name === this.focus });
    this.own.push(panel);
    return panel;
  }

  keep(panel) {
    this.watch.watch(panel);
    this.own.push(panel);
    return panel;
  }

  /** Enlarges one chart, or restores its size. */
  open(name) {
    this.focus = this.focus === name ? null : name;
    amend({ chart: this.focus });
    for (const panel of this.own) panel.element.classList.toggle('tall', panel.name === this.focus);
    if (this.focus) this.scrollTo(this.focus);
  }

  scrollTo(name) {
    requestAnimationFrame(() => {
      const chart = this.own.find((panel) => panel.name === name);
      chart?.element.scrollIntoView({ block: 'center' });
    });
  }

  /** Stores the open groups in the address, unless a filter is set, which opens all groups. */
  remember() {
    const open = [...this.body.children].filter((section) => section.open).map((section) => section.dataset.group);
    if (this.filter === '') {
      this.asked = new Set(open);
      amend({ open: open.join(',') || 'none' });
    }
  }
}
