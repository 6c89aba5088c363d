/** One series of one or more runs in a chart: which points it needs, and how they grow while the runs go on. */

import { points } from './api.js';
import { Chart } from './chart.js';
import { grown, line } from './series.js';

/** So many times the points that were asked for may a line have before it is asked for anew. */
const SURPLUS = 1.5;
/** Exact points that may follow buckets, which look calmer than they. */
const TAIL = 30;
/** More runs than this get half as many points each: so many lines take the time, and hide what is fine in one. */
const MANY = 12;
/** The line colour that is none. */
const GREY = 7;

/**
 * See the module. `runs`: `[{id, label, branches: [number], context: {began_ms, steps_per_epoch}}]`; of several runs each has one
 * colour, of a single one each part. `part`: only that one. `stack`: lines are summed up.
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

  /** Told by whoever watches the window. Points are read once they can be seen. */
  show(visible) {
    this.visible = visible;
    this.chart.show(visible);
    if (!visible) return;
    if (!this.loaded) this.load();
    else if (this.stale) this.grow();
  }

  /** The view has changed: `other` if so have the points that it needs. */
  viewChanged(other) {
    if (!other) this.chart.refresh();
    else if (this.visible) this.load();
    else this.loaded = false;
  }

  /** There may be new points of `run`. */
  more(run) {
    if (!this.runs.some((own) => own.id === run)) return;
    if (!this.visible) this.stale = true;
    else if (this.loaded) this.grow();
  }

  /** Reads all that the view shows. */
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
      // A later question has been asked meanwhile, with another range.
      if (turn !== this.turn) return;
      this.lines = new Map(found);
      this.longest = Math.max(0, ...found.map(([, each]) => each.steps.length));
      this.update();
    } catch (error) {
      if (turn === this.turn) this.chart.fail(error);
    }
  }

  /** Reads what has come since. */
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
      // The curve so far is worth more than the message.
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

  /** Gives the chart its lines. */
  update() {
    const lines = [...this.lines].map(([key, own]) => {
      const [id, branch, part] = key.split(' ');
      const index = this.runs.findIndex((run) => run.id === id);
      return { key, index, branch: Number(branch), part: part === '' ? null : Number(part), own };
    });
    // Abandoned branches lie below what counts.
    lines.sort((a, b) => b.branch - a.branch || a.index - b.index || a.part - b.part);
    const several = this.runs.length > 1;
    this.chart.setLines(lines.map(({ key, index, branch, part, own }) => {
      const run = this.runs[index];
      // What a single line has left behind is grey: its own colour would hide it.
      const colour = several ? run.colour ?? index : part ?? (branch > 0 ? GREY : 0);
      return {
        key, ...own, context: run.context, faint: branch > 0,
        label: [several && run.label, part !== null && partName(this.name, part), branch > 0 && `abandoned ${branch}`]
          .filter(Boolean).join(' · ') || this.name,
        colour: ({ series }) => series[colour % series.length],
        dash: branch > 0 ? [4, 3] : dashOf(several ? part ?? 0 : Math.floor(colour / 8)),
      };
    }));
  }

  /** No more events come here. */
  end() {
    this.turn = -1;
    this.visible = false;
    this.chart.end();
  }
}

/** What a part of a series is called. */
export function partName(name, part) {
  return `${name.startsWith('rank/') ? 'rank' : 'process'} ${part}`;
}

/** Lines that share a colour differ in how they are drawn. */
function dashOf(index) {
  return [null, [6, 3], [2, 2], [8, 3, 2, 3]][index % 4];
}

function isSome(series) {
  return series.steps.length > 0;
}
