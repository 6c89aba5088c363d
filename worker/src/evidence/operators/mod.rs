//! Golden bits of single operators at level `portable`. On a machine that computes other bits they show which operators differ.
//!
//! `worker --operators` computes them and compares them with `golden/operators-portable.txt`.

mod compare;
mod inputs;
mod list;

pub use compare::{OperatorsError, compare, environment};
