/** A chart of one series of one or more runs: loads its points, and appends new ones while the runs continue. */

import { points } from './api.js';
import { Chart } from './chart.js';
import { grown, line } from './series.js';

/** A line is reloaded once it has this many times the requested number of points. */
const SURPLUS = 1.5;
/** Maximum number of exact points after bucketed ones. Buckets look smoother than exact points. */
const TAIL = 30;
/** With more runs than this, each gets half as many points: drawing takes longer, and details are invisible. */
const MANY = 12;
/** Index of the grey line colour. */
const GREY = 7;

/**
 * See the module. `runs`: `[{id, label, branches: [number], context: {began_ms, steps_per_epoch}}]`. With several runs, each run has a
 * colour; with one run, each part has one. `part`: show only this part. `stack`: sum the lines.
 */
export class Panel {
  constructor({ name, runs, view, cursor, part = null, title = name, ...options }) {
    Object.assign(this, { name, runs, view, part });
    this.lines = new Map();
    this.loaded = false;
    this.visible = false;
    this.pixels = 600;
    this.chart = new Chart({ name, title, view, cursor, zoom: (range) => view.zoom(range), ...options });
    this.element = this.chart.element;
    this.element.panel = this;
  }

  /** Called when the panel enters or leaves the window. Points are loaded once it is visible. */
  show(visible) {
    this.visible = visible;
    this.chart.show(visible);
    if (!visible) return;
    if (!this.loaded) this.load();
    else if (this.stale) this.grow();
  }

  /** Called when the view changes. `other`: whether the panel needs other points. */
  viewChanged(other) {
    if (!other) this.chart.refresh();
    else if (this.visible) this.load();
    else this.loaded = false;
  }

  /** Called when `run` may have new points. */
  more(run) {
    if (!this.runs.some((own) => own.id === run)) return;
    if (!this.visible) this.stale = true;
    else if (this.loaded) this.grow();
  }

  /** Loads all points in the range of the view. */
  async load() {
    this.loaded = true;
    this.stale = false;
    const width = this.chart.size.width || this.element.clientWidth || 500;
    this.pixels = Math.ceil(width / 100) * (this.runs.length > MANY ? 50 : 100);
    const turn = this.turn = (this.turn ?? 0) + 1;
    try {
      const asked = this.runs.flatMap((run) => this.branchesOf(run).map(async (branch) => {
        const found = await points(run.id, this.name, this.range({ branch }));
        return found.filter(isSome).map((each) => [this.keyOf(run, each.part, branch), line(each)]);
      }));
      const found = (await Promise.all(asked)).flat();
      // A later request with another range has started meanwhile.
      if (turn !== this.turn) return;
      this.lines = new Map(found);
      this.longest = Math.max(0, ...found.map(([, each]) => each.steps.length));
      this.update();
    } catch (error) {
      if (turn === this.turn) this.chart.fail(error);
    }
  }

  /** Loads and appends new points. */
  async grow() {
    if (this.growing) {
      this.stale = true;
      return;
    }
    this.growing = true;
    this.stale = false;
    const turn = this.turn;
    try {
      for (const run of this.runs) {
        const own = [...this.lines].filter(([key]) => key.startsWith(`${run.id} 0 `)).map(([, each]) => each);
        if (own.length === 0) {
          await this.load();
          break;
        }
        const last = Math.min(...own.map((each) => each.steps[each.steps.length - 1]));
        if (this.view.to !== null && last >= this.view.to) continue;
        const found = await points(run.id, this.name, this.range({ branch: 0, from: last + 1 }));
        if (turn !== this.turn) break;
        for (const each of found.filter(isSome)) {
          const key = this.keyOf(run, each.part, 0);
          this.lines.set(key, this.lines.has(key) ? grown(this.lines.get(key), line(each)) : line(each));
        }
      }
      const longest = Math.max(0, ...[...this.lines.values()].map((each) => each.steps.length));
      const bounded = [...this.lines.values()].some((each) => each.min);
      if (longest > (bounded ? this.longest + TAIL : SURPLUS * Math.max(this.pixels, 400))) await this.load();
      else this.update();
    } catch (error) {
      // Keeps the curve instead of showing the error.
      console.warn(error.message);
    }
    this.growing = false;
    if (this.stale && this.visible) this.grow();
  }

  range(more) {
    const { from, to } = this.view;
    return { pixels: this.pixels, from, to, part: this.part, ...more };
  }

  branchesOf(run) {
    return this.view.branches ? [0, ...run.branches] : [0];
  }

  keyOf(run, part, branch) {
    return `${run.id} ${branch} ${part ?? ''}`;
  }

  /** Passes the lines to the chart. */
  update() {
    const lines = [...this.lines].map(([key, own]) => {
      const [id, branch, part] = key.split(' ');
      const index = this.runs.findIndex((run) => run.id === id);
      return { key, index, branch: Number(branch), part: part === '' ? null : Number(part), own };
    });
    // Abandoned branches are drawn first, below the other lines.
    lines.sort((a, b) => b.branch - a.branch || a.index - b.index || a.part - b.part);
    const several = this.runs.length > 1;
    this.chart.setLines(lines.map(({ key, index, branch, part, own }) => {
      const run = this.runs[index];
      // Abandoned branches of a single line are grey; in its colour they would be hidden.
      const colour = several ? run.colour ?? index : part ?? (branch > 0 ? GREY : 0);
      return {
        key, ...own, context: run.context, faint: branch > 0,
        label: [several && run.label, part !== null && partName(this.name, part), branch > 0 && `abandoned branch ${branch}`]
          .filter(Boolean).join(' · ') || this.name,
        colour: ({ series }) => series[colour % series.length],
        dash: branch > 0 ? [4, 3] : dashOf(several ? part ?? 0 : Math.floor(colour / 8)),
      };
    }));
  }

  /** Stops following events and releases resources. */
  end() {
    this.turn = -1;
    this.visible = false;
    this.chart.end();
  }
}

/** The name of a part of a series: `rank 3` or `process 1`. */
export function partName(name, part) {
  return `${name.startsWith('rank/') ? 'rank' : 'process'} ${part}`;
}

/** The dash pattern that distinguishes lines with the same colour. */
function dashOf(index) {
  return [null, [6, 3], [2, 2], [8, 3, 2, 3]][index % 4];
}

function isSome(series) {
  return series.steps.length > 0;
}
