//! The rank process of Lockstep: the training loop, its exchange and reduction, its checkpoints, its reports; and
//! [`program`], by which users bring programs of their own.
//!
//! ```text
//!  agent ── life ── program       what is trained, and on what
//!            └── step             one optimizer step after another
//!                 ├── evidence    that all processes, and all runs, compute the same bits
//!                 ├── checkpoint  the state, written and read ── blob store
//!                 ├── observe     what is measured and reported ── agent
//!                 └── reduce      gradients become their mean ── other processes
//! ```
//!
//! Each room uses those below it. The agent is a crate of its own without libtorch; [`local`] runs the same loop without
//! any agent.

pub mod checkpoint;
pub mod evidence;
pub mod life;
pub mod observe;
pub mod program;
pub mod reduce;
pub mod step;

pub use life::local;
