/**
 * A line chart: a canvas, a cursor that all charts of a page share, zoom by dragging, a legend with values.
 *
 * Axis, smoothing and range are in a `view` that the charts of a page share. The chart requests a zoom; its owner executes it.
 */

import { h, fill, frame } from './dom.js';
import { grouped, ofSeries } from './format.js';
import { MARGIN, draw, onAxis } from './plot.js';
import { padded } from './scale.js';
import { ema, extent, lowerBound, nearest, positions } from './series.js';
import { colours, onChange } from './theme.js';

/** Maximum number of entries in a legend and in a tooltip. */
const LEGEND = 9;
const TIP = 20;
/** With more lines than this, bands and unsmoothed values are not drawn, because they would hide other lines. */
const FEW = 12;

/** The position of the pointer on the x axis, shared by all charts of a page. */
export class Cursor {
  listeners = new Set();
  x = null;

  /** `x`: a value of the axis, or null. */
  move(x, source) {
    this.x = x;
    for (const listener of this.listeners) listener(source);
  }
}

/**
 * See the module. `options`: `{name, title, view, cursor, zoom(range | null), marks, open, tall, stack, zero}`. `zero`: the y axis starts
 * at 0.
 */
export class Chart {
  constructor(options) {
    Object.assign(this, { marks: [], stack: false, zero: false, ...options });
    this.lines = [];
    this.hidden = new Set();
    this.scales = null;
    this.visible = true;
    this.canvas = h('canvas', { class: 'plot', role: 'img', tabindex: '0', 'aria-label': `${this.title}: loading` });
    this.over = h('canvas', { class: 'over', 'aria-hidden': 'true', hidden: true });
    this.legend = h('div', { class: 'legend' });
    this.tip = h('div', { class: 'tip', hidden: true });
    this.message = h('div', { class: 'empty' }, 'loading…');
    const title = this.open
      ? h('button', { type: 'button', class: 'title', title: 'enlarge', onclick: () => this.open() }, this.title)
      : h('span', { class: 'title' }, this.title);
    this.element = h('figure', { class: `chart${this.tall ? ' tall' : ''}`, 'data-name': this.name },
      h('figcaption', null, title, this.legend),
      h('div', { class: 'canvas' }, this.canvas, this.over, this.message, this.tip));
    this.redraw = () => this.paint();
    this.own = false;
    this.paintHover = () => this.visible && this.paintCursor(this.own);
    this.hover = (source) => {
      this.own = source === this;
      if (this.visible) frame(this.paintHover);
    };
    this.cursor.listeners.add(this.hover);
    this.stopTheme = onChange(() => this.refresh());
    // The observer reports the size. Reading it would force a new layout for each chart after a change of any legend.
    this.size = { width: 0, height: 0 };
    this.observer = new ResizeObserver((entries) => {
      const { width, height } = entries[entries.length - 1].contentRect;
      this.size = { width, height };
      this.refresh();
    });
    this.observer.observe(this.canvas.parentElement);
    this.listen();
  }

  /** Sets the lines `{key, label, steps, times, values, min, max, colour, dash, faint, low, context}`, in the order of drawing. */
  setLines(lines) {
    const same = lines.length === this.lines.length && lines.every((line, index) => line.key === this.lines[index].key);
    this.lines = lines;
    this.drawn = null;
    if (same) this.entries?.forEach((entry, index) => { entry.line = lines[index]; });
    else this.makeLegend();
    this.message.hidden = lines.some((line) => line.steps.length > 0);
    if (!this.message.hidden) this.message.textContent = 'no data';
    this.canvas.setAttribute('aria-label', this.summary());
    this.refresh();
  }

  /** Shows an error instead of lines. */
  fail(error) {
    this.message.hidden = false;
    this.message.textContent = error.message;
  }

  /** Redraws in the next frame, or once the chart is visible. */
  refresh() {
    if (this.visible) frame(this.redraw);
  }

  /** Called when the chart enters or leaves the window. An invisible chart releases its pixels: 200 charts would need 100 MB. */
  show(visible) {
    this.visible = visible;
    if (!visible) [this.canvas, this.over].forEach(release);
    this.refresh();
  }

  /** Stops following events. */
  end() {
    this.cursor.listeners.delete(this.hover);
    this.observer.disconnect();
    this.stopTheme();
  }

