//! The last checkpoint of a run. It is part of the run, so a failed attempt is retried while the state is in memory, until the checkpoint
//! is committed.
//!
//! ```text
//!  written ─ share reported ─> the coordinator opens its blobs ─> committed: the process may report `Finished`
//!     ^                                      └─ rejected ─┐
//!     └───────────── retry, after a pause, into new files ─┴─ not written
//! ```

use std::time::{Duration, Instant};

use lockstep_host::progress;
use lockstep_rpc::Save;
use tracing::{error, info, warn};

use super::Writer;

/// Pause before the second attempt; each further pause is twice as long.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
/// Upper limit of the pause.
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// A source of the coordinator's verdicts on the last checkpoint.
pub trait Verdicts {
    /// The next verdict, if one arrives within `patience`; without `patience` it waits until one arrives.
    fn next(&self, patience: Option<Duration>) -> Option<Save>;
}

/// How the last checkpoint is saved.
pub struct Saving<'a> {
    verdicts: &'a dyn Verdicts,
    limit: Duration,
}

impl<'a> Saving<'a> {
    /// With the coordinator's `verdicts`; failed attempts are retried for `limit` after the first failure.
    pub fn new(verdicts: &'a dyn Verdicts, limit: Duration) -> Self {
        Self { verdicts, limit }
    }

    /// Returns when the checkpoint at `step`, the last step of the run, is committed or given up.
    pub(crate) fn finish(&self, writer: &mut Writer, step: u64) {
        // This process now waits for the store and the coordinator, for at most `limit`.
        let _waits = progress::waits();
        if writer.last_step() != Some(step) {
            // This process began at the last step: an earlier process has saved the checkpoint.
            return;
        }
        let Some(mut written) = writer.wait_written() else { return };
        let (mut attempt, mut pause, mut failing_since) = (0, FIRST_PAUSE, None);
        loop {
            if written {
                let save = self.until(None, |save| save.committed || save.given_up || save.attempt > attempt);
                match save {
                    Some(Save { committed: false, given_up: false, attempt: rejected }) => attempt = rejected,
                    Some(_) | None => return,
                }
            }
            if writer.changed().is_some() {
                // A data file changed during training: the run ends without this checkpoint, and its reason names the file.
                return;
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            let left = self.limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                error!(
                    step,
                    "giving up the last checkpoint: it could not be saved within {:?} (`save_limit_s`)", self.limit
                );
                return;
            }
            let wait = pause.min(left);
            warn!(step, "the last checkpoint is not saved; retrying in {wait:?}, for the last time in {left:?}");
            if self.until(Some(wait), |save| save.committed || save.given_up).is_some() {
                return;
            }
            pause = (pause * 2).min(LONGEST_PAUSE);
            match writer.again() {
                Some(again) => written = again,
                None => return,
            }
            if written {
                info!(step, "the last checkpoint is written");
            }
        }
    }

    /// The first verdict that `fits`; `None` if none arrives within `patience`.
    fn until(&self, patience: Option<Duration>, fits: impl Fn(&Save) -> bool) -> Option<Save> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            let save = self.verdicts.next(left)?;
            if fits(&save) {
                return Some(save);
            }
        }
    }
}
