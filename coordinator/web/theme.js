/** Dark and light, and the colours of the style sheet for canvases. */

import { store, stored } from './dom.js';

const listeners = new Set();
let known = null;

/** Follows the system, or what was chosen here before. */
export function start() {
  apply(stored('theme', null));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
}

/** The other of dark and light, kept for the next visit. */
export function toggle() {
  const next = isDark() ? 'light' : 'dark';
  store('theme', next);
  apply(next);
}

/** Calls `work` whenever colours change; returns how to end that. */
export function onChange(work) {
  listeners.add(work);
  return () => listeners.delete(work);
}

/** Colours as canvases take them: `{text, dim, line, panel, accent, bad, series: […], ramp: [[r, g, b], …]}`. */
export function colours() {
  known ??= read();
  return known;
}

/** The colour of the `index`th line. */
export function ofLine(index) {
  const { series } = colours();
  return series[index % series.length];
}

/** The colour of a share of 0 to 1 on the ramp of heat maps, as `[r, g, b]`. */
export function onRamp(share) {
  const { ramp } = colours();
  const at = Math.min(Math.max(share, 0), 1) * (ramp.length - 1);
  const low = Math.min(Math.floor(at), ramp.length - 2);
  return ramp[low].map((part, index) => Math.round(part + (ramp[low + 1][index] - part) * (at - low)));
}

function isDark() {
  const chosen = document.documentElement.dataset.theme;
  return chosen ? chosen === 'dark' : matchMedia('(prefers-color-scheme: dark)').matches;
}

function apply(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  changed();
}

function changed() {
  known = null;
  for (const work of listeners) work();
}

/** `light-dark()` is resolved only in a property that takes a colour: an element of its own asks the browser. */
function read() {
  const probe = document.createElement('span');
  document.body.append(probe);
  const of = (name) => {
    probe.style.color = `var(--${name})`;
    return getComputedStyle(probe).color;
  };
  const numbers = (colour) => colour.match(/[\d.]+/g).slice(0, 3).map(Number);
  const listed = (name, count) => Array.from({ length: count }, (_, index) => of(`${name}${index}`));
  const result = {
    text: of('text'), dim: of('dim'), line: of('line'), panel: of('panel'), accent: of('accent'), bad: of('bad'), warn: of('warn'),
    series: listed('c', 8),
    ramp: listed('ramp', 5).map(numbers),
  };
  probe.remove();
  return result;
}