  /** Positions and smoothed values, cached until the lines or the view change. */
  prepare() {
    const { axis, smooth } = this.view;
    const key = `${axis} ${smooth}`;
    if (this.drawn?.key === key) return this.drawn.lines;
    const lines = this.lines.map((line) => {
      const smoothed = smooth > 0 && !this.stack ? ema(line.values, smooth) : line.values;
      const raw = smoothed === line.values || line.faint ? null : line.values;
      return { ...line, x: positions(line, axis, line.context), y: smoothed, raw };
    });
    this.drawn = { key, lines };
    return lines;
  }

  paint() {
    const { width, height } = this.size;
    if (width === 0 || this.lines.length === 0 || !this.visible) return;
    fit(this.canvas, this.size);
    const lines = this.prepare().filter((line) => line.x.length > 0 && !this.hidden.has(line.key));
    const palette = colours();
    const x = this.domain(lines);
    const few = lines.length <= FEW;
    const inside = lines.map((line) => {
      const from = lowerBound(line.x, x[0]);
      const to = Math.max(from + 1, lowerBound(line.x, x[1] + 1e-9) + 1);
      const cut = (list) => (list ? list.slice(Math.max(0, from - 1), to) : []);
      const around = few ? [cut(line.raw), ...(this.view.smooth > 0 ? [] : [cut(line.min), cut(line.max)])] : [];
      return [cut(line.y), cut(line.low), ...around];
    }).flat();
    const limits = extent(inside, { positive: this.view.logy, clip: this.view.clip });
    const [low, high] = padded(this.zero ? Math.min(0, limits[0]) : limits[0], limits[1], this.view.logy);
    const shown = lines.map((line) => ({
      ...line, colour: line.colour(palette), thin: !few, raw: few ? line.raw : null, min: line.raw || !few ? null : line.min,
    }));
    // The bands of a stack do not overlap, because each one only covers its own values.
    const marks = this.marks.map((mark) => ({ x: this.ofStep(mark.step), colour: palette[mark.colour] }));
    this.scales = draw(this.canvas.getContext('2d'), width, height, {
      name: this.name, axis: this.view.axis, x, y: [low, high], logX: this.view.logx, logY: this.view.logy, lines: shown,
      marks: marks.filter((mark) => mark.x !== null),
    }, palette);
    this.paintCursor(false);
  }

  /** Minimum and maximum of the x axis. */
  domain(lines) {
    const { from, to, axis, x, logx } = this.view;
    if (x) return x;
    if (axis === 'step' && from !== null) return [from, Math.max(to, from + 1)];
    let [min, max] = [Infinity, -Infinity];
    for (const line of lines) {
      const first = from === null ? 0 : Math.min(lowerBound(line.steps, from), line.x.length - 1);
      const last = to === null ? line.x.length - 1 : Math.min(lowerBound(line.steps, to), line.x.length - 1);
      min = Math.min(min, line.x[first]);
      max = Math.max(max, line.x[last]);
    }
    if (logx && !(min > 0)) min = axis === 'step' ? 1 : max / 1e4;
    return min < max ? [min, max] : [Number.isFinite(min) ? min - 0.5 : 0, Number.isFinite(min) ? min + 0.5 : 1];
  }

  /** Position of a step on the x axis; null if it is unknown. */
  ofStep(step) {
    if (this.view.axis === 'step') return step;
    const line = this.prepare().find((own) => own.x.length > 0);
    const at = line ? nearest(line.steps, step) : -1;
    return at < 0 ? null : line.x[at];
  }

  paintCursor(own) {
    if (!this.scales) return;
    const { width, height } = this.size;
    // Hidden while it is empty, because the browser would still composite it in each frame.
    this.over.hidden = this.cursor.x === null && !this.drag;
    fit(this.over, this.size);
    const context = this.over.getContext('2d');
    context.clearRect(0, 0, width, height);
    const palette = colours();
    if (this.drag) {
      context.globalAlpha = 0.15;
      context.fillStyle = palette.accent;
      context.fillRect(Math.min(this.drag.from, this.drag.to), MARGIN.top, Math.abs(this.drag.to - this.drag.from), height - MARGIN.top - MARGIN.bottom);
      context.globalAlpha = 1;
    }
    const found = this.at(this.cursor.x);
    if (this.scales && this.cursor.x !== null) {
      const px = Math.round(this.scales.x.pixel(this.cursor.x)) + 0.5;
      if (px >= MARGIN.left && px <= width - MARGIN.right) {
        context.strokeStyle = palette.dim;
        context.beginPath();
        context.moveTo(px, MARGIN.top);
        context.lineTo(px, height - MARGIN.bottom);
        context.stroke();
        for (const { line, index } of found.slice(0, TIP)) {
          context.fillStyle = line.colour(palette);
          context.beginPath();
          context.arc(this.scales.x.pixel(line.x[index]), this.scales.y.pixel(line.y[index]), 3, 0, 7);
          context.fill();
        }
      }
    }
    this.writeLegend(found, palette);
    this.writeTip(own && !this.drag ? found : [], palette, width);
  }

