//! `Resume`: a checkpoint becomes the beginning of a new run.

use lockstep_common::manifest::{CodeVersion, DataFile, Manifest};
use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::dispatch::{Apply, MakesRun, Request};
use super::submit::{check_buildable, parse};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Restore, Run, Submission, accept};

/// A client starts a new run from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The checkpoint.
    pub checkpoint: Digest,
    /// What may differ from it, as `numerics.cpu.model`, or what stands before a dot in such a key.
    pub accepted: Vec<String>,
    /// Where the job's relative paths begin now; none: where they did.
    pub base_dir: Option<String>,
    /// Data that was accepted as it is now, in the place of files of the same path.
    pub data: Vec<DataFile>,
    /// Code that was accepted as it is now; none: the checkpoint's.
    pub code: Option<CodeVersion>,
    /// As in [`super::Submit`].
    pub secret: [u8; 32],
}

impl Apply for Resume {
    fn apply(&self, state: &mut ClusterState, index: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let manifest = self.with_accepted(state.decoded(&self.checkpoint)?)?;
        let job = parse(&manifest.job_text)?;
        let step = manifest.step;
        if step >= job.steps {
            return Err(Refusal::NothingLeft { checkpoint: self.checkpoint.short(), step });
        }
        check_buildable(&job, manifest.code.as_ref())?;
        let kind = state.run(&manifest.run).and_then(|run| run.state.kind);
        let submission = Submission {
            id: RunId::derive(index, &self.request),
            number: index,
            job: manifest.job_text,
            base_dir: manifest.base_dir,
            code: manifest.code,
            data: manifest.data,
            secret: self.secret,
            parent: Some(self.checkpoint),
            accepted: self.accepted.clone(),
            replay: None,
            created_at_ms: self.at_ms,
        };
        let mut run = Run::new(submission, job, Some(Restore { checkpoint: self.checkpoint, step }), kind);
        run.state.overrides = manifest.overrides;
        Ok(state.create(run))
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::Run(&self.request, self))
    }
}

impl MakesRun for Resume {
    fn asks_for(&self, _: &ClusterState, made: &Submission) -> bool {
        let from = made.replay.is_none() && made.parent == Some(self.checkpoint) && made.accepted == self.accepted;
        let code = self.code.is_none() || self.code == made.code;
        let base_dir = self.base_dir.as_ref().is_none_or(|base_dir| *base_dir == made.base_dir);
        from && code && base_dir && self.data.iter().all(|file| made.data.contains(file))
    }
}

impl Resume {
    /// The checkpoint's manifest with what was accepted in the place of what it had.
    fn with_accepted(&self, mut manifest: Manifest) -> Result<Manifest, Refusal> {
        let changed = accept::data(&mut manifest.data, &self.data).map_err(Refusal::NoData)?;
        accept::remember(&mut manifest.overrides, changed);
        if let Some(code) = &self.code {
            if !accept::accepts(&self.accepted, accept::CODE) {
                return Err(Refusal::Job("other code than the checkpoint's was not accepted".to_owned()));
            }
            let changed = accept::code(&mut manifest.code, code);
            accept::remember(&mut manifest.overrides, changed);
        }
        if let Some(base_dir) = &self.base_dir {
            manifest.base_dir.clone_from(base_dir);
        }
        Ok(manifest)
    }
}
