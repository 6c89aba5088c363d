//! Whether this process gets on with its work, for an onlooker: a count that grows with every part of it.
//!
//! The process is one, and so are these numbers. Cheap enough for each chunk of a file and each part of a step.

use std::sync::atomic::{AtomicU8, AtomicU32, AtomicU64, Ordering};

static COUNT: AtomicU64 = AtomicU64::new(0);
static STEP: AtomicU64 = AtomicU64::new(0);
static PHASE: AtomicU8 = AtomicU8::new(0);
static WAITS: AtomicU32 = AtomicU32::new(0);

/// What a process is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Its data is verified, its model built, its checkpoint read.
    Loading,
    /// It makes steps, evaluates and begins checkpoints.
    Training,
    /// Its last step is made.
    Ending,
}

impl Phase {
    /// As the agent's reason for a hung process writes it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Loading => "loading",
            Self::Training => "training",
            Self::Ending => "ending",
        }
    }
}

/// What an onlooker sees.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Grows with every part of the work.
    pub count: u64,
    /// What it is about.
    pub phase: Phase,
    /// Steps completed.
    pub step: u64,
    /// It waits for others (processes, the coordinator, a store): that it does not get on is not its fault.
    pub waits: bool,
}

/// It waits for others for as long as this lives.
#[derive(Debug)]
pub struct Waits(());

/// A part of the work is done.
pub fn advance() {
    COUNT.fetch_add(1, Ordering::Relaxed);
}

/// The process turns to `phase`.
pub fn begin(phase: Phase) {
    PHASE.store(phase as u8, Ordering::Relaxed);
    advance();
}

/// So many steps are completed.
pub fn at_step(step: u64) {
    STEP.store(step, Ordering::Relaxed);
    advance();
}

/// The process waits for others, until the value is dropped.
pub fn waits() -> Waits {
    WAITS.fetch_add(1, Ordering::Relaxed);
    Waits(())
}

/// As it is now.
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
