/** Differences between runs. Pure. */

import { flatten, parameters } from './filter.js';
import { number } from './format.js';

/** Maximum length of a name or value in a legend, in characters. */
const NAME = 18;
/** The compared parts of a run, in display order. */
const PARTS = ['job', 'code', 'data', 'environment', 'numerics', 'result'];

/** A run as `part → key → value`, where all values are text or numbers. `run`: as `/runs/{run}` returns it. */
export function described(run) {
  const { source, tree, ...code } = run.code ?? {};
  const number = (value) => value?.value ?? null;
  return {
    job: parameters(run.job),
    code: flatten({ ...code, changes: tree?.digest }),
    data: Object.fromEntries(run.data.map(({ path, digest }) => [path, digest])),
    environment: run.environment,
    numerics: run.numerics,
    result: {
      status: run.status, step: run.step, loss: number(run.loss), grad_norm: number(run.grad_norm), samples_per_second: run.samples_per_second,
      ranks: run.ranks, processes: run.processes, restarts: run.restarts, final_state_digest: run.final_state_digest,
    },
  };
}

/** `[{part, rows: [{key, values, differs}]}]` of described runs. `values[i]` belongs to run `i`; `differs`: whether not all are equal. */
export function table(all) {
  return PARTS.map((part) => {
    const keys = [...new Set(all.flatMap((own) => Object.keys(own[part])))].sort();
    const rows = keys.map((key) => {
      const values = all.map((own) => own[part][key] ?? null);
      return { key, values, differs: values.some((value) => value !== values[0]) };
    });
    return { part, rows };
  });
}

/**
 * Axes for parallel coordinates: the differing keys of the jobs, and the final loss:
 * `[{key, values, at: [0..1 or null], ends: [low, high]}]`. Numbers are placed linearly, or logarithmically if they span more than two
 * powers of ten; texts are placed evenly in alphabetical order.
 */
export function axes(all) {
  const several = (values) => new Set(values.filter((value) => value !== null)).size > 1;
  const job = table(all)[0].rows.filter(({ key, values }) => several(values) && key !== 'name');
  const loss = { key: 'loss', values: all.map((own) => own.result.loss) };
  return [...job, loss].map(({ key, values }) => {
    const known = values.filter((value) => value !== null);
    if (known.length > 0 && known.every((value) => typeof value === 'number')) {
      const [min, max] = [Math.min(...known), Math.max(...known)];
      const on = min > 0 && max / min > 100 ? Math.log : (value) => value;
      const share = (value) => (max === min ? 0.5 : (on(value) - on(min)) / (on(max) - on(min)));
      return { key, values, ends: [min, max], at: values.map((value) => (value === null ? null : share(value))) };
    }
    const order = [...new Set(known.map(String))].sort();
    const share = (value) => (order.length === 1 ? 0.5 : order.indexOf(String(value)) / (order.length - 1));
    return { key, values, ends: [order[0] ?? '', order[order.length - 1] ?? ''], at: values.map((value) => (value === null ? null : share(value))) };
  });
}

/**
 * Labels of `runs` in a legend (`all`: the same runs, described). If the runs differ in exactly one key of the job other than the name,
 * the value of that key; otherwise name and id.
 */
export function labels(runs, all) {
  const cut = (text) => (text.length > NAME ? `${text.slice(0, NAME)}…` : text);
  const told = (value) => cut(typeof value === 'number' ? number(value) : String(value));
  const rows = runs.length > 1 ? table(all)[0].rows.filter(({ differs }) => differs) : [];
  const [row] = rows;
  if (rows.length === 1 && row.key !== 'name' && new Set(row.values.map(told)).size === runs.length) {
    return row.values.map((value) => `${row.key.split('.').pop()} ${told(value)}`);
  }
  return runs.map(({ name, run }) => `${cut(name)} ${run.slice(0, 4)}`);
}
