/** The page of all runs: a table with filter and sorting. Only visible rows are in the document. */

import { get } from './api.js';
import { COLUMNS, DEFAULT, column, nobodyHas, sorted } from './columns.js';
import { fill, frame, h, store, stored, throttle } from './dom.js';
import { fields, lookup, matches, parameters, parse } from './filter.js';
import { grouped } from './format.js';
import * as live from './live.js';
import { TOGETHER, newestFirst, path } from './pages.js';
import { amend, format, go, run as runAddress } from './route.js';

/** Height of a row in pixels. Must equal the height in the style sheet. */
const ROW = 28;
/** Number of rendered rows above and below the visible ones. */
const SPARE = 15;
/** Number of filtered rows at which the page stops loading older runs automatically. */
const ENOUGH = 50;

/** Creates the page. */
export async function runsPage(route) {
  const rows = await live.runs();
  const page = new RunsPage(rows, route);
  return { element: page.element, end: () => page.end(), keys: page, title: 'runs' };
}

class RunsPage {
  constructor(rows, { params }) {
    this.rows = rows;
    this.keys = stored('columns', DEFAULT);
    this.sort = params.get('sort') ?? '-created';
    this.chosen = new Set((params.get('runs') ?? '').split(',').filter(Boolean));
    this.current = params.get('at') ?? null;
    this.filter = h('input', {
      type: 'search', class: 'filter', 'data-filter': '', 'aria-label': 'filter runs', value: params.get('q') ?? '',
      placeholder: 'filter: words, status:running, lr>0.001, tags:baseline, -name:old', oninput: () => this.filtered(),
    });
    this.count = h('span', { class: 'dim', role: 'status' });
    this.compare = h('a', { class: 'button', href: '#/compare' }, 'compare');
    this.head = h('tr');
    this.elements = new Map();
    // At first only visible rows; spare rows follow once the first ones are on the screen.
    this.spare = 0;
    this.before = h('tr', { 'aria-hidden': 'true' }, h('td'));
    this.after = h('tr', { 'aria-hidden': 'true' }, h('td'));
    this.body = h('tbody');
    this.table = h('table', { class: 'runs' }, h('thead', null, this.head), this.body);
    this.older = h('div', { class: 'older', 'data-older': '', hidden: true });
    this.scroller = h('div', { class: 'scroll tall', tabindex: '-1', onscroll: () => frame(this.paint) }, this.table, this.older);
    this.element = h('div', { class: 'page fixed' },
      h('div', { class: 'toolbar' }, this.filter, this.count, this.compare, this.columnsMenu()), this.scroller);
    this.paint = () => this.drawRows();
    this.update = () => {
      this.needJobs();
      this.arrange();
    };
    const soon = throttle(250, () => frame(this.update));
    this.observer = new ResizeObserver(() => {
      // After returning from a run, its row is scrolled into view.
      this.reveal();
      this.reveal = () => {};
      frame(this.paint);
      this.spare = SPARE;
    });
    this.observer.observe(this.scroller);
    this.stops = [live.on('run', soon), live.on('resync', async () => {
      this.rows = await live.runs();
      soon();
    })];
    // Updates the relative times.
    this.timer = setInterval(() => frame(this.paint), 10000);
    this.drawHead();
    this.filtered();
  }

  end() {
    this.stops.forEach((stop) => stop());
    clearInterval(this.timer);
    this.observer.disconnect();
    this.ended = true;
  }

  filtered() {
    this.terms = parse(this.filter.value);
    amend({ q: this.filter.value });
    // A filter applies to all runs, so some pages of older runs are loaded automatically.
    this.pages = this.terms.length > 0 ? TOGETHER : 0;
    this.needJobs().then(() => this.readOlder());
    this.arrange();
  }

  /** Loads the requested number of pages of older runs, or fewer if a filter already has enough results. */
  async readOlder() {
    if (this.fetching) return;
    this.fetching = true;
    const fits = () => this.terms.length > 0 && this.shown.length >= ENOUGH;
    try {
      while (!this.ended && this.pages > 0 && live.unread() > 0 && (this.asked || !fits())) {
        this.pages -= 1;
        this.arrange();
        await live.more();
        await this.needJobs();
      }
      this.failed = null;
    } catch (error) {
      this.failed = error.message;
    } finally {
      this.fetching = false;
      this.asked = false;
      this.pages = 0;
    }
    if (!this.ended) this.arrange();
  }

