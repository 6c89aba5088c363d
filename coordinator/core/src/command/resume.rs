//! `Resume`: creates a run from a checkpoint.

use std::collections::BTreeMap;

use lockstep_common::manifest::{CodeVersion, DataFile, Manifest, Override};
use lockstep_common::{Digest, RequestId, RunId};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use super::submit::{check_buildable, parse};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Measured, Restore, Run, Submission, accept};

/// Creates a run that continues from a checkpoint.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Resume {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// Id of the checkpoint to start from.
    pub checkpoint: Digest,
    /// Contents of the checkpoint's manifest, which the leader has read.
    pub made_of: Box<MadeOf>,
    /// Keys that may differ from the checkpoint, such as `numerics.cpu.model`, or their prefixes before a dot, such as `numerics`.
    pub accepted: Vec<String>,
    /// Directory that the job's relative paths begin at now; `None`: as in the checkpoint.
    pub base_dir: Option<String>,
    /// Accepted data files, which replace the checkpoint's files of the same paths.
    pub data: Vec<DataFile>,
    /// Accepted code, which replaces the checkpoint's code; `None`: unchanged.
    pub code: Option<CodeVersion>,
    /// 32 random bytes of the leader, as in [`super::Submit`].
    pub secret: [u8; 32],
}

/// Job, code, data and numerics of a checkpoint, from its manifest: a new run starts with them.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct MadeOf {
    /// The job in canonical form.
    pub job: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; `None` if the job file was not in a Git work tree.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data, with their digests.
    pub data: Vec<DataFile>,
    /// Properties that are known to change bits.
    pub numerics: BTreeMap<String, String>,
    /// Accepted differences from the checkpoints that this one descends from.
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
    /// Job, code and data of the checkpoint, with the accepted replacements.
    ///
    /// # Errors
    /// `NoData` for a file that the job does not have, `Job` for code that was not accepted.
    fn with_accepted(&self) -> Result<MadeOf, Refusal> {
        let mut made_of = MadeOf::clone(&self.made_of);
        let changed = accept::data(&mut made_of.data, &self.data).map_err(Refusal::NoData)?;
        accept::remember(&mut made_of.overrides, changed);
        if let Some(code) = &self.code {
            if !accept::accepts(&self.accepted, accept::CODE) {
                let words = "the code differs from the checkpoint's, and `code` was not accepted: add `--accept code`";
                return Err(Refusal::Job(words.to_owned()));
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
