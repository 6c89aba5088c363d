//! Whether processes compute the same bits: switches, operators, the float mode.

mod float_mode;
mod numerics;
mod operators;
