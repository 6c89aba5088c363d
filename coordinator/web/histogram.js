/** Histograms over time: steps on the x axis, values on the y axis, density as colour. */

import { get } from './api.js';
import { fit } from './chart.js';
import { fill, frame, h, throttle } from './dom.js';
import { grouped, number } from './format.js';
import * as live from './live.js';
import { amend } from './route.js';
import { linearTicks } from './scale.js';
import { compareNames } from './series.js';
import { colours, onChange, onRamp } from './theme.js';
import { withoutBranches } from './view.js';
import { axisOf, density, columnEnds } from './bins.js';

const MARGIN = { left: 62, right: 10, top: 6, bottom: 20 };
/** Minimum time between two reloads of a histogram. */
const GAP_MS = 3000;

/** Creates the tab. */
export async function histograms({ run: { run }, source }, params, signal) {
  const { names } = await get(`runs/${run}/histograms`, signal);
  if (names.length === 0) return { element: h('p', { class: 'empty' }, 'no histograms yet: `report.histograms_every` of the job sets the interval in steps'), end: () => {} };
  names.sort(compareNames);
  let kept = [];
  const body = h('div', { class: 'charts' });
  const observer = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) target.panel.show(isIntersecting);
  }, { rootMargin: '200px' });
  const kinds = [...new Set(names.map((name) => name.split('/')[0]))];
  const kind = h('select', { 'aria-label': 'kind', onchange: show }, h('option', { value: '' }, 'all'),
    kinds.map((each) => h('option', { value: each, selected: params.get('kind') === each }, each)));
  const linear = h('input', { type: 'checkbox', checked: params.get('linear') === '1', onchange: show });
  const find = h('input', { type: 'search', placeholder: 'find histogram', 'aria-label': 'find histogram', value: params.get('find') ?? '', 'data-filter': '', oninput: show });
  function show() {
    amend({ kind: kind.value, find: find.value, linear: linear.checked ? '1' : null });
    observer.disconnect();
    kept.forEach((each) => each.end());
    const wanted = names.filter((name) => (!kind.value || name.startsWith(`${kind.value}/`)) && name.includes(find.value));
    kept = wanted.map((name) => new Histogram(run, name, !linear.checked));
    fill(body, kept.map((each) => each.element));
    kept.forEach((each) => observer.observe(each.element));
  }
  show();
  const anew = throttle(GAP_MS, () => kept.forEach((each) => each.more()));
  const stop = live.on('points', (event) => event.run === run && anew());
  return {
    element: h('div', null, h('div', { class: 'controls' }, h('label', null, 'kind ', kind), find, h('label', null, linear, 'linear scale')), withoutBranches(source), body),
    end: () => {
      stop();
      observer.disconnect();
      kept.forEach((each) => each.end());
    },
  };
}

class Histogram {
  constructor(run, name, logarithmic) {
    Object.assign(this, { run, name, logarithmic, items: [] });
    this.canvas = h('canvas', { class: 'plot', role: 'img', 'aria-label': `${name}: loading` });
    this.readout = h('span', { class: 'legend' });
    this.message = h('div', { class: 'empty' }, 'loading…');
    this.element = h('figure', { class: 'chart spread' }, h('figcaption', null, h('span', { class: 'title' }, name), this.readout),
      h('div', { class: 'canvas' }, this.canvas, this.message));
    this.element.panel = this;
    this.redraw = () => this.paint();
    this.stopTheme = onChange(() => frame(this.redraw));
    this.observer = new ResizeObserver(() => frame(this.redraw));
    this.observer.observe(this.canvas.parentElement);
    this.canvas.addEventListener('pointermove', (event) => this.hover(event));
    this.canvas.addEventListener('pointerleave', () => this.say(this.items.length - 1));
  }

  show(visible) {
    this.visible = visible;
    if (visible && (this.items.length === 0 || this.stale)) this.load();
  }

  more() {
    this.stale = true;
    if (this.visible) this.load();
  }

  end() {
    this.observer.disconnect();
    this.stopTheme();
  }

