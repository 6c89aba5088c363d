//! Golden vectors by operator, at level `portable`: a machine that computes other bits names the operators that differ, and
//! not only the model.
//!
//! `worker --operators` computes them and compares them with `golden/operators-portable.txt`.

mod compare;
mod inputs;
mod list;

pub use compare::{OperatorsError, compare, environment};
