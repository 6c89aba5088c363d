//! The last checkpoint of a run is part of the run: it is written again while the state is in memory, until it is committed.
//!
//! ```text
//!  written ─ share said ─> the coordinator opens its blobs ─> committed: the process may say that it has finished
//!     ^                                  └─ rejected ─┐
//!     └──────── again, after a pause, into new files ─┴─ not written
//! ```

use std::time::{Duration, Instant};

use lockstep_host::progress;
use lockstep_rpc::Save;
use tracing::{error, info, warn};

use super::Writer;

/// Pauses between attempts: the first, and the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_mins(1);

/// Who tells what became of the last checkpoint.
pub trait Verdicts {
    /// What the coordinator says of it, if it says something new within `patience`; without one it is waited for.
    fn next(&self, patience: Option<Duration>) -> Option<Save>;
}

/// How the last checkpoint is saved.
pub struct Saving<'a> {
    verdicts: &'a dyn Verdicts,
    limit: Duration,
}

impl<'a> Saving<'a> {
    /// As `verdicts` tell, and tried again for `limit` from the first failure on.
    pub fn new(verdicts: &'a dyn Verdicts, limit: Duration) -> Self {
        Self { verdicts, limit }
    }

    /// Returns when the checkpoint at `step`, the run's last, is committed or given up.
    pub(crate) fn finish(&self, writer: &mut Writer, step: u64) {
        // For the store and the coordinator; `limit` bounds it.
        let _waits = progress::waits();
        if writer.last_step() != Some(step) {
            // This process began where the run ends: an earlier one has saved it.
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
                // A data file is not what was trained on: the run ends without this checkpoint, and says which file.
                return;
            }
            let since = *failing_since.get_or_insert_with(Instant::now);
            let left = self.limit.saturating_sub(since.elapsed());
            if left.is_zero() {
                error!(step, "the last checkpoint could not be saved within {:?}: given up", self.limit);
                return;
            }
            let wait = pause.min(left);
            warn!(step, "the last checkpoint is not saved; the next attempt is in {wait:?}, the last one in {left:?}");
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

    /// The first word that `fits`, or none within `patience`.
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
