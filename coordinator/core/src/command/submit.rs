//! `Submit`: creates a run from a client's job.

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{RequestId, RunId, chain};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Run, Submission};

/// Creates a run from a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// Time by the leader's clock, in milliseconds since the Unix epoch.
    pub at_ms: u64,
    /// The job in canonical form. It is checked before the proposal, and again when the command is applied.
    pub job: String,
    /// Directory that the job's relative paths begin at.
    pub base_dir: String,
    /// Version of the code; `None` if the job file is not in a Git work tree.
    pub code: Option<CodeVersion>,
    /// Files and directories of the data, with their digests.
    pub data: Vec<DataFile>,
    /// 32 random bytes of the leader. The secret of each generation is derived from them.
    pub secret: [u8; 32],
}

impl Apply for Submit {
    fn apply(&self, state: &mut ClusterState, index: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        let job = parse(&self.job)?;
        check_buildable(&job, self.code.as_ref())?;
        let submission = Submission {
            id: RunId::derive(index, &self.request),
            number: index,
            job: self.job.clone(),
            base_dir: self.base_dir.clone(),
            code: self.code.clone(),
            data: self.data.clone(),
            secret: self.secret,
            parent: None,
            accepted: Vec::new(),
            replay: None,
            created_at_ms: self.at_ms,
        };
        Ok(state.create(Run::new(submission, job)))
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::run(&self.request, "Submit", &Self { at_ms: 0, secret: [0; 32], ..self.clone() }))
    }
}

/// Parses and checks a job in canonical form.
pub(super) fn parse(job: &str) -> Result<JobSpec, Refusal> {
    JobSpec::from_canonical(job.as_bytes()).map_err(|error| Refusal::Job(chain(&error)))
}

/// Refuses a job whose program cannot be built, because its work tree is not stored.
pub(super) fn check_buildable(job: &JobSpec, code: Option<&CodeVersion>) -> Result<(), Refusal> {
    if job.program.is_some() && code.is_none_or(|code| code.tree.is_none()) {
        let words = "it has no work tree to build its program from: submit it from the Git work tree of the program";
        return Err(Refusal::Job(words.to_owned()));
    }
    Ok(())
}
