/** A heat map: steps on the x axis, one row per part or layer, values as colours. */

import { get } from './api.js';
import { h, frame } from './dom.js';
import { fit } from './chart.js';
import { grouped, ofSeries } from './format.js';
import { linearTicks } from './scale.js';
import { compareNames, extent, lowerBound, nearest } from './series.js';
import { partName } from './panel.js';
import { colours, onChange, onRamp } from './theme.js';

const FOOT = 20;
const ROW = 16;
/** Maximum height in pixels. With more rows, the rows become thinner. */
const HIGHEST = 640;
const COLUMNS = 300;

/**
 * See the module. `name`: a series with many parts, or `prefix*` for one row per series. `pick(name)` is called when a row is clicked.
 * Loads its points once it is visible, and reloads them as the run continues.
 */
export class HeatMap {
  constructor({ title, run, view, name, logarithmic = false, pick = null }) {
    Object.assign(this, { run, view, name, logarithmic, pick, title });
    this.rows = [];
    this.loaded = false;
    this.canvas = h('canvas', { class: 'plot', role: 'img', 'aria-label': `${title}: loading` });
    this.readout = h('span', { class: 'legend' });
    this.message = h('div', { class: 'empty' }, 'loading…');
    this.element = h('figure', { class: 'chart wide heat' }, h('figcaption', null, h('span', { class: 'title' }, title), this.readout),
      h('div', { class: 'canvas' }, this.canvas, this.message));
    this.redraw = () => this.paint();
    this.stopTheme = onChange(() => frame(this.redraw));
    this.observer = new ResizeObserver(() => frame(this.redraw));
    this.observer.observe(this.canvas.parentElement);
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', () => this.say(null));
    this.canvas.addEventListener('click', (event) => {
      const row = this.rows[this.rowAt(event)];
      if (row && pick) pick(row.name);
    });
  }

  /** As in `Panel`. */
  show(visible) {
    this.visible = visible;
    if (visible && (!this.loaded || this.stale)) this.load();
  }

  /** As in `Panel`. */
  viewChanged(other) {
    if (!other) return;
    if (this.visible) this.load();
    else this.stale = true;
  }

  /** As in `Panel`, but reloads everything at most every 2 s, because one new point can change all colours. */
  more(run) {
    if (run !== this.run.id || this.waiting) return;
    this.waiting = setTimeout(() => {
      this.waiting = null;
      if (this.visible) this.load();
      else this.stale = true;
    }, 2000);
  }

  /** As in `Panel`. */
  end() {
    clearTimeout(this.waiting);
    this.observer.disconnect();
    this.stopTheme();
  }

  async load() {
    this.loaded = true;
    this.stale = false;
    const { from, to } = this.view;
    const range = from === null ? '' : `&from=${from}&to=${to}`;
    try {
      const { series } = await get(`runs/${this.run.id}/points?name=${encodeURIComponent(this.name)}&pixels=${COLUMNS}${range}`);
      this.setRows(series.filter(({ steps }) => steps.length > 0).map(({ name, part, steps, values }) => ({
        name, steps, values, label: part === null ? name.slice(name.indexOf('/') + 1) : partName(name, part),
      })));
    } catch (error) {
      this.message.hidden = false;
      this.message.textContent = error.message;
    }
  }

  /** `[{name, label, steps, values}]` */
  setRows(rows) {
    this.rows = rows.sort((a, b) => compareNames(a.label, b.label));
    this.message.hidden = rows.length > 0;
    this.message.textContent = 'no data';
    this.element.querySelector('.canvas').style.flexBasis = `${Math.min(rows.length * ROW, HIGHEST) + FOOT}px`;
    [this.min, this.max] = extent(rows.map(({ values }) => values), { positive: this.logarithmic });
    // Starts at zero, so that noise does not look larger than it is.
    if (!this.logarithmic && this.min > 0) this.min = 0;
    const said = [this.min, this.max].map((value) => ofSeries(this.name, value));
    const summary = `${this.title}: ${rows.length} rows, values from ${said[0]} to ${said[1]}`;
    this.canvas.setAttribute('aria-label', summary);
    this.say(null);
    frame(this.redraw);
  }