  /** Shows the number of runs that are not loaded, and a button that loads more. */
  drawOlder() {
    const unread = live.unread();
    this.older.hidden = unread === 0;
    if (unread === 0) return;
    const sorted = this.sort === '-created' ? '' : ', so this order is incomplete';
    const what = this.terms.length > 0 ? 'not searched' : `not loaded${sorted}`;
    const words = `${grouped(unread)} older ${unread === 1 ? 'run is' : 'runs are'} ${what}${this.failed ? ` (${this.failed})` : ''}`;
    const ask = () => {
      this.pages = this.terms.length > 0 ? TOGETHER : 1;
      this.asked = true;
      this.readOlder();
    };
    const does = this.terms.length > 0 ? 'search older runs' : 'load older runs';
    fill(this.older, h('span', { class: 'dim' }, words, ' '),
      h('button', { type: 'button', disabled: this.fetching, onclick: ask }, this.fetching ? 'loading…' : does));
  }

  columns() {
    return this.keys.map((key) => column(key, live.params));
  }

  /** Loads jobs if the filter, a column, or a key in `more` refers to a key of the job. */
  async needJobs(more = []) {
    const own = new Set([...COLUMNS.map(({ key }) => key), 'step', 'steps', 'created_at_ms', 'started_at_ms', 'ended_at_ms']);
    const asked = [...fields(this.terms), ...this.keys, ...more].some((field) => !own.has(field));
    const wanted = asked ? newestFirst(this.rows.values()).filter(({ run }) => !live.params(run)) : [];
    if (wanted.length === 0 || this.reading) return;
    this.reading = true;
    try {
      // A single new run is loaded alone, several by pages.
      const alone = async ({ run }) => ({ [run]: (await get(`runs/${run}`)).job });
      for (let left = wanted; left.length > 0;) {
        const jobs = await (wanted.length > 1 ? get(path('jobs', left[0].number + 1)) : alone(left[0]));
        for (const [run, job] of Object.entries(jobs)) live.keepParams(run, parameters(job));
        // Each response contains at least the first run.
        left = left.slice(1).filter(({ run }) => !live.params(run));
      }
    } catch {
      // Retried at the next change.
    } finally {
      this.reading = false;
    }
    if (this.ended) return;
    // For runs that were submitted meanwhile.
    if (wanted.every(({ run }) => live.params(run))) await this.needJobs();
    this.arrange();
  }

  /** Filters and sorts, then draws. */
  arrange() {
    const now = Date.now();
    const hits = newestFirst(this.rows.values()).filter((row) => matches(this.terms, (field) => lookup(row, live.params(row.run), field)));
    const key = this.sort.replace(/^-/, '');
    this.shown = sorted(hits, column(key, live.params), this.sort.startsWith('-'), now);
    const [size, all] = [this.rows.size, this.rows.size + live.unread()].map(grouped);
    const hit = hits.length === this.rows.size ? '' : `${grouped(hits.length)} of `;
    const read = live.unread() === 0 ? `${hit}${all} runs` : hit ? `${hit}${size} loaded runs, ${all} in total` : `${size} of ${all} runs loaded`;
    this.count.textContent = `${read}${this.reading ? ', loading jobs…' : ''}`;
    this.drawOlder();
    this.showChosen();
    this.drawRows();
  }

  drawHead() {
    this.elements.clear();
    const heads = this.columns().map(({ key, title, numeric }) => {
      const own = this.sort.replace(/^-/, '') === key;
      const down = this.sort.startsWith('-');
      return h('th', { scope: 'col', class: numeric && 'number', 'aria-sort': own ? (down ? 'descending' : 'ascending') : 'none' },
        h('button', { type: 'button', onclick: () => this.sortBy(key) }, title, own && h('span', { 'aria-hidden': 'true' }, down ? ' ↓' : ' ↑')));
    });
    fill(this.head, h('th', { class: 'check' }, h('span', { class: 'hidden-text' }, 'selected')), heads);
  }

