/** Dark and light theme, and the style sheet's colours for canvases. */

import { store, stored } from './dom.js';

const listeners = new Set();
let known = null;

/** Applies the stored theme, or else follows the system. */
export function start() {
  apply(stored('theme', null));
  matchMedia('(prefers-color-scheme: dark)').addEventListener('change', changed);
}

/** Switches between dark and light, and stores the choice. */
export function toggle() {
  const next = isDark() ? 'light' : 'dark';
  store('theme', next);
  apply(next);
}

/** Calls `work` whenever the colours change, until the returned function is called. */
export function onChange(work) {
  listeners.add(work);
  return () => listeners.delete(work);
}

/** Colours for canvases: `{text, dim, line, panel, accent, bad, warn, series: […], ramp: [[r, g, b], …]}`. */
export function colours() {
  known ??= read();
  return known;
}

/** The colour of the `index`th line. */
export function ofLine(index) {
  const { series } = colours();
  return series[index % series.length];
}

/** The colour of a share from 0 to 1 on the ramp of heat maps, as `[r, g, b]`. */
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

/** Reads the colours from the browser through an element, because `light-dark()` is only resolved in properties that are colours. */
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
