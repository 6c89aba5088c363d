//! A process that was started, and why its agent stopped it.

use std::time::{Duration, Instant};

use lockstep_rpc::{Alive, Assignment, ExitCause};
use tracing::warn;

use crate::child::Child;
use crate::child::ProcessKey;

/// See the module.
pub(super) struct Running {
    pub(super) child: Child,
    /// What it should do.
    pub(super) assignment: Assignment,
    /// Why its agent has stopped it, if it has.
    pub(super) stopped: ExitCause,
    /// Its phase when it was ended because it made no progress.
    pub(super) hung: Option<String>,
    /// Its progress, as it reported last.
    reported: Alive,
    /// When it last reported something new, or that it waits for others.
    progressed: Instant,
}

impl Running {
    pub(super) fn new(child: Child, assignment: Assignment) -> Self {
        let (stopped, reported, progressed) = (ExitCause::Unnamed, Alive::default(), Instant::now());
        Self { child, assignment, stopped, hung: None, reported, progressed }
    }

    /// Asks it to end: SIGTERM, and SIGKILL after the grace.
    pub(super) fn stop(&mut self, cause: ExitCause) {
        self.child.stop();
        self.stopped = cause;
    }

    /// It reports its progress.
    pub(super) fn report_progress(&mut self, reported: Alive) {
        if reported.waits || reported != self.reported {
            self.restart_limit();
        }
        self.reported = reported;
    }

    /// Counts the limit of progress from now.
    pub(super) fn restart_limit(&mut self) {
        self.progressed = Instant::now();
    }

    /// Ends it if it made no progress for `limit` and does not wait for others.
    pub(super) fn end_if_hung(&mut self, key: &ProcessKey, limit: Duration) {
        if self.hung.is_some() || self.progressed.elapsed() < limit {
            return;
        }
        let Alive { phase, step, .. } = &self.reported;
        let phase = if phase.is_empty() { "starting" } else { phase };
        let hung = format!(
            "it made no progress for {} s (`progress_limit_s`) while {phase}, after step {step}; its last output says where it stood",
            limit.as_secs()
        );
        warn!("{key} hangs: {hung}");
        self.hung = Some(hung);
        self.child.end_hung();
    }
}
