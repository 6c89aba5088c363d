/** The phases of a step: order and colours. Pure. */

/** In the order of a stack, from bottom to top. */
export const PHASES = ['data', 'forward', 'backward', 'reduction', 'optimizer', 'record', 'checkpoint', 'evaluation', 'other'];

/** Index of the phase `name` in a stack. Unknown phases come last. */
export function placeOf(name) {
  return PHASES.includes(name) ? PHASES.indexOf(name) : PHASES.length;
}

/** The colour of the phase `name`, the same in every chart. The palette has one colour less than there are phases, so the last is grey. */
export function colourOf(name, { series, dim }) {
  return placeOf(name) < PHASES.length - 1 ? series[placeOf(name)] : dim;
}
