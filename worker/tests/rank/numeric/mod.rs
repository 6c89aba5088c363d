//! What decides the bits of a process: switches, operators, the floating-point mode.

mod float_mode;
mod numerics;
mod operators;
