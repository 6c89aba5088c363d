/** What histograms show of an alarm, over the steps: the share of zeros, how many values are not finite, or the spread. */

import { get } from './api.js';
import { evidence, evidenceName } from './bins.js';
import { Chart } from './chart.js';
import { throttle } from './dom.js';

/** Histograms are not read anew more often than this while a run goes on. */
const GAP_MS = 3000;

/** Whether a series is one of distributions, of which there are histograms and no points. */
export function isDistribution(name) {
  return /^(weight|grad|activation)\//.test(name);
}

/** See the module. `run`: as a panel's; `kind`: of the alarm. As a panel. */
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

  /** All histograms are read in any case: there are few. */
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
