/** The phases of a step: their order and their colours. Pure. */

/** From the bottom of a stack up. */
export const PHASES = ['data', 'forward', 'backward', 'reduction', 'optimizer', 'record', 'checkpoint', 'evaluation', 'other'];

/** The place of the phase `name` in a stack; unknown ones come last. */
export function placeOf(name) {
  return PHASES.includes(name) ? PHASES.indexOf(name) : PHASES.length;
}

/** The colour of the phase `name`: the same one in every chart. A palette has one fewer than there are phases, so the rest is grey. */
export function colourOf(name, { series, dim }) {
  return placeOf(name) < PHASES.length - 1 ? series[placeOf(name)] : dim;
}
