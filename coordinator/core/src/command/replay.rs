//! `Replay`: repeats a part of a run, to compare the bits.

use std::collections::BTreeMap;

use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::dispatch::{Apply, MakesRun, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Restore, Run, Submission};

/// A client repeats a part of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRun {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// What is repeated.
    pub replay: Replay,
    /// Where to begin: a checkpoint of the run, or the one that it was resumed from; `None`: where the run began.
    pub checkpoint: Option<Digest>,
    /// What the checkpoint to begin from has, whether it is named or not, by its manifest; empty if the run began at step 0.
    pub numerics: BTreeMap<String, String>,
    /// As in [`super::Submit`].
    pub secret: [u8; 32],
}

/// A part of a run, to be made again and compared with what was recorded. Such a run makes no checkpoints.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Replay {
    /// The run that is repeated.
    pub of: RunId,
    /// Steps completed at the end.
    pub until: u64,
    /// Steps between fingerprints, in place of the job's; 0: none.
    pub fingerprints_every: u64,
}

impl Apply for ReplayRun {
    fn apply(&self, state: &mut ClusterState, index: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let Replay { of, until, .. } = &self.replay;
        let run = state.run(of).ok_or_else(|| Refusal::NoRun(of.to_string()))?;
        let refused = |reason: String| Refusal::Replay { run: of.clone(), reason };
        let parent = run.submission.parent;
        let begin = self.checkpoint.or(parent);
        let restore = match begin {
            None => None,
            Some(id) if Some(id) == parent || run.checkpoints.values().any(|made| made.id == id) => {
                Some(Restore::from(state.checkpoint(&id)?.1))
            }
            Some(id) => return Err(refused(format!("checkpoint `{}` is none of its own", id.short()))),
        };
        let step = restore.as_ref().map_or(0, |restore| restore.step);
        let last = run.last_step();
        if *until <= step || *until > last {
            return Err(refused(format!("step {until} is not between {} and {last}", step + 1)));
        }
        let submission = Submission {
            id: RunId::derive(index, &self.request),
            number: index,
            secret: self.secret,
            parent: begin,
            replay: Some(self.replay.clone()),
            created_at_ms: self.at_ms,
            ..run.submission.clone()
        };
        let mut replay = Run::new(submission, run.job.clone());
        (replay.state.restore, replay.state.kind) = (restore, run.state.kind);
        replay.state.measured.restored.clone_from(&self.numerics);
        Ok(state.create(replay))
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::Run(&self.request, self))
    }
}

impl MakesRun for ReplayRun {
    fn asks_for(&self, state: &ClusterState, made: &Submission) -> bool {
        let begin = || state.run(&self.replay.of).and_then(|run| run.submission.parent);
        made.replay.as_ref() == Some(&self.replay) && made.parent == self.checkpoint.or_else(begin)
    }
}
