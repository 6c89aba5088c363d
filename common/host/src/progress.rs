//! Progress of this process, for its agent: a count that grows with every piece of work.
//!
//! The numbers are global, one set per process. Updates are single atomic operations, so every chunk of a file and every phase of a
//! step can count.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU8 = AtomicU8::new(0);
static WAITS: AtomicU32 = AtomicU32::new(0);

/// The present phase of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// It verifies data, builds the model and reads the checkpoint.
    Loading,
    /// It makes steps, evaluates and starts checkpoints.
    Training,
    /// It has made its last step.
    Ending,
}

impl Phase {
    /// The phase in messages about a hung process.
    pub fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Training => "training",
            Self::Ending => "ending",
        }
    }
}

/// A snapshot of the progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Number of pieces of work done.
    pub count: u64,
    /// The present phase.
    pub phase: Phase,
    /// Optimizer steps completed.
    pub step: u64,
    /// The process waits for other processes, the coordinator or a store, so a count that does not grow is not its fault.
    pub waits: bool,
}

/// Marks the process as waiting for others until it is dropped.
#[derive(Debug)]
pub struct Waits(());

/// Counts a piece of work.
pub fn advance() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// Enters `phase`, and counts that as a piece of work.
pub fn begin(phase: Phase) {
    PHASE.store(phase as u8, Ordering::Relaxed);
    advance();
}

/// Sets the number of completed steps, and counts that as a piece of work.
pub fn at_step(step: u64) {
    STEP.store(step, Ordering::Relaxed);
    advance();
}

/// Marks the process as waiting for others until the returned value is dropped.
pub fn waits() -> Waits {
    WAITS.fetch_add(1, Ordering::Relaxed);
    Waits(())
}

/// The present progress.
pub fn seen() -> Seen {
    let phase = match PHASE.load(Ordering::Relaxed) {
        0 => Phase::Loading,
        1 => Phase::Training,
        _ => Phase::Ending,
    };
    let (count, step) = (COUNT.load(Ordering::Relaxed), STEP.load(Ordering::Relaxed));
    Seen { count, phase, step, waits: WAITS.load(Ordering::Relaxed) > 0 }
}

impl Drop for Waits {
    fn drop(&mut self) {
        WAITS.fetch_sub(1, Ordering::Relaxed);
        advance();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_onlooker_sees_that_it_gets_on_and_whether_it_waits() {
        let before = seen();
        begin(Phase::Training);
        at_step(7);
        let now = seen();
        assert!(now.count > before.count && !now.waits);
        assert_eq!((now.phase.word(), now.step), ("training", 7));
        let (one, other) = (waits(), waits());
        drop(one);
        assert!(seen().waits);
        drop(other);
        assert!(!seen().waits && seen().count > now.count);
    }
}
