/** Images, texts and files that a run recorded. */

import { get } from './api.js';
import { h } from './dom.js';
import { bytes, clock, grouped } from './format.js';
import { compareNames } from './series.js';

/** Number of items per name that are initially shown, the newest. */
const NEWEST = 8;

/** Creates the tab. */
export async function media({ run }, signal) {
  const list = await get(`runs/${run.run}/media`, signal);
  if (list.length === 0) return { element: h('p', { class: 'empty' }, 'no images, texts or files recorded'), end: () => {} };
  const names = [...new Set(list.map(({ name }) => name))].sort(compareNames);
  const section = (name) => {
    const items = list.filter((own) => own.name === name).sort((a, b) => b.step - a.step);
    const body = h('div', { class: 'media' }, items.slice(0, NEWEST).map(item));
    const rest = items.length - NEWEST;
    const more = rest > 0 && h('button', { type: 'button', onclick: () => {
      body.append(...items.slice(NEWEST).map(item));
      more.remove();
    } }, `show ${rest} older`);
    return h('section', null, h('h3', null, name), body, more);
  };
  return { element: h('div', null, names.map(section)), end: () => {} };
}

function item(own) {
  const caption = h('figcaption', { class: 'dim', title: clock(own.at_ms) }, `step ${grouped(own.step)}`,
    own.url && [' · ', h('a', { href: own.url, download: own.file_name ?? '' }, own.file_name ?? 'file'), ` ${bytes(own.bytes)}`]);
  if (own.kind === 'image') return h('figure', null, h('img', { src: own.url, alt: `${own.name}, step ${own.step}`, loading: 'lazy' }), caption);
  if (own.kind === 'text') return h('figure', null, h('pre', { class: 'log short' }, own.text), caption);
  return h('figure', null, caption);
}
