/**
 * The filter of the runs table: words and conditions, all of which must hold.
 *
 *     gpt status:running lr>=1e-3 -tags:old reason:"lost node"
 *
 * A bare word is looked for in name, id, status, tags and reason. `:` means "contains", or "equals" for numbers; `-` before a
 * term turns it round. Pure.
 */

const TERM = /(-?)(?:([A-Za-z_][\w./-]*?)(>=|<=|!=|=|>|<|:))?("([^"]*)"?|[^\s]+)/g;

/** The fields that a bare word is looked for in. */
const TEXT_FIELDS = ['name', 'run', 'status', 'tags', 'reason'];

/** The terms of `text`, in order. */
export function parse(text) {
  const terms = [];
  for (const [, minus, field, op, word, quoted] of text.matchAll(TERM)) {
    const value = quoted ?? word;
    if (value === '' && !field) continue;
    terms.push({ negate: minus === '-', field: field ?? null, op: op ?? null, value: value.toLowerCase() });
  }
  return terms;
}

/** The fields that conditions name. */
export function fields(terms) {
  return terms.filter((term) => term.field).map((term) => term.field);
}

/** Whether all terms hold, where `get(field)` is the value of a field, or undefined. */
export function matches(terms, get) {
  return terms.every((term) => holds(term, get) !== term.negate);
}

/**
 * The value at `path` of a run: of its row, else of its job (`params`: dotted path to value). `lr` finds `optimizer.lr`: the
 * shortest path of the job that ends so.
 */
export function lookup(row, params, path) {
  if (path === 'status' || path in row) return plain(row[path]);
  if (!params) return undefined;
  if (path in params) return params[path];
  const ends = Object.keys(params).filter((key) => key.endsWith(`.${path}`));
  ends.sort((a, b) => a.length - b.length || (a < b ? -1 : 1));
  return ends.length > 0 ? params[ends[0]] : undefined;
}

/** A nested value as dotted paths to leaves. Lists of plain values are one leaf; longer ones go in by index. */
export function flatten(value, prefix = '', out = {}) {
  const leaf = value === null || typeof value !== 'object';
  if (leaf || (Array.isArray(value) && value.every((item) => item === null || typeof item !== 'object'))) {
    out[prefix] = leaf ? value : value.map(String).join(', ');
    return out;
  }
  for (const [key, item] of Object.entries(value)) flatten(item, prefix ? `${prefix}.${key}` : key, out);
  return out;
}

/** The parameters of a job by dotted path. Whole numbers that a JavaScript number would round stay text. */
export function parameters(job) {
  const tokens = /"(?:[^"\\]|\\.)*"|(?<![\d.eE+-])-?\d{16,}(?![\d.eE])/g;
  const exact = (token) => (token.startsWith('"') || Number.isSafeInteger(Number(token)) ? token : `"${token}"`);
  return flatten(JSON.parse(job.replaceAll(tokens, exact)));
}

/** A row's number without its bits. */
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
