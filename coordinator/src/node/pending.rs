//! Reports of processes, and outcomes of queued commands.

use lockstep_common::RunId;
use lockstep_core::Outcome;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::error::CallError;

/// A report of a process, numbered by its agent.
#[derive(Clone, Debug)]
pub struct Report {
    /// Run of the process.
    pub run: RunId,
    /// Generation of the process.
    pub generation: u64,
    /// Process index in the generation.
    pub process: u32,
    /// Number of the report, ascending within the process; a repeated number is applied once.
    pub sequence: u64,
    /// Contents, already checked by the API.
    pub body: lockstep_core::ReportBody,
}

/// The future outcome of a queued command.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Outcome, CallError>>);

impl Pending {
    pub(super) fn new(outcome: oneshot::Receiver<Result<Outcome, CallError>>) -> Self {
        Self(outcome)
    }

    /// Waits until the command is applied.
    pub async fn outcome(mut self) -> Result<Outcome, CallError> {
        self.wait().await
    }

    /// As [`Pending::outcome`]. Cancellation-safe: the call can be dropped and repeated until it returns an outcome.
    pub async fn wait(&mut self) -> Result<Outcome, CallError> {
        (&mut self.0).await.map_err(|_| CallError::Stopping)?
    }

    /// The outcome, or `None` if the command is not applied yet. Does not wait.
    pub fn now(&mut self) -> Option<Result<Outcome, CallError>> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(CallError::Stopping)),
        }
    }
}
