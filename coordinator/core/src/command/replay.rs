//! `Replay`: re-runs steps of a run, to compare their bits with the record.

use std::collections::BTreeMap;

use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use super::resume::MadeOf;
use super::submit::parse;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::placement::DeviceKind;
use crate::state::{ClusterState, Measured, Replay, Restore, Run, Submission};

/// Creates a run that re-runs steps of another run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ReplayRun {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The original run, and the last step to re-run.
    pub replay: Replay,
    /// Starting point: a checkpoint of the original run, or the one that it was resumed from. `None`: where the original run started.
    pub checkpoint: Option<Digest>,
    /// The leader's copy of the original run, which may be archived.
    pub original: Box<Original>,
    /// 32 random bytes of the leader, as in [`super::Submit`].
    pub secret: [u8; 32],
}

/// Those properties of the original run that a replay needs.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Original {
    /// Job, code and data of the original run.
    pub made_of: MadeOf,
    /// Numerics that the original run measured; `None` if it never started. A replay must measure the same.
    pub measured: Option<BTreeMap<String, String>>,
    /// Numerics in the manifest of the checkpoint to start from; empty if the replay starts at step 0.
    pub restored: BTreeMap<String, String>,
    /// The checkpoint that the original run was resumed from.
    pub parent: Option<Digest>,
    /// Keys that were allowed to differ from that checkpoint.
    pub accepted: Vec<String>,
    /// Ids of the checkpoints that the original run wrote.
    pub checkpoints: Vec<Digest>,
    /// [`Run::last_step`] of the original run.
    pub last_step: u64,
    /// Kind of device that the original run was placed on.
    pub kind: Option<DeviceKind>,
}

impl Original {
    /// Copies the properties of `run`. `restored`: numerics of the checkpoint to start from.
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
            Some(id) => return Err(refused(format!("checkpoint `{}` belongs to another run", id.short()))),
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
