//! `Resume`: a checkpoint becomes the beginning of a new run.

use std::collections::BTreeMap;

use lockstep_common::manifest::{CodeVersion, DataFile, Manifest, Override};
use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use super::submit::{check_buildable, parse};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Measured, Restore, Run, Submission, accept};

/// A client starts a new run from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The checkpoint.
    pub checkpoint: Digest,
    /// What its manifest says, which the leader has read.
    pub made_of: Box<MadeOf>,
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

/// What a checkpoint was made of, as its manifest says: a new run begins with it.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MadeOf {
    /// The job in canonical form.
    pub job: String,
    /// Where the job's relative paths begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The files that it trains on, with their digests.
    pub data: Vec<DataFile>,
    /// What is known to change bits.
    pub numerics: BTreeMap<String, String>,
    /// What was otherwise than in a checkpoint that it comes from, and was accepted.
    pub overrides: Vec<Override>,
}

impl From<Manifest> for MadeOf {
    fn from(manifest: Manifest) -> Self {
        let Manifest { job_text: job, base_dir, code, data, numerics, overrides, .. } = manifest;
        Self { job, base_dir, code, data, numerics, overrides }
    }
}

impl Apply for Resume {
    fn apply(&self, state: &mut ClusterState, index: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let (kind, made) = state.checkpoint(&self.checkpoint)?;
        let restore = Restore::from(made);
        let MadeOf { job: text, base_dir, code, data, numerics, overrides } = self.with_accepted()?;
        let job = parse(&text)?;
        if restore.step >= job.steps {
            return Err(Refusal::NothingLeft { checkpoint: self.checkpoint.short(), step: restore.step });
        }
        check_buildable(&job, code.as_ref())?;
        let submission = Submission {
            id: RunId::derive(index, &self.request),
            number: index,
            job: text,
            base_dir,
            code,
            data,
            secret: self.secret,
            parent: Some(self.checkpoint),
            accepted: self.accepted.clone(),
            replay: None,
            created_at_ms: self.at_ms,
        };
        let mut run = Run::new(submission, job);
        (run.state.restore, run.state.kind) = (Some(restore), kind);
        run.state.measured = Measured { restored: numerics, overrides, ..Measured::default() };
        Ok(state.create(run))
    }

    fn request(&self) -> Option<Request<'_>> {
        let asked = Self { at_ms: 0, secret: [0; 32], made_of: Box::default(), ..self.clone() };
        Some(Request::run(&self.request, "Resume", &asked))
    }
}

impl Resume {
    /// What the checkpoint was made of, with what was accepted in the place of what it had.
    fn with_accepted(&self) -> Result<MadeOf, Refusal> {
        let mut made_of = MadeOf::clone(&self.made_of);
        let changed = accept::data(&mut made_of.data, &self.data).map_err(Refusal::NoData)?;
        accept::remember(&mut made_of.overrides, changed);
        if let Some(code) = &self.code {
            if !accept::accepts(&self.accepted, accept::CODE) {
                return Err(Refusal::Job("other code than the checkpoint's was not accepted".to_owned()));
            }
            let changed = accept::code(&mut made_of.code, code);
            accept::remember(&mut made_of.overrides, changed);
        }
        if let Some(base_dir) = &self.base_dir {
            made_of.base_dir.clone_from(base_dir);
        }
        Ok(made_of)
    }
}
