/** Checkpoints of a run, its ancestors, the runs resumed from it, and its replays. */

import { get } from './api.js';
import { digest, facts, fill, h, table } from './dom.js';
import { bytes, clock, grouped } from './format.js';
import * as live from './live.js';
import { TOGETHER, newestFirst } from './pages.js';
import { runLink } from './overview.js';
import { status } from './runs.js';

/** Maximum number of ancestors. */
const DEPTH = 20;

/** Creates the tab. */
export async function checkpoints({ run }, signal) {
  const rows = await live.runs();
  const ancestors = h('ol', { class: 'lineage' }, h('li', { class: 'dim' }, 'loading…'));
  ancestry(run, rows, signal).then((items) => fill(ancestors, items), (error) => signal.aborted || fill(ancestors, h('li', null, error.message)));
  const [made, repeated, missing] = [h('div'), h('div'), h('div')];
  const draw = () => {
    fill(made, list(run, rows));
    fill(repeated, verified(run, rows));
  };
  draw();
  sinceThen(run, missing, draw, signal);
  return {
    element: h('div', null,
      h('section', null, h('h3', null, 'ancestors'), ancestors),
      h('section', null, h('h3', null, 'checkpoints'), made),
      h('section', null, h('h3', null, 'replays'), repeated),
      missing, troubles(run)),
    end: () => {},
  };
}

/** Loads the runs since `run`, some pages at a time, because only they can be resumed from it. `missing` says if some are not loaded. */
async function sinceThen(run, missing, draw, signal) {
  let words = '';
  try {
    for (let pages = 0; pages < TOGETHER && !live.reaches(run.number) && !signal.aborted; pages += 1) {
      await live.more();
      draw();
    }
  } catch (error) {
    words = ` (${error.message})`;
  }
  if (signal.aborted) return;
  const further = h('button', { type: 'button', onclick: () => {
    further.disabled = true;
    sinceThen(run, missing, draw, signal);
  } }, 'load older runs');
  fill(missing, !live.reaches(run.number) && h('p', { class: 'dim' },
    `not all later runs are loaded, so runs that resume or replay this one may be missing here${words} `, further));
}

/** The chain of ancestor checkpoints and their runs, oldest first. */
async function ancestry(run, rows, signal) {
  const chain = [h('li', null, h('strong', null, `${run.name} `), h('code', null, run.run), run.restored_from && run.restored_from !== run.parent
    && [' the current generation started from ', digest(run.restored_from)])];
  let id = run.parent;
  for (let depth = 0; id && depth < DEPTH; depth += 1) {
    const manifest = await get(`checkpoints/${id}`, signal);
    chain.unshift(h('li', null, runLink(manifest.run, rows), ` at step ${grouped(manifest.step)}, checkpoint `, digest(id)));
    id = manifest.parent;
  }
  if (run.replay_of) chain.unshift(h('li', null, 'a replay of ', runLink(run.replay_of, rows)));
  if (run.overrides.length > 0) {
    chain.push(h('li', null, 'accepted differences:', table(['key', 'before', 'now'],
      run.overrides.map(({ key, was, now }) => [h('code', null, key), was, now]), { class: 'plain' })));
  }
  return chain;
}

function list(run, rows) {
  if (run.checkpoints.length === 0) return h('p', { class: 'dim' }, 'no checkpoints yet');
  const children = newestFirst(rows.values()).reverse().filter(({ parent }) => parent);
  const open = (id) => {
    const body = h('div');
    const details = h('details', { ontoggle: () => {
      if (details.open && !body.firstChild) manifest(id, body);
    } }, h('summary', null, 'manifest'), body);
    return details;
  };
  const line = ({ id, step, epoch, committed_at_ms, state_digest }) => [
    { text: grouped(step), class: 'number' }, { text: grouped(epoch), class: 'number' }, clock(committed_at_ms), digest(id), digest(state_digest),
    children.filter(({ parent }) => parent === id).map((child) => h('div', null, runLink(child.run, rows))), open(id),
  ];
  return table(['step', 'epoch', 'committed', 'checkpoint', 'state', 'resumed as', ''], [...run.checkpoints].reverse().map(line), { class: 'plain' });
}

async function manifest(id, body) {
  fill(body, 'loading…');
  try {
    const found = await get(`checkpoints/${id}`);
    const size = found.tensors.flatMap(({ pieces }) => pieces).reduce((sum, piece) => sum + piece.bytes, 0);
    fill(body, facts([
      ['id', digest(id, 64)], ['format', found.format], ['tensors', `${found.tensors.length}, ${bytes(size)}`], ['ranks', found.ranks.length],
      ['recorded steps', grouped(found.record?.steps)], ['digest of the record', digest(found.record?.digest)], ['state', digest(found.state, 64)],
    ]), table(['tensor', 'type', 'shape', 'bytes'], found.tensors.map(({ name, dtype, shape, pieces }) => [
      h('code', null, name), dtype, shape.join(' × '), { text: bytes(pieces.reduce((sum, piece) => sum + piece.bytes, 0)), class: 'number' },
    ]), { class: 'plain' }), h('a', { href: `/api/checkpoints/${id}` }, 'complete manifest (JSON)'));
  } catch (error) {
    fill(body, error.message);
  }
}

/** Replays of the run, and whether their states equal the run's. */
function verified(run, rows) {
  const replays = newestFirst(rows.values()).reverse().filter(({ replay_of }) => replay_of === run.run);
  const own = facts([['final state', digest(run.final_state_digest, 64)]]);
  if (replays.length === 0) return [own, h('p', { class: 'dim' }, 'no replays: run ', h('code', null, `coord verify ${run.run}`), ' to re-run all steps and compare every bit with the record')];
  const verdict = (replay) => {
    if (!replay.final_state_digest) return status(replay);
    const known = replay.step === run.step ? run.final_state_digest : run.checkpoints.find(({ step }) => step === replay.step)?.state_digest;
    if (!known) return 'the run has no state digest at that step';
    const equal = known === replay.final_state_digest;
    return h('strong', { class: equal ? 'good' : 'bad' }, equal ? '✓ states are equal' : '✗ states differ');
  };
  return [own, table(['replay', 'to step', 'created', 'result'], replays.map((replay) => [
    runLink(replay.run, rows), { text: grouped(replay.step), class: 'number' }, clock(replay.created_at_ms), verdict(replay),
  ]), { class: 'plain' })];
}

/** Tables of failed checkpoints and of diverged processes. */
function troubles(run) {
  const failed = run.failed_checkpoints.map(({ step, generation, reason, at_ms }) => [
    { text: grouped(step), class: 'number' }, { text: String(generation), class: 'number' }, clock(at_ms), reason,
  ]);
  const corrupt = run.corruptions.map((found) => {
    const wrong = found.verdict?.wrong.map((index) => `${found.claims[index]?.node} ${found.claims[index]?.device_name}`);
    const said = !found.verdict ? 'not known yet' : wrong.length > 0 ? `${wrong.join(', ')} (${found.verdict.grounds})` : 'none';
    return [{ text: grouped(found.step), class: 'number' }, { text: grouped(found.agreed), class: 'number' }, clock(found.at_ms), found.tensors.join(', '), said];
  });
  return [
    failed.length > 0 && h('section', null, h('h3', null, 'failed checkpoints'), table(['step', 'generation', 'when', 'reason'], failed, { class: 'plain' })),
    corrupt.length > 0 && h('section', null, h('h3', null, 'silent corruption'),
      table(['found at step', 'last agreed at step', 'when', 'first tensors', 'wrong devices'], corrupt, { class: 'plain' })),
  ];
}
