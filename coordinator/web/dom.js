/** Elements, frames and storage. Text becomes text nodes only: names, notes and logs come from users. */

/**
 * An element. `props`: `class`, `on…` (listeners), `data-…`, `aria-…`, `role` and other attributes; `false`, null and undefined
 * are left out. Children are elements, texts or lists of them; null and false are left out.
 */
export function h(tag, props, ...children) {
  const element = document.createElement(tag);
  for (const [key, value] of Object.entries(props ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (key.startsWith('on')) element.addEventListener(key.slice(2), value);
    else if (key in element && typeof value !== 'string') element[key] = value;
    else element.setAttribute(key === 'className' ? 'class' : key, value === true ? '' : value);
  }
  append(element, children);
  return element;
}

/** Puts `children` in the place of all that `element` has. */
export function fill(element, ...children) {
  element.textContent = '';
  append(element, children);
  return element;
}

function append(element, children) {
  for (const child of children.flat(Infinity)) {
    if (child === null || child === undefined || child === false) continue;
    element.append(child instanceof Node ? child : String(child));
  }
}

/** A table of keys and values. */
export function facts(entries) {
  const rows = entries.filter(([, value]) => value !== undefined);
  return h('dl', { class: 'facts' }, rows.map(([key, value]) => [h('dt', null, key), h('dd', null, value ?? '–')]));
}

/** A table with a head. Cells are texts, elements, or `{text, class}`. */
export function table(heads, rows, props = {}) {
  const cell = (tag) => (value) => {
    const own = value !== null && typeof value === 'object' && !(value instanceof Node) && !Array.isArray(value);
    return own ? h(tag, { class: value.class, title: value.title }, value.text) : h(tag, tag === 'th' ? { scope: 'col' } : null, value);
  };
  return h('div', { class: 'scroll' }, h('table', props,
    h('thead', null, h('tr', null, heads.map(cell('th')))),
    h('tbody', null, rows.map((row) => h('tr', null, row.map(cell('td')))))));
}

/** A digest, short, with the whole of it in the title; a click copies it. */
export function digest(text, characters = 12) {
  if (!text) return '–';
  const copy = (event) => {
    event.preventDefault();
    navigator.clipboard?.writeText(text).then(() => announce('copied'), () => announce('could not copy'));
  };
  return h('button', { class: 'digest', type: 'button', title: `${text} (click to copy)`, onclick: copy }, text.slice(0, characters));
}

/** Says something in passing, to eyes and screen readers. */
export function announce(text) {
  const place = document.getElementById('notice');
  place.textContent = text;
  place.classList.add('shown');
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove('shown'), 2500);
}

const drawings = new Set();

/** Calls `draw` in the next frame, once, however often it is asked for. */
export function frame(draw) {
  if (drawings.size === 0) {
    requestAnimationFrame(() => {
      const now = [...drawings];
      drawings.clear();
      for (const each of now) each();
    });
  }
  drawings.add(draw);
}

/** `work` at once, then at most every `gap_ms`; the last call is not lost. */
export function throttle(gap_ms, work) {
  let timer = null;
  let last = -Infinity;
  const run = () => {
    timer = null;
    last = performance.now();
    work();
  };
  return () => {
    const wait = last + gap_ms - performance.now();
    if (wait <= 0 && timer === null) run();
    else timer ??= setTimeout(run, Math.max(0, wait));
  };
}

/** What the browser keeps for this page under `key`; `fallback` if it keeps nothing, or must not. */
export function stored(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`lockstep.${key}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Keeps it. */
export function store(key, value) {
  try {
    localStorage.setItem(`lockstep.${key}`, JSON.stringify(value));
  } catch {
    // A browser that keeps nothing forgets the choice at the next visit, no more.
  }
}

/** Text in which what stands between backticks is code. */
export function ticked(text) {
  return text.split('`').map((part, index) => (index % 2 === 1 ? h('code', null, part) : part));
}
