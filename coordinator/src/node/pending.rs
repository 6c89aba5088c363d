//! What processes report, and outcomes of commands that are awaited later.

use lockstep_common::RunId;
use lockstep_core::Outcome;
use tokio::sync::oneshot;
use tokio::sync::oneshot::error::TryRecvError;

use super::error::CallError;

/// What a process reported, as its agent numbered it.
#[derive(Clone, Debug)]
pub struct Report {
    /// Of which run.
    pub run: RunId,
    /// Of which generation.
    pub generation: u64,
    /// Which process.
    pub process: u32,
    /// Its number.
    pub sequence: u64,
    /// What it said.
    pub body: lockstep_core::ReportBody,
}

/// The outcome of a command that was queued.
#[derive(Debug)]
pub struct Pending(oneshot::Receiver<Result<Outcome, CallError>>);

impl Pending {
    pub(super) fn new(outcome: oneshot::Receiver<Result<Outcome, CallError>>) -> Self {
        Self(outcome)
    }

    /// Waits until it was applied.
    pub async fn outcome(mut self) -> Result<Outcome, CallError> {
        self.wait().await
    }

    /// As [`Pending::outcome`]; may be dropped and called again until it has answered.
    pub async fn wait(&mut self) -> Result<Outcome, CallError> {
        (&mut self.0).await.map_err(|_| CallError::Stopping)?
    }

    /// The outcome, if it is there already.
    pub fn now(&mut self) -> Option<Result<Outcome, CallError>> {
        match self.0.try_recv() {
            Ok(outcome) => Some(outcome),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Closed) => Some(Err(CallError::Stopping)),
        }
    }
}
