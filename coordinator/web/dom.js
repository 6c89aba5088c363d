/** Elements, frames and storage. Text is only inserted as text nodes, because names, notes and logs come from users. */

/**
 * Creates an element. `props`: `class`, `on…` (listeners), `data-…`, `aria-…`, `role` and other attributes; false, null and undefined are
 * ignored. Children are elements, texts or lists of them; null and false are ignored.
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

/** Replaces all children of `element`. */
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

/** A list of keys and values. Entries with the value undefined are skipped. */
export function facts(entries) {
  const rows = entries.filter(([, value]) => value !== undefined);
  return h('dl', { class: 'facts' }, rows.map(([key, value]) => [h('dt', null, key), h('dd', null, value ?? '–')]));
}

/** A table with a head. Cells are texts, elements, or `{text, class, title}`. */
export function table(heads, rows, props = {}) {
  const cell = (tag) => (value) => {
    const own = value !== null && typeof value === 'object' && !(value instanceof Node) && !Array.isArray(value);
    return own ? h(tag, { class: value.class, title: value.title }, value.text) : h(tag, tag === 'th' ? { scope: 'col' } : null, value);
  };
  return h('div', { class: 'scroll' }, h('table', props,
    h('thead', null, h('tr', null, heads.map(cell('th')))),
    h('tbody', null, rows.map((row) => h('tr', null, row.map(cell('td')))))));
}

/** The first characters of a digest. The title has all of it, and a click copies it. */
export function digest(text, characters = 12) {
  if (!text) return '–';
  const copy = (event) => {
    event.preventDefault();
    navigator.clipboard?.writeText(text).then(() => announce('copied'), () => announce('cannot copy to the clipboard'));
  };
  return h('button', { class: 'digest', type: 'button', title: `${text} (click to copy)`, onclick: copy }, text.slice(0, characters));
}

/** Shows a notice for 2.5 s, also to screen readers. */
export function announce(text) {
  const place = document.getElementById('notice');
  place.textContent = text;
  place.classList.add('shown');
  clearTimeout(announce.timer);
  announce.timer = setTimeout(() => place.classList.remove('shown'), 2500);
}

const drawings = new Set();

/** Calls `draw` once in the next frame, even after several requests. */
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

/** A function that runs `work` at once, then at most every `gap_ms`. The last call is never dropped. */
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

/** The value that the browser stores under `key`; `fallback` if there is none, or if storage is forbidden. */
export function stored(key, fallback) {
  try {
    return JSON.parse(localStorage.getItem(`lockstep.${key}`)) ?? fallback;
  } catch {
    return fallback;
  }
}

/** Stores `value` under `key`, if the browser allows it. */
export function store(key, value) {
  try {
    localStorage.setItem(`lockstep.${key}`, JSON.stringify(value));
  } catch {
    // Without storage, the choice only lasts for this visit.
  }
}

/** Text nodes, and `code` elements for parts between backticks. */
export function ticked(text) {
  return text.split('`').map((part, index) => (index % 2 === 1 ? h('code', null, part) : part));
}
