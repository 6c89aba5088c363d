//! The rank process of Lockstep: training loop, exchange, reduction, checkpoints and reports. [`program`] is the interface for users'
//! own training programs.
//!
//! ```text
//!  life           the process, from its command line to its exit code ── agent
//!   step          the training loop
//!    program      model and data of a run
//!    evidence     fingerprints: do processes, runs and machines compute the same bits?
//!     checkpoint  the state, written and read ── blob store
//!      observe    measurements and reports
//!       reduce    from the gradients of all ranks to their mean ── other processes
//! ```
//!
//! Each module uses only the modules below it, with one exception: `program` exports the `main` function of training programs, which is
//! defined in `life`. The agent is a separate crate (`lockstep-agent`) without libtorch. [`local`] runs the training loop without an agent.

pub mod checkpoint;
pub mod evidence;
pub mod life;
pub mod observe;
pub mod program;
pub mod reduce;
pub mod step;

pub use life::local;
