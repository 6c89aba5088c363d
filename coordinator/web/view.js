/** Settings that the charts of a page share: axis, smoothing, logarithmic scales, range. Stored in the address, set with controls. */

import { h, fill, ticked } from './dom.js';
import { grouped } from './format.js';
import { amend } from './route.js';

const AXES = [['step', 'step'], ['relative', 'time since start'], ['time', 'time'], ['epoch', 'epoch']];

/** See the module. Charts read the fields; only `change` sets them. */
export class View {
  listeners = new Set();

  /** Reads the parameters of an address. Invalid values become defaults. */
  constructor(params = new Map()) {
    const whole = (key) => (/^\d+$/.test(params.get(key) ?? '') ? Number(params.get(key)) : null);
    const range = (params.get('x') ?? '').split(',').map(Number);
    this.axis = AXES.some(([axis]) => axis === params.get('axis')) ? params.get('axis') : 'step';
    this.smooth = Math.min(Math.max(Number(params.get('smooth')) || 0, 0), 0.999);
    this.logx = params.get('logx') === '1';
    this.logy = params.get('logy') === '1';
    this.clip = params.get('clip') === '1';
    this.branches = params.get('branches') === '1';
    this.from = whole('from');
    this.to = whole('to');
    if (this.from === null || this.to === null || this.to <= this.from) [this.from, this.to] = [null, null];
    this.x = range.length === 2 && range.every(Number.isFinite) && this.axis !== 'step' ? range : null;
  }

  /** Sets fields, with `address` also in the address. Tells the charts whether they need other points (new range or branches). */
  change(fields, address = true) {
    const other = ['from', 'to', 'branches'].some((key) => key in fields && fields[key] !== this[key]);
    // A range is only valid on its own axis. Its steps (`from`, `to`) stay.
    if ('axis' in fields && fields.axis !== this.axis) this.x = null;
    Object.assign(this, fields);
    if (address) {
      const on = (value) => (value ? '1' : null);
      amend({
        axis: this.axis === 'step' ? null : this.axis, smooth: this.smooth || null,
        logx: on(this.logx), logy: on(this.logy), clip: on(this.clip), branches: on(this.branches),
        from: this.from, to: this.to, x: this.x?.map((value) => Number(value.toPrecision(12))).join(','),
      });
    }
    for (const listener of this.listeners) listener(other);
  }

  /** Sets the range that a chart requests; null shows all. */
  zoom(range) {
    this.change(range ?? { from: null, to: null, x: null });
  }
}

/** The controls of `view`. `epochs`: whether to offer the epoch axis; `branches`: whether there are abandoned branches. */
export function controls(view, { epochs = false, branches = false } = {}) {
  const axes = AXES.filter(([axis]) => axis !== 'epoch' || epochs);
  const axis = h('select', { onchange: (event) => view.change({ axis: event.target.value }) },
    axes.map(([value, text]) => h('option', { value, selected: view.axis === value }, text)));
  const amount = h('output', null, String(view.smooth));
  const smooth = h('input', {
    type: 'range', min: '0', max: '100', 'aria-label': 'smoothing', value: String(toSlider(view.smooth)),
    oninput: (event) => {
      const value = fromSlider(Number(event.target.value));
      amount.textContent = String(value);
      view.change({ smooth: value });
    },
  });
  const box = (key, text, title) => h('label', { title },
    h('input', { type: 'checkbox', checked: view[key], onchange: (event) => view.change({ [key]: event.target.checked }) }), text);
  const range = h('span', { class: 'range' });
  const showRange = () => fill(range, view.from !== null && [
    `steps ${grouped(view.from)} to ${grouped(view.to)} `,
    h('button', { type: 'button', onclick: () => view.zoom(null) }, 'show all'),
  ]);
  view.listeners.add(showRange);
  showRange();
  return h('div', { class: 'controls', role: 'group', 'aria-label': 'chart settings' },
    h('label', null, 'x axis ', axis), h('label', null, 'smoothing ', smooth, amount),
    box('logx', 'log x'), box('logy', 'log y'),
    box('clip', 'clip outliers', 'ignore the lowest and highest 1 % of the values for the range of the y axis'),
    branches && box('branches', 'abandoned branches', 'show steps that a rollback has discarded; only line charts show them, not heat maps and histograms'),
    range);
}

/** A sentence that says that this tab does not show abandoned branches, if the run has any. `source`: a run as in `Panel`. */
export function withoutBranches({ branches }) {
  return branches.length > 0 && h('p', { class: 'dim' }, ticked('steps that a rollback has discarded are not shown here; the line charts in the tab `charts` show them'));
}

// Most of the slider is for weights near one, where a small change has the largest effect.
function fromSlider(position) {
  return position === 0 ? 0 : Number((1 - 10 ** (-3 * (position / 100))).toFixed(3));
}

function toSlider(weight) {
  return weight <= 0 ? 0 : Math.round((-Math.log10(1 - weight) / 3) * 100);
}