  async load() {
    this.stale = false;
    try {
      const { items } = await get(`runs/${this.run}/histograms?name=${encodeURIComponent(this.name)}`);
      this.items = items.filter(({ edges, counts }) => edges.length === counts.length + 1);
      this.message.hidden = this.items.length > 0;
      // A histogram without finite values has no bins.
      this.message.textContent = items.length > 0 ? `no finite values: ${told(items[items.length - 1])}` : 'no data yet';
    } catch (error) {
      this.message.hidden = false;
      this.message.textContent = error.message;
    }
    this.say(this.items.length - 1);
    frame(this.redraw);
  }

  paint() {
    const { width, height } = fit(this.canvas);
    if (this.items.length === 0 || width === 0) return;
    const context = this.canvas.getContext('2d');
    context.clearRect(0, 0, width, height);
    context.font = '11px system-ui, sans-serif';
    const axis = axisOf(this.items, height - MARGIN.bottom, MARGIN.top, this.logarithmic);
    const ends = columnEnds(this.items.map(({ step }) => step));
    const [first, last] = [ends[0], ends[ends.length - 1]];
    this.pixelOf = (step) => MARGIN.left + ((step - first) / (last - first || 1)) * (width - MARGIN.left - MARGIN.right);
    this.ends = ends;
    const columns = this.items.map((item) => density(item, axis.pixel));
    const most = Math.max(...columns.flat().map(({ share }) => share));
    columns.forEach((cells, index) => {
      // Whole pixels, because the background would be visible between fractions.
      const [from, to] = [ends[index], ends[index + 1]].map((end) => Math.round(this.pixelOf(end)));
      for (const { top, bottom, share } of cells) {
        if (share === 0) continue;
        // The square root makes the tails visible.
        context.fillStyle = `rgb(${onRamp(Math.sqrt(share / most)).join(' ')})`;
        context.fillRect(from, Math.round(top), Math.max(to - from, 1), Math.max(Math.round(bottom) - Math.round(top), 1));
      }
    });
    this.paintAxes(context, width, height, axis, first, last);
    const item = this.items[this.items.length - 1];
    this.canvas.setAttribute('aria-label', `${this.name}: ${this.items.length} histograms, steps ${this.items[0].step} to ${item.step}. ${told(item)}`);
  }

  paintAxes(context, width, height, axis, first, last) {
    const palette = colours();
    context.fillStyle = palette.dim;
    context.textAlign = 'right';
    context.textBaseline = 'middle';
    const taken = [];
    // Zero and the ends are the most important labels, so they are placed first.
    const order = [...axis.ticks].sort((a, b) => (b === 0) - (a === 0) || Math.abs(b) - Math.abs(a));
    for (const tick of order) {
      const at = axis.pixel(tick);
      if (taken.some((other) => Math.abs(other - at) < 13)) continue;
      taken.push(at);
      context.fillText(number(tick, 3), MARGIN.left - 6, at);
    }
    context.textAlign = 'center';
    context.textBaseline = 'top';
    for (const tick of linearTicks(first, last, Math.max(2, Math.floor(width / 100)))) {
      const half = context.measureText(grouped(tick)).width / 2;
      context.fillText(grouped(tick), Math.min(this.pixelOf(tick), width - half), height - MARGIN.bottom + 5);
    }
  }

  hover(event) {
    if (!this.pixelOf) return;
    const x = event.clientX - this.canvas.getBoundingClientRect().left;
    const index = this.ends.findIndex((end, at) => at > 0 && x < this.pixelOf(end)) - 1;
    this.say(index < 0 ? this.items.length - 1 : index);
  }

  say(index) {
    const item = this.items[index];
    this.readout.textContent = item ? told(item) : '';
    this.readout.classList.toggle('bad', Boolean(item && item.nans + item.infs > 0));
  }
}

function told(item) {
  const parts = [`step ${grouped(item.step)}`];
  if (item.edges.length > 0) parts.push(`mean ${number(item.mean, 3)}`, `std ${number(item.std, 3)}`, `${number(item.min, 3)} … ${number(item.max, 3)}`);
  if (item.zeros > 0) parts.push(`${number((100 * item.zeros) / item.count, 3)} % zero`);
  if (item.nans + item.infs > 0) parts.push(`${grouped(item.nans)} NaN, ${grouped(item.infs)} infinite`);
  return parts.join(' · ');
}