  sortBy(key) {
    this.sort = this.sort === `-${key}` ? key : `-${key}`;
    amend({ sort: this.sort === '-created' ? null : this.sort });
    this.drawHead();
    this.arrange();
  }

  drawRows() {
    const now = Date.now();
    const columns = this.columns();
    const first = Math.max(0, Math.floor(this.scroller.scrollTop / ROW) - this.spare);
    const end = Math.min(this.shown.length, first + Math.ceil((this.scroller.clientHeight || innerHeight) / ROW) + 2 * this.spare);
    this.table.setAttribute('aria-rowcount', this.shown.length + 1);
    this.before.firstChild.style.height = `${first * ROW}px`;
    this.after.firstChild.style.height = `${(this.shown.length - end) * ROW}px`;
    this.before.hidden = first === 0;
    this.after.hidden = end === this.shown.length;
    const shown = this.shown.slice(first, end);
    const rows = shown.map((row, index) => this.row(row, columns, now, first + index));
    this.elements = new Map(shown.map((row, index) => [row.run, rows[index]]));
    const children = [this.before, ...rows.map(({ tr }) => tr), this.after];
    const none = this.rows.size === 0 ? 'no runs yet: submit one with `coord submit job.toml`' : `no ${live.unread() > 0 ? 'loaded ' : ''}run matches the filter`;
    if (rows.length === 0) fill(this.body, h('tr', null, h('td', { class: 'empty', colSpan: columns.length + 1 }, none)));
    else arrange(this.body, children);
  }

  /** The elements of a row. They are reused while the row is visible, and only changed cells are replaced, so that no click is lost. */
  row(row, columns, now, index) {
    const own = this.elements.get(row.run) ?? this.newRow(row, columns);
    own.tr.className = row.run === this.current ? 'current' : '';
    own.tr.setAttribute('aria-rowindex', index + 2);
    own.box.checked = this.chosen.has(row.run);
    columns.forEach((each, at) => {
      const value = each.value(row, now);
      const text = each.text ? each.text(value, row, now) : value ?? '–';
      const seen = each.key === 'status' ? `${text} ${row.reason}` : text;
      const { td, before } = own.cells[at];
      if (before === seen) return;
      own.cells[at].before = seen;
      fill(td, this.cell(each.key, text, row));
      td.title = each.hint ? each.hint(value) : text.length > 24 ? text : '';
    });
    return own;
  }

  newRow(row, columns) {
    const box = h('input', { type: 'checkbox', 'aria-label': `select ${row.name} ${row.run}`, onchange: () => this.choose(row.run) });
    const cells = columns.map(({ key, numeric }) => ({ td: h('td', { class: `of-${key}${numeric ? ' number' : ''}` }), before: null }));
    const visit = (event) => event.target.closest('a, input, button') || this.visit(row.run);
    const tr = h('tr', { 'data-run': row.run, onclick: visit }, h('td', { class: 'check' }, box), cells.map(({ td }) => td));
    return { tr, box, cells };
  }

  cell(key, text, row) {
    switch (key) {
      case 'name': return h('a', { href: runAddress(row.run) }, text);
      case 'run': return h('code', null, text);
      case 'status': return status(row);
      case 'progress': return h('span', { class: 'progress' }, bar(row), text);
      case 'tags': return (row.tags ?? []).map((tag) => h('button', { type: 'button', class: 'tag', title: `filter by ${tag}`, onclick: () => this.add(`tags:${tag}`) }, tag));
      case 'replay_of': return row.replay_of ? h('a', { href: runAddress(row.replay_of) }, text) : text;
      default: return text;
    }
  }

  add(condition) {
    this.filter.value = `${this.filter.value} ${condition.includes(' ') ? `"${condition}"` : condition}`.trim();
    this.filtered();
  }

  choose(run) {
    if (!this.chosen.delete(run)) this.chosen.add(run);
    this.showChosen();
  }

  showChosen() {
    // Includes selected runs that are not loaded.
    const runs = [...this.chosen];
    amend({ runs: runs.join(',') });
    this.compare.textContent = runs.length > 0 ? `compare ${runs.length}` : 'compare';
    this.compare.href = format({ page: 'compare', params: { runs: runs.join(',') } });
    this.compare.classList.toggle('off', runs.length < 2);
  }

