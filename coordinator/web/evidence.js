/** Evidence of an alarm from histograms, as a chart over steps: share of zeros, number of values that are not finite, or spread. */

import { get } from './api.js';
import { evidence, evidenceName } from './bins.js';
import { Chart } from './chart.js';
import { throttle } from './dom.js';

/** Minimum time between two reloads of the histograms. */
const GAP_MS = 3000;

/** Whether a series is a distribution, which has histograms and no points. */
export function isDistribution(name) {
  return /^(weight|grad|activation)\//.test(name);
}

/** See the module. `run`: as in `Panel`; `kind`: of the alarm. Has the methods of `Panel`. */
export class Evidence {
  constructor({ run, name, kind, view, cursor, marks }) {
    Object.assign(this, { run, name, kind, loaded: false });
    const measure = evidenceName(kind);
    this.chart = new Chart({ name: measure, title: `${name}: ${measure}`, view, cursor, marks, zero: true });
    this.element = this.chart.element;
    this.anew = throttle(GAP_MS, () => (this.visible ? this.load() : (this.loaded = false)));
  }

  show(visible) {
    this.visible = visible;
    this.chart.show(visible);
    if (visible && !this.loaded) this.load();
  }

  /** Redraws only, because all histograms are already loaded. */
  viewChanged() {
    this.chart.refresh();
  }

  more(run) {
    if (run === this.run.id && this.loaded) this.anew();
  }

  end() {
    this.loaded = false;
    this.visible = false;
    this.chart.end();
  }

  async load() {
    this.loaded = true;
    try {
      const { items } = await get(`runs/${this.run.id}/histograms?name=${encodeURIComponent(this.name)}`);
      this.chart.setLines([{ key: this.name, label: this.name, ...evidence(items, this.kind), context: this.run.context, colour: ({ series }) => series[0] }]);
    } catch (error) {
      this.chart.fail(error);
    }
  }
}
