//! A started process: its progress, and why its agent stopped it.

use std::time::{Duration, Instant};

use lockstep_rpc::{Alive, Assignment, ExitCause};
use tracing::warn;

use crate::child::Child;
use crate::child::ProcessKey;

/// A process that was started and has not ended yet.
pub(super) struct Running {
    pub(super) child: Child,
    /// Its assignment, which it gets when it connects.
    pub(super) assignment: Assignment,
    /// Why its agent stopped it; `Unnamed` if it did not.
    pub(super) stopped: ExitCause,
    /// Description of its hang, if it was stopped because it made no progress.
    pub(super) hung: Option<String>,
    /// Its last reported progress.
    reported: Alive,
    /// Time of the last report of new progress, or of a wait for other processes.
    progressed: Instant,
}

impl Running {
    pub(super) fn new(child: Child, assignment: Assignment) -> Self {
        let (stopped, reported, progressed) = (ExitCause::Unnamed, Alive::default(), Instant::now());
        Self { child, assignment, stopped, hung: None, reported, progressed }
    }

    /// Stops it: SIGTERM, and SIGKILL after the grace period.
    pub(super) fn stop(&mut self, cause: ExitCause) {
        self.child.stop();
        self.stopped = cause;
    }

    /// Takes a report of its progress.
    pub(super) fn report_progress(&mut self, reported: Alive) {
        if reported.waits || reported != self.reported {
            self.restart_limit();
        }
        self.reported = reported;
    }

    /// Restarts the progress limit.
    pub(super) fn restart_limit(&mut self) {
        self.progressed = Instant::now();
    }

    /// Stops it if it made no progress for `limit` and does not wait for other processes.
    pub(super) fn end_if_hung(&mut self, key: &ProcessKey, limit: Duration) {
        if self.hung.is_some() || self.progressed.elapsed() < limit {
            return;
        }
        let Alive { phase, step, .. } = &self.reported;
        let phase = if phase.is_empty() { "starting" } else { phase };
        let hung = format!(
            "it made no progress for {} s (`progress_limit_s`) while {phase}, after step {step}; its last output has the stack",
            limit.as_secs()
        );
        warn!("stopping {key}: {hung}");
        self.hung = Some(hung);
        self.child.end_hung();
    }
}
