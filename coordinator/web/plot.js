/** Drawing of line charts on a canvas: axes, bands, lines, marks. Knows pixels and scales, but neither data sources nor pointers. */

import { clock, grouped, number, ofSeries, seconds, tickClock, unitOf } from './format.js';
import { byteTicks, linearTicks, logTicks, scale, timeTicks } from './scale.js';

/** Margins of the plot, in pixels. */
export const MARGIN = { left: 62, right: 10, top: 6, bottom: 20 };

/**
 * Draws `model`: `{name, axis, x: [min, max], y: [min, max], logX, logY, lines, marks}`. A line is
 * `{x, y, min, max, low, raw, colour, dash, faint, thin}`, with lists of numbers or null; `x`, `y` and `colour` are required.
 * Returns the scales of both axes.
 */
export function draw(context, width, height, model, colours) {
  const x = scale(...model.x, MARGIN.left, width - MARGIN.right, model.logX);
  const y = scale(...model.y, height - MARGIN.bottom, MARGIN.top, model.logY);
  context.clearRect(0, 0, width, height);
  context.font = '11px system-ui, sans-serif';
  axes(context, width, height, x, y, model, colours);
  context.save();
  context.beginPath();
  context.rect(MARGIN.left, MARGIN.top - 1, width - MARGIN.left - MARGIN.right, height - MARGIN.top - MARGIN.bottom + 2);
  context.clip();
  for (const mark of model.marks) drawMark(context, height, x.pixel(mark.x), mark.colour);
  for (const line of model.lines) {
    const [first, end] = visible(line.x, model.x);
    if (line.low) area(context, x, y, line, line.y, line.low, first, end, 0.75);
    else if (line.min) area(context, x, y, line, line.max, line.min, first, end, 0.16);
    if (line.raw) stroke(context, x, y, line, line.raw, first, end, 0.28, 1);
    stroke(context, x, y, line, line.y, first, end, line.faint ? 0.45 : 1, line.low ? 0.5 : line.thin ? 1 : 1.5);
  }
  context.restore();
  for (const line of model.lines) notFinite(context, height, x, line, ...visible(line.x, model.x), colours.bad);
  return { x, y };
}

/** A value of the x axis as text. If not `precise`, as the label of a tick on an axis with the range `span`. */
export function onAxis(axis, value, precise = true, span = 0) {
  switch (axis) {
    case 'time': return precise ? clock(value * 1000) : tickClock(value * 1000, span);
    case 'relative': return seconds(precise ? value : Math.round(value * 1000) / 1000);
    case 'epoch': return number(value, precise ? 4 : 3);
    default: return grouped(value);
  }
}

function axes(context, width, height, x, y, model, colours) {
  const across = Math.max(4, Math.floor((width - MARGIN.left) / 90));
  const up = Math.max(2, Math.floor((height - MARGIN.bottom) / 32));
  const linear = unitOf(model.name) === 'bytes' ? byteTicks : linearTicks;
  const yTicks = y.log ? logTicks(y.min, y.max, up) : linear(y.min, y.max, up);
  const xTicks = ticksOfX(x, model.axis, across);
  context.lineWidth = 1;
  context.strokeStyle = colours.line;
  context.fillStyle = colours.dim;
  context.textBaseline = 'middle';
  context.textAlign = 'right';
  context.beginPath();
  for (const tick of yTicks) {
    const at = Math.round(y.pixel(tick)) + 0.5;
    context.moveTo(MARGIN.left, at);
    context.lineTo(width - MARGIN.right, at);
    context.fillText(ofSeries(model.name, tick), MARGIN.left - 6, at);
  }
  context.stroke();
  context.textBaseline = 'top';
  context.textAlign = 'center';
  let taken = -Infinity;
  for (const tick of xTicks) {
    const at = x.pixel(tick);
    const text = onAxis(model.axis, tick, false, x.max - x.min);
    const half = context.measureText(text).width / 2;
    const middle = Math.min(Math.max(at, half), width - half);
    if (middle - half < taken + 8) continue;
    taken = middle + half;
    context.fillText(text, middle, height - MARGIN.bottom + 5);
  }
}

