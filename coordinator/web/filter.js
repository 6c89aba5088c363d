/**
 * The filter of the runs table: words and conditions. A row must match all of them.
 *
 *     gpt status:running lr>=1e-3 -tags:old reason:"lost node"
 *
 * A bare word is searched in name, id, status, tags and reason. `:` means "contains", or "equals" for numbers; `-` before a
 * term negates it. Pure.
 */

const TERM = /(-?)(?:([A-Za-z_][\w./-]*?)(>=|<=|!=|=|>|<|:))?("([^"]*)"?|[^\s]+)/g;

/** The fields in which a bare word is searched. */
const TEXT_FIELDS = ['name', 'run', 'status', 'tags', 'reason'];

/** Parses `text` into terms, in order. */
export function parse(text) {
  const terms = [];
  for (const [, minus, field, op, word, quoted] of text.matchAll(TERM)) {
    const value = quoted ?? word;
    if (value === '' && !field) continue;
    terms.push({ negate: minus === '-', field: field ?? null, op: op ?? null, value: value.toLowerCase() });
  }
  return terms;
}

/** The fields of all conditions. */
export function fields(terms) {
  return terms.filter((term) => term.field).map((term) => term.field);
}

/** Whether all terms match. `get(field)` returns the value of a field, or undefined. */
export function matches(terms, get) {
  return terms.every((term) => holds(term, get) !== term.negate);
}

/**
 * The value at `path` in a run's row, or else in its job (`params`: dotted path to value). A suffix is enough: `lr` finds
 * `optimizer.lr`, the shortest path that ends with it.
 */
export function lookup(row, params, path) {
  if (path === 'status' || path in row) return plain(row[path]);
  if (!params) return undefined;
  if (path in params) return params[path];
  const ends = Object.keys(params).filter((key) => key.endsWith(`.${path}`));
  ends.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  return ends.length > 0 ? params[ends[0]] : undefined;
}

/** Flattens a nested value to dotted paths. A list of plain values is one leaf; elements of other lists are keyed by index. */
export function flatten(value, prefix = '', out = {}) {
  const leaf = value === null || typeof value !== 'object';
  if (leaf || (Array.isArray(value) && value.every((item) => item === null || typeof item !== 'object'))) {
    out[prefix] = leaf ? value : value.map(String).join(', ');
    return out;
  }
  for (const [key, item] of Object.entries(value)) flatten(item, prefix ? `${prefix}.${key}` : key, out);
  return out;
}

/** The keys of a job by dotted path. Whole numbers that a JavaScript number would round stay text. */
export function parameters(job) {
  const tokens = /"(?:[^"\\]|\\.)*"|(?<![\d.eE+-])-?\d{16,}(?![\d.eE])/g;
  const exact = (token) => (token.startsWith('"') || Number.isSafeInteger(Number(token)) ? token : `"${token}"`);
  return flatten(JSON.parse(job.replaceAll(tokens, exact)));
}

/** The value of a number in a row, without its bits. */
export function plain(value) {
  return value !== null && typeof value === 'object' && 'bits' in value ? value.value : value;
}

function holds(term, get) {
  if (!term.field) return TEXT_FIELDS.some((field) => contains(get(field), term.value));
  const value = get(term.field);
  if (value === undefined || value === null) return term.op === '!=' || term.value === 'none';
  const [own, asked] = [Number(value), Number(term.value)];
  const numeric = typeof value === 'number' && term.value !== '' && Number.isFinite(asked);
  switch (term.op) {
    case ':': return numeric ? own === asked : contains(value, term.value);
    case '=': return numeric ? own === asked : equals(value, term.value);
    case '!=': return !(numeric ? own === asked : equals(value, term.value));
    case '>': return numeric && own > asked;
    case '<': return numeric && own < asked;
    case '>=': return numeric && own >= asked;
    default: return numeric && own <= asked;
  }
}

function contains(value, part) {
  if (value === undefined || value === null) return false;
  return Array.isArray(value) ? value.some((item) => contains(item, part)) : String(value).toLowerCase().includes(part);
}

function equals(value, other) {
  return Array.isArray(value)
    ? value.some((item) => equals(item, other))
    : String(value).toLowerCase() === other;
}
