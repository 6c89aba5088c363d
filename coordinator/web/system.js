/** Time and memory of a run: phases of each process, heat maps of processes and ranks, devices. */

import { points } from './api.js';
import { marksOf } from './alarms.js';
import { Chart } from './chart.js';
import { facts, h, table } from './dom.js';
import { Watch } from './grid.js';
import { HeatMap } from './heatmap.js';
import { colourOf, placeOf } from './phases.js';
import { groupOf, line, stacked } from './series.js';
import { controls, withoutBranches } from './view.js';
import { run as runAddress } from './route.js';

/** Maximum number of processes with separate charts. */
const STACKS = 16;

/** Creates the tab. */
export function system({ run, series, alarms, source, view }) {
  const watch = new Watch(view);
  const marks = marksOf(alarms);
  const phases = series.filter(({ name }) => groupOf(name) === 'phase');
  const processes = [...new Set(phases.map(({ part }) => part))].sort((a, b) => a - b);
  const names = (group) => [...new Set(series.filter(({ name, part }) => groupOf(name) === group && part !== null).map(({ name }) => name))].sort();
  const several = (name) => series.filter((own) => own.name === name).length > 1;
  const heat = (name) => watch.watch(new HeatMap({ title: name, run: source, view, name })).element;
  const maps = [...names('rank'), ...names('phase')].filter(several);
  const lines = [...names('process'), ...names('device')];
  const section = (title, ...content) => h('section', null, h('h3', null, title), content);
  return {
    element: h('div', null, controls(view),
      placement(run),
      withoutBranches(source),
      processes.length > 0 && section('step time by phase', h('div', { class: 'charts' },
        processes.slice(0, STACKS).map((process) => watch.watch(new Stack({ source, view, watch, process, marks })).element)),
        processes.length > STACKS && h('p', { class: 'dim' }, `the first ${STACKS} of ${processes.length} processes; the heat maps show all processes`)),
      maps.length > 0 && section('ranks and processes over time', h('div', { class: 'charts' }, maps.map(heat))),
      lines.length > 0 && section('processes and devices', h('div', { class: 'charts' },
        lines.map((name) => watch.add({ name, runs: [source], marks }).element))),
      phases.length + lines.length === 0 && h('p', { class: 'empty' }, 'no measurements yet')),
    end: () => watch.end(),
  };
}

function placement(run) {
  const rows = run.placement.map((own) => [
    h('a', { href: runAddress(run.run, 'logs', { process: own.process }) }, String(own.process)), own.node, own.device, own.phase, own.address ?? '–',
  ]);
  return h('section', null, h('h3', null, 'placement'),
    rows.length > 0 ? table(['process', 'node', 'device', 'phase', 'address'], rows, { class: 'plain' }) : h('p', { class: 'dim' }, 'no process is placed'),
    run.last_exit && h('div', null, h('p', null, `last failed process: process ${run.last_exit.process} of generation ${run.last_exit.generation} on ${run.last_exit.node}, exit code ${run.last_exit.code}`),
      run.last_exit.output && h('pre', { class: 'log short' }, run.last_exit.output)),
    h('details', null, h('summary', null, 'environment'), facts(Object.entries(run.environment))));
}

/** The phases of one process as a stacked area. Has the methods of `Panel`. */
class Stack {
  constructor({ source, view, watch, process, marks }) {
    Object.assign(this, { source, view, process });
    this.chart = new Chart({
      name: 'phase/all', title: `process ${process}`, view, cursor: watch.cursor, zoom: (range) => view.zoom(range), marks, stack: true,
    });
    this.element = this.chart.element;
    this.loaded = false;
  }

  show(visible) {
    this.visible = visible;
    this.chart.show(visible);
    if (visible && (!this.loaded || this.stale)) this.load();
  }

  viewChanged(other) {
    if (!other) this.chart.refresh();
    else if (this.visible) this.load();
    else this.stale = true;
  }

  more(run) {
    if (run !== this.source.id) return;
    if (this.visible && !this.reading) this.load();
    else this.stale = true;
  }

  end() {
    this.chart.end();
  }

  async load() {
    Object.assign(this, { loaded: true, stale: false, reading: true });
    try {
      const { from, to } = this.view;
      // A stack needs all lines at the same steps, so they are loaded together, with few points.
      const found = (await points(this.source.id, 'phase/*', { pixels: 300, from, to, part: this.process })).filter(({ steps }) => steps.length > 0);
      const phase = ({ name }) => name.slice(6);
      found.sort((a, b) => placeOf(phase(a)) - placeOf(phase(b)));
      const lines = found.length > 0 ? stacked(found.map(line)) : [];
      this.chart.setLines(lines.map((own, index) => ({
        ...own, key: found[index].name, label: phase(found[index]), context: this.source.context,
        colour: (palette) => colourOf(phase(found[index]), palette),
      })));
    } catch (error) {
      this.chart.fail(error);
    }
    this.reading = false;
  }
}