  columnsMenu() {
    const list = h('div', { class: 'menu-body' });
    const keep = () => {
      store('columns', this.keys);
      this.drawHead();
      this.needJobs();
      this.arrange();
    };
    const draw = () => {
      const all = [...COLUMNS.map(({ key }) => key), ...this.keys.filter((key) => !COLUMNS.some((own) => own.key === key))];
      const extra = h('input', {
        type: 'text', placeholder: 'optimizer.lr', 'aria-label': 'key of the job', oninput: () => extra.setCustomValidity(''),
      });
      const add = async (event) => {
        event.preventDefault();
        const key = extra.value.trim();
        await this.needJobs([key]);
        if (key && !COLUMNS.some((own) => own.key === key) && nobodyHas(key, [...this.rows.values()], live.params)) {
          extra.setCustomValidity(`no ${live.unread() > 0 ? 'loaded ' : ''}run has the job key ${key}`);
          extra.reportValidity();
          return;
        }
        if (key && !this.keys.includes(key)) this.keys.push(key);
        keep();
        draw();
      };
      fill(list, all.map((key) => h('label', null, h('input', {
        type: 'checkbox', checked: this.keys.includes(key),
        onchange: (event) => {
          this.keys = event.target.checked ? all.filter((own) => own === key || this.keys.includes(own)) : this.keys.filter((own) => own !== key);
          keep();
        },
      }), column(key, live.params).title)), h('form', { onsubmit: add }, extra, h('button', { type: 'submit' }, 'add')),
      h('button', { type: 'button', onclick: () => {
        this.keys = [...DEFAULT];
        keep();
        draw();
      } }, 'reset to default'));
    };
    draw();
    return h('details', { class: 'menu' }, h('summary', { class: 'button' }, 'columns'), list);
  }

  visit(run) {
    this.current = run;
    amend({ at: run });
    go(runAddress(run));
  }

  reveal() {
    const at = this.shown.findIndex((row) => row.run === this.current);
    if (at >= 0) this.scrollTo(at);
  }

  scrollTo(index) {
    const { scrollTop, clientHeight } = this.scroller;
    if (index * ROW < scrollTop) this.scroller.scrollTop = index * ROW;
    else if ((index + 2) * ROW > scrollTop + clientHeight) this.scroller.scrollTop = (index + 2) * ROW - clientHeight;
  }

  /** Handles the keys j, k, x and Enter. */
  key(name) {
    const at = this.shown.findIndex((row) => row.run === this.current);
    if (name === 'Enter' && at >= 0) this.visit(this.current);
    else if (name === 'x' && at >= 0) this.choose(this.current);
    else if (name === 'j' || name === 'k') {
      const next = Math.min(Math.max(at + (name === 'j' ? 1 : -1), 0), this.shown.length - 1);
      this.current = this.shown[next]?.run ?? null;
      this.scrollTo(next);
    } else return false;
    this.drawRows();
    return true;
  }
}

/** Makes `children` the children of `element`. Elements that stay are not moved, so they keep their layout and the focus. */
function arrange(element, children) {
  const kept = new Set(children);
  for (const child of [...element.children]) {
    if (!kept.has(child)) child.remove();
  }
  let place = element.firstChild;
  for (const child of children) {
    if (child === place) place = place.nextSibling;
    else element.insertBefore(child, place);
  }
}

/** A run's status as a coloured word; its title is the reason. */
export function status(row) {
  return h('span', { class: `status ${row.status}`, title: row.reason ?? row.checkpoint_failed?.reason }, row.status);
}

/** A progress bar of a run. */
export function bar(row) {
  const done = row.steps ? Math.min(1, row.step / row.steps) : 0;
  const inner = h('i');
  inner.style.width = `${done * 100}%`;
  return h('span', { class: `bar ${row.status}`, role: 'progressbar', 'aria-valuenow': String(Math.round(done * 100)), 'aria-valuemin': '0', 'aria-valuemax': '100', 'aria-label': 'progress' }, inner);
}