  /** The nearest point to `x` of each visible line; none outside of the line's range. */
  at(x) {
    if (x === null || !this.scales) return [];
    const reach = (this.scales.x.max - this.scales.x.min) * 0.02;
    return this.prepare().filter((line) => !this.hidden.has(line.key)).flatMap((line) => {
      const index = nearest(line.x, x);
      if (index < 0 || line.y[index] === null) return [];
      const outside = x < line.x[0] - reach || x > line.x[line.x.length - 1] + reach;
      return outside ? [] : [{ line, index, value: line.low ? line.y[index] - line.low[index] : line.y[index] }];
    });
  }

  /** Rebuilds the legend. Later only its texts change, so that no click is lost. */
  makeLegend() {
    const entry = (line) => {
      const value = h('b', { class: 'value' });
      if (this.lines.length === 1) return { line, value, element: value };
      const chip = h('i', { class: 'chip' });
      const toggle = () => {
        if (!this.hidden.delete(line.key)) this.hidden.add(line.key);
        this.refresh();
      };
      const element = h('button', { type: 'button', class: 'entry', title: `${line.label}: show or hide`, onclick: toggle }, chip, line.label, value);
      return { line, value, element, chip };
    };
    this.entries = this.lines.slice(0, LEGEND).map(entry);
    const more = this.lines.length - LEGEND;
    fill(this.legend, this.entries.map(({ element }) => element), more > 0 && h('span', { class: 'dim' }, `and ${more} more`));
  }

  writeLegend(found, palette) {
    const at = new Map(found.map(({ line, value }) => [line.key, value]));
    for (const { line, value, element, chip } of this.entries ?? []) {
      value.textContent = ofSeries(this.name, at.get(line.key) ?? lastOf(line));
      if (!chip) continue;
      chip.style.background = line.colour(palette);
      element.setAttribute('aria-pressed', String(!this.hidden.has(line.key)));
    }
  }

  writeTip(found, palette, width) {
    this.tip.hidden = found.length === 0;
    if (found.length === 0) return;
    const sorted = this.stack ? [...found].reverse() : [...found].sort((a, b) => b.value - a.value);
    const { line: first, index } = found[0];
    fill(this.tip, h('div', { class: 'dim' }, `${this.view.axis === 'step' ? 'step ' : ''}${onAxis(this.view.axis, first.x[index])}`,
      this.view.axis === 'step' ? '' : ` · step ${grouped(first.steps[index])}`),
    sorted.slice(0, TIP).map(({ line, index: own, value }) => {
      const chip = h('i', { class: 'chip' });
      chip.style.background = line.colour(palette);
      const band = line.min && !line.raw ? ` (${ofSeries(this.name, line.min[own])} … ${ofSeries(this.name, line.max[own])})` : '';
      return h('div', null, chip, this.lines.length > 1 ? `${line.label} ` : '', h('b', null, ofSeries(this.name, value)), band);
    }), sorted.length > TIP && h('div', { class: 'dim' }, `and ${sorted.length - TIP} more`));
    const px = this.scales.x.pixel(this.cursor.x);
    const left = px > width / 2;
    this.tip.style.left = left ? 'auto' : `${px + 12}px`;
    this.tip.style.right = left ? `${width - px + 12}px` : 'auto';
  }

