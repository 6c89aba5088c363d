/** What the charts of a page share: axis, smoothing, logarithms, range. Kept in the address, changed by a row of controls. */

import { h, fill, ticked } from './dom.js';
import { grouped } from './format.js';
import { amend } from './route.js';

const AXES = [['step', 'step'], ['relative', 'time since start'], ['time', 'time'], ['epoch', 'epoch']];

/** See the module. Fields are read by charts; `change` is the only way to set them. */
export class View {
  listeners = new Set();

  /** From the parameters of an address. */
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

  /** Sets fields; `address`: whether the address says so, too. Other points are needed where the range or the branches change. */
  change(fields, address = true) {
    const other = ['from', 'to', 'branches'].some((key) => key in fields && fields[key] !== this[key]);
    // A range on one axis is none on another; its steps are.
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

  /** What a chart asks for: a range, or null for all. */
  zoom(range) {
    this.change(range ?? { from: null, to: null, x: null });
  }
}

/** The controls of `view`. `epochs`: whether that axis can be had; `branches`: whether there are any. */
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
  return h('div', { class: 'controls', role: 'group', 'aria-label': 'how charts are drawn' },
    h('label', null, 'x axis ', axis), h('label', null, 'smoothing ', smooth, amount),
    box('logx', 'log x'), box('logy', 'log y'),
    box('clip', 'clip outliers', 'the outermost hundredth of the values does not set the y axis'),
    branches && box('branches', 'abandoned branches', 'what was computed and given up when the run was rolled back; line charts show it, heat maps and histograms do not'),
    range);
}

/** Where abandoned branches are not shown, a sentence that says so, if there are any. `source`: as a panel's run. */
export function withoutBranches({ branches }) {
  return branches.length > 0 && h('p', { class: 'dim' }, ticked('not here: what was given up when the run was rolled back, which the line charts of `charts` show'));
}

// Most of the way is for weights near one, where they differ most.
function fromSlider(position) {
  return position === 0 ? 0 : Number((1 - 10 ** (-3 * (position / 100))).toFixed(3));
}

function toSlider(weight) {
  return weight <= 0 ? 0 : Math.round((-Math.log10(1 - weight) / 3) * 100);
}