  paint() {
    const { width, height } = fit(this.canvas);
    if (this.rows.length === 0 || width === 0) return;
    const context = this.canvas.getContext('2d');
    const palette = colours();
    context.clearRect(0, 0, width, height);
    context.font = '11px system-ui, sans-serif';
    const widest = Math.max(...this.rows.map(({ label }) => context.measureText(label).width));
    this.left = Math.min(widest + 10, width * 0.35);
    this.row = (height - FOOT) / this.rows.length;
    this.first = Math.min(...this.rows.map(({ steps }) => steps[0]));
    this.last = Math.max(...this.rows.map(({ steps }) => steps[steps.length - 1]));
    this.width = width;
    context.imageSmoothingEnabled = false;
    context.drawImage(this.image(palette), this.left, 0, width - this.left, height - FOOT);
    context.fillStyle = palette.dim;
    context.textBaseline = 'middle';
    context.textAlign = 'right';
    const stride = Math.ceil(11 / this.row);
    this.rows.forEach(({ label }, index) => {
      if (index % stride === 0) context.fillText(elided(context, label, this.left - 8), this.left - 6, (index + 0.5) * this.row);
    });
    context.textBaseline = 'top';
    context.textAlign = 'center';
    for (const tick of linearTicks(this.first, this.last, Math.max(2, Math.floor((width - this.left) / 90)))) {
      const at = this.left + ((tick - this.first) / (this.last - this.first || 1)) * (width - this.left);
      const half = context.measureText(grouped(tick)).width / 2;
      context.fillText(grouped(tick), Math.min(at, width - half), height - FOOT + 5);
    }
  }

  /** An image with one pixel per cell, which the browser scales. */
  image(palette) {
    const columns = Math.min(COLUMNS, Math.max(...this.rows.map(({ steps }) => steps.length)));
    const cells = new ImageData(columns, this.rows.length);
    const bad = palette.bad.match(/[\d.]+/g).map(Number);
    const on = this.logarithmic ? (value) => Math.log(Math.max(value, this.min)) : (value) => value;
    const [low, high] = [on(this.min), on(this.max)];
    this.rows.forEach(({ steps, values }, row) => {
      for (let column = 0; column < columns; column += 1) {
        const step = this.first + ((column + 0.5) / columns) * (this.last - this.first);
        const index = Math.min(lowerBound(steps, step), steps.length - 1);
        const value = values[index];
        const [red, green, blue] = value === null ? bad : onRamp((on(value) - low) / (high - low || 1));
        cells.data.set([red, green, blue, 255], (row * columns + column) * 4);
      }
    });
    const canvas = h('canvas', { width: columns, height: this.rows.length });
    canvas.getContext('2d').putImageData(cells, 0, 0);
    return canvas;
  }

  rowAt(event) {
    return Math.floor((event.clientY - this.canvas.getBoundingClientRect().top) / this.row);
  }

  hover(event) {
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    const row = this.rows[this.rowAt(event)];
    if (!row || x < this.left) return this.say(null);
    const step = this.first + ((x - this.left) / (this.width - this.left)) * (this.last - this.first);
    const index = nearest(row.steps, step);
    return this.say(`${row.label}, step ${grouped(row.steps[index])}: ${ofSeries(this.name, row.values[index])}`);
  }

  say(text) {
    this.readout.textContent = text ?? `${ofSeries(this.name, this.min)} … ${ofSeries(this.name, this.max)}${this.logarithmic ? ', log' : ''}`;
  }
}

function elided(context, text, width) {
  if (context.measureText(text).width <= width) return text;
  let kept = text;
  while (kept.length > 1 && context.measureText(`…${kept}`).width > width) kept = kept.slice(1);
  return `…${kept}`;
}
