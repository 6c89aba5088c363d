/**
 * Parallel coordinates: a vertical axis per differing parameter, and a line per run. If there are more runs than colours, the colour
 * shows the loss.
 */

import { fit } from './chart.js';
import { frame, h } from './dom.js';
import { number } from './format.js';
import { colours, onChange, onRamp } from './theme.js';

const TOP = 34;
const BOTTOM = 18;
const SIDE = 60;

/** `axes`: as `axes` in `difference.js` returns them; `labels`: of the runs. Returns `{element, end}`. */
export function parallel(axes, labels) {
  const canvas = h('canvas', { class: 'plot', role: 'img', 'aria-label': `${labels.length} runs over ${axes.map(({ key }) => key).join(', ')}` });
  const readout = h('span', { class: 'legend' });
  const element = h('figure', { class: 'chart wide parallel' }, h('figcaption', null, h('span', { class: 'title' }, 'parameters and final loss'), readout),
    h('div', { class: 'canvas' }, canvas));
  // Each axis needs 110 pixels.
  element.querySelector('.canvas').style.minWidth = `${axes.length * 110}px`;
  let near = -1;
  const across = (index, width) => (axes.length === 1 ? width / 2 : SIDE + (index / (axes.length - 1)) * (width - 2 * SIDE));
  const down = (share, height) => height - BOTTOM - share * (height - TOP - BOTTOM);
  const paint = () => {
    const { width, height } = fit(canvas);
    if (width === 0) return;
    const context = canvas.getContext('2d');
    const palette = colours();
    const loss = axes[axes.length - 1];
    const own = labels.length <= palette.series.length;
    context.clearRect(0, 0, width, height);
    context.font = '11px system-ui, sans-serif';
    context.textAlign = 'center';
    axes.forEach((axis, index) => {
      const x = across(index, width);
      context.strokeStyle = palette.line;
      context.beginPath();
      context.moveTo(x, TOP);
      context.lineTo(x, height - BOTTOM);
      context.stroke();
      context.fillStyle = palette.text;
      context.fillText(axis.key, x, 10);
      context.fillStyle = palette.dim;
      context.fillText(short(axis.ends[1]), x, 25);
      context.fillText(short(axis.ends[0]), x, height - 5);
    });
    const order = labels.map((_, index) => index).sort((a, b) => (a === near) - (b === near));
    for (const run of order) {
      const at = loss.at[run];
      context.globalAlpha = near < 0 || near === run ? 0.9 : 0.2;
      context.lineWidth = near === run ? 3 : 1.5;
      const byLoss = at === null ? palette.bad : `rgb(${onRamp(0.25 + 0.75 * (1 - at)).join(' ')})`;
      context.strokeStyle = own ? palette.series[run] : byLoss;
      context.beginPath();
      axes.forEach((axis, index) => axis.at[run] !== null && context.lineTo(across(index, width), down(axis.at[run], height)));
      context.stroke();
    }
    context.globalAlpha = 1;
    context.lineWidth = 1;
  };
  canvas.addEventListener('pointermove', (event) => {
    const box = canvas.getBoundingClientRect();
    near = nearest(event.clientX - box.left, event.clientY - box.top, box.width, box.height);
    readout.textContent = near < 0 ? '' : `${labels[near]}: ${axes.map(({ key, values }) => `${key} ${short(values[near])}`).join(', ')}`;
    frame(paint);
  });
  canvas.addEventListener('pointerleave', () => {
    near = -1;
    readout.textContent = '';
    frame(paint);
  });

  /** Index of the run with the line nearest to a point; -1 if none is within 14 pixels. */
  function nearest(px, py, width, height) {
    let [best, found] = [14, -1];
    labels.forEach((_, run) => {
      for (let index = 0; index + 1 < axes.length; index += 1) {
        const [left, right] = [across(index, width), across(index + 1, width)];
        const [from, to] = [axes[index].at[run], axes[index + 1].at[run]];
        if (px < left || px > right || from === null || to === null) continue;
        const y = down(from + (to - from) * ((px - left) / (right - left)), height);
        if (Math.abs(y - py) < best) [best, found] = [Math.abs(y - py), run];
      }
    });
    return found;
  }

  const redraw = () => frame(paint);
  const observer = new ResizeObserver(redraw);
  observer.observe(canvas);
  const stop = onChange(redraw);
  return {
    element,
    end: () => {
      observer.disconnect();
      stop();
    },
  };
}

function short(value) {
  if (value === null) return 'none';
  return typeof value === 'number' ? number(value) : String(value).length > 16 ? `${String(value).slice(0, 15)}…` : String(value);
}
