//! `Submit`: a client's job becomes a run.

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{CodeVersion, DataFile};
use lockstep_common::{RequestId, RunId, chain};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, Run, Submission};

/// A client submits a job.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Submit {
    /// At most once (I4).
    pub request: RequestId,
    /// Milliseconds since the epoch, by the leader's clock.
    pub at_ms: u64,
    /// The job in canonical form; checked before it is proposed, and again when applied.
    pub job: String,
    /// Where the job's relative paths begin.
    pub base_dir: String,
    /// The code.
    pub code: Option<CodeVersion>,
    /// The data.
    pub data: Vec<DataFile>,
    /// 32 random bytes from the leader; the generations' secrets are derived from them.
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

/// The job in canonical form, parsed.
pub(super) fn parse(job: &str) -> Result<JobSpec, Refusal> {
    JobSpec::from_canonical(job.as_bytes()).map_err(|error| Refusal::Job(chain(&error)))
}

/// Refuses a job whose program nobody could build.
pub(super) fn check_buildable(job: &JobSpec, code: Option<&CodeVersion>) -> Result<(), Refusal> {
    if job.program.is_some() && code.is_none_or(|code| code.tree.is_none()) {
        return Err(Refusal::Job("its program has no work tree that it could be built from".to_owned()));
    }
    Ok(())
}