function ticksOfX(x, axis, count) {
  if (x.log) return logTicks(x.min, x.max, count);
  if (axis === 'time') {
    // Ticks are round in local time, not in UTC.
    const shift = new Date(x.min * 1000).getTimezoneOffset() * 60;
    return timeTicks(x.min - shift, x.max - shift, count).map((tick) => tick + shift);
  }
  if (axis === 'relative') return timeTicks(x.min, x.max, count);
  return linearTicks(x.min, x.max, count).filter((tick) => axis !== 'step' || Number.isInteger(tick));
}

/** First and past-the-last index of the visible points, with one more at each side, so that lines reach the edges of the plot. */
function visible(xs, [min, max]) {
  let first = xs.findIndex((value) => value >= min);
  if (first < 0) first = xs.length;
  let end = first;
  while (end < xs.length && xs[end] <= max) end += 1;
  return [Math.max(0, first - 1), Math.min(xs.length, end + 1)];
}

function stroke(context, x, y, line, values, first, end, alpha, width) {
  context.globalAlpha = alpha;
  context.strokeStyle = line.colour;
  context.fillStyle = line.colour;
  context.lineWidth = width;
  // The fastest join; at this width its corners are invisible.
  context.lineJoin = 'bevel';
  context.setLineDash(line.dash ?? []);
  context.beginPath();
  let open = false;
  for (let index = first; index < end; index += 1) {
    const value = values[index];
    if (value === null || (y.log && !(value > 0))) {
      open = false;
      continue;
    }
    const [px, py] = [x.pixel(line.x[index]), y.pixel(value)];
    if (open) context.lineTo(px, py);
    else context.moveTo(px, py);
    // A single point between two gaps would be invisible as a line.
    const alone = !open && (index + 1 >= end || values[index + 1] === null);
    if (alone) context.rect(px - 1.5, py - 1.5, 3, 3);
    open = true;
  }
  context.stroke();
  context.setLineDash([]);
  context.globalAlpha = 1;
}

function area(context, x, y, line, high, low, first, end, alpha) {
  context.globalAlpha = alpha;
  context.fillStyle = line.colour;
  let begin = first;
  while (begin < end) {
    while (begin < end && !drawable(high[begin], low[begin])) begin += 1;
    let stop = begin;
    while (stop < end && drawable(high[stop], low[stop])) stop += 1;
    context.beginPath();
    for (let index = begin; index < stop; index += 1) context.lineTo(x.pixel(line.x[index]), y.pixel(above(y, high[index])));
    for (let index = stop - 1; index >= begin; index -= 1) context.lineTo(x.pixel(line.x[index]), y.pixel(above(y, low[index])));
    context.fill();
    begin = stop;
  }
  context.globalAlpha = 1;
}

function drawable(high, low) {
  return high !== null && low !== null;
}

function above(y, value) {
  return y.log ? Math.max(value, y.min) : value;
}

/** Marks values that are NaN or infinite with small triangles at the bottom of the plot. */
function notFinite(context, height, x, line, first, end, colour) {
  context.fillStyle = colour;
  let last = -Infinity;
  for (let index = first; index < end; index += 1) {
    if (line.y[index] !== null || line.x[index] < x.min || line.x[index] > x.max) continue;
    const px = x.pixel(line.x[index]);
    if (px - last < 5) continue;
    last = px;
    const foot = height - MARGIN.bottom;
    context.beginPath();
    context.moveTo(px, foot - 7);
    context.lineTo(px - 4, foot);
    context.lineTo(px + 4, foot);
    context.fill();
  }
}

function drawMark(context, height, px, colour) {
  context.strokeStyle = colour;
  context.lineWidth = 1;
  context.setLineDash([3, 3]);
  context.beginPath();
  context.moveTo(Math.round(px) + 0.5, MARGIN.top);
  context.lineTo(Math.round(px) + 0.5, height - MARGIN.bottom);
  context.stroke();
  context.setLineDash([]);
}
