//! The rank process of Lockstep: the training loop, its exchange and reduction, its checkpoints, its reports; and
//! [`program`], by which users bring programs of their own.
//!
//! ```text
//!  life           the process, from its command line to its exit code ── agent
//!   step          one optimizer step after another
//!    program      what is trained, and on what
//!    evidence     whether processes, runs and machines compute the same bits
//!     checkpoint  the state, written and read ── blob store
//!      observe    what is measured and reported
//!       reduce    from all ranks' gradients to their mean ── other processes
//! ```
//!
//! Each folder uses only those below it; but `program` has the `main` of programs, which begins in `life`. The agent is a
//! crate of its own without libtorch; [`local`] runs the same loop without any agent.

pub mod checkpoint;
pub mod evidence;
pub mod life;
pub mod observe;
pub mod program;
pub mod reduce;
pub mod step;

pub use life::local;