  listen() {
    const surface = this.canvas;
    const place = (event) => event.clientX - surface.getBoundingClientRect().left;
    surface.addEventListener('pointermove', (event) => {
      if (!this.scales) return;
      if (this.drag) this.drag.to = place(event);
      this.cursor.move(this.scales.x.value(place(event)), this);
    });
    surface.addEventListener('pointerleave', () => this.drag || this.cursor.move(null, this));
    surface.addEventListener('pointerdown', (event) => {
      if (event.button !== 0 || !this.zoom) return;
      this.drag = { from: place(event), to: place(event) };
      surface.setPointerCapture(event.pointerId);
    });
    const finish = (event) => {
      const { drag } = this;
      this.drag = null;
      if (drag && event.type === 'pointerup' && Math.abs(drag.to - drag.from) > 5) {
        this.zoomTo(...[drag.from, drag.to].map((px) => this.scales.x.value(px)).sort((a, b) => a - b));
      }
      this.cursor.move(event.pointerType === 'mouse' ? this.cursor.x : null, this);
    };
    surface.addEventListener('pointerup', finish);
    surface.addEventListener('pointercancel', finish);
    surface.addEventListener('dblclick', () => this.zoom?.(null));
    surface.addEventListener('keydown', (event) => this.key(event));
    surface.addEventListener('blur', () => this.cursor.move(null, this));
  }

  /** Handles keys: arrows move the cursor, `+` zooms in at the cursor, `0` shows all. */
  key(event) {
    const line = this.prepare().reduce((a, b) => (a && a.x.length >= b.x.length ? a : b), null);
    if (!line || line.x.length === 0 || !this.scales) return;
    const now = nearest(line.x, this.cursor.x ?? line.x[line.x.length - 1]);
    const moves = { ArrowLeft: -1, ArrowRight: 1, Home: -line.x.length, End: line.x.length };
    if (event.key in moves) {
      const next = Math.min(Math.max(now + moves[event.key], 0), line.x.length - 1);
      this.cursor.move(line.x[next], this);
    } else if (event.key === '+' && this.zoom) {
      const quarter = (this.scales.x.max - this.scales.x.min) / 4;
      this.zoomTo(line.x[now] - quarter, line.x[now] + quarter);
    } else if (event.key === '0') this.zoom?.(null);
    else return;
    event.preventDefault();
  }

  /** Requests the range from `min` to `max` of the x axis, as steps and as values of the axis. */
  zoomTo(min, max) {
    let [from, to] = [Infinity, -Infinity];
    for (const line of this.prepare()) {
      if (line.x.length === 0) continue;
      from = Math.min(from, line.steps[Math.min(lowerBound(line.x, min), line.x.length - 1)]);
      to = Math.max(to, line.steps[Math.max(lowerBound(line.x, max) - 1, 0)]);
    }
    if (this.view.axis === 'step') [from, to] = [Math.max(0, Math.floor(min)), Math.ceil(max)];
    if (from <= to) this.zoom({ from, to: Math.max(to, from + 1), x: this.view.axis === 'step' ? null : [min, max] });
  }

  summary() {
    const parts = this.lines.slice(0, LEGEND).map((line) => {
      const [min, max] = extent([line.values]);
      if (!(min <= max)) return `${line.label}: no finite values`;
      const [first, last] = [line.steps[0], line.steps[line.steps.length - 1]];
      const end = line.values.findLast((value) => value !== null);
      const said = [end, min, max].map((value) => ofSeries(this.name, value));
      return `${line.label}: steps ${first} to ${last}, last ${said[0]}, minimum ${said[1]}, maximum ${said[2]}`;
    });
    return `${this.title}. ${parts.join('. ')}`;
  }
}

/** A line's last finite value; for a stacked line, without the lines below it. */
function lastOf(line) {
  const index = line.values.findLastIndex((value) => value !== null);
  return index < 0 ? null : line.values[index] - (line.low?.[index] ?? 0);
}

/** Sets a canvas to its size in screen pixels, and scales drawing to CSS pixels. Returns the size in CSS pixels: `size` if it is given. */
export function fit(canvas, size = { width: canvas.clientWidth, height: canvas.clientHeight }) {
  const ratio = window.devicePixelRatio || 1;
  const { width, height } = size;
  const [wide, high] = [Math.round(width * ratio), Math.round(height * ratio)];
  if (canvas.width !== wide || canvas.height !== high) {
    canvas.width = wide;
    canvas.height = high;
  }
  canvas.getContext('2d').setTransform(ratio, 0, 0, ratio, 0, 0);
  return { width, height };
}

function release(canvas) {
  [canvas.width, canvas.height] = [0, 0];
}
