//! `Replay`: repeats a part of a run, to compare the bits.

use std::collections::BTreeMap;

use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use super::resume::MadeOf;
use super::submit::parse;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::placement::DeviceKind;
use crate::state::{ClusterState, Measured, Replay, Restore, Run, Submission};

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
    /// The run that is repeated, which may be in the archive, as the leader found it.
    pub original: Box<Original>,
    /// As in [`super::Submit`].
    pub secret: [u8; 32],
}

/// What a replay needs of the run that it repeats.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Original {
    /// What it was made of.
    pub made_of: MadeOf,
    /// What it measured, if it has begun; a replay must measure the same.
    pub measured: Option<BTreeMap<String, String>>,
    /// What the checkpoint to begin from has, whether it is named or not, by its manifest; empty if the run began at step 0.
    pub restored: BTreeMap<String, String>,
    /// The checkpoint that it was resumed from.
    pub parent: Option<Digest>,
    /// What could differ from that checkpoint.
    pub accepted: Vec<String>,
    /// Ids of the checkpoints that it wrote.
    pub checkpoints: Vec<Digest>,
    /// Steps that it completed.
    pub last_step: u64,
    /// What it trained on.
    pub kind: Option<DeviceKind>,
}

impl Original {
    /// As `run` is; `restored`: what the checkpoint to begin from has.
    pub fn of(run: &Run, restored: BTreeMap<String, String>) -> Self {
        let Submission { job, base_dir, code, data, parent, accepted, .. } = run.submission.clone();
        let measured = run.state.measured.clone();
        let overrides = measured.overrides;
        Self {
            made_of: MadeOf { job, base_dir, code, data, numerics: BTreeMap::new(), overrides },
            measured: measured.numerics.map(|measured| measured.values),
            restored,
            parent,
            accepted,
            checkpoints: run.checkpoints.values().map(|made| made.id).collect(),
            last_step: run.last_step(),
            kind: run.state.kind,
        }
    }
}

impl Apply for ReplayRun {
    fn apply(&self, state: &mut ClusterState, index: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let Replay { of, until, .. } = &self.replay;
        if state.run(of).is_none() && state.archived(of).is_none() {
            return Err(Refusal::NoRun(of.to_string()));
        }
        let refused = |reason: String| Refusal::Replay { run: of.clone(), reason };
        let Original { made_of, measured, restored, parent, accepted, checkpoints, last_step, kind } = &*self.original;
        let begin = self.checkpoint.or(*parent);
        let restore = match begin {
            None => None,
            Some(id) if Some(id) == *parent || checkpoints.contains(&id) => {
                Some(Restore::from(state.checkpoint(&id)?.1))
            }
            Some(id) => return Err(refused(format!("checkpoint `{}` is none of its own", id.short()))),
        };
        let step = restore.as_ref().map_or(0, |restore| restore.step);
        if *until <= step || *until > *last_step {
            return Err(refused(format!("step {until} is not between {} and {last_step}", step + 1)));
        }
        let MadeOf { job, base_dir, code, data, .. } = made_of.clone();
        let parsed = parse(&job)?;
        let submission = Submission {
            id: RunId::derive(index, &self.request),
            number: index,
            job,
            base_dir,
            code,
            data,
            secret: self.secret,
            parent: begin,
            accepted: accepted.clone(),
            replay: Some(self.replay.clone()),
            created_at_ms: self.at_ms,
        };
        let mut replay = Run::new(submission, parsed);
        (replay.state.restore, replay.state.kind) = (restore, *kind);
        let measured = measured.clone();
        replay.state.measured = Measured { restored: restored.clone(), original: measured, ..Measured::default() };
        Ok(state.create(replay))
    }

    fn request(&self) -> Option<Request<'_>> {
        let asked = Self { at_ms: 0, secret: [0; 32], original: Box::default(), ..self.clone() };
        Some(Request::run(&self.request, "Replay", &asked))
    }
}
