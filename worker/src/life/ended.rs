//! Ended: reports the end of the process to the agent, and returns its exit code.

use std::process::ExitCode;

use lockstep_common::ending::EXIT_PEERS_GONE;
use lockstep_common::{chain, without_frames};
use lockstep_host::{progress, transient};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Corrupt, Failed};
use tracing::{error, info};

use super::agent::AgentConnection;
use super::memory;
use crate::evidence::Divergence;
use crate::reduce::ExchangeError;
use crate::step::{Finished, TrainError};

/// A process that only has to report how it ended.
pub(super) struct Ended(pub(super) Result<Finished, Stop>);

impl Ended {
    /// Reports the end, and returns when the agent has the report; after a finished run, when the coordinator has it, too.
    pub(super) fn leave(self, agent: AgentConnection) -> ExitCode {
        let code = match self.0 {
            Ok(Finished { step, state, .. }) => {
                progress::begin(progress::Phase::Ending);
                info!(step, state = %state.short(), "finished");
                let state = state.as_bytes().to_vec();
                agent.outbox().push(Body::Finished(lockstep_rpc::Finished { step, state }));
                agent.drained();
                ExitCode::SUCCESS
            }
            Err(Stop::Peers(reason)) => {
                error!("{reason}");
                ExitCode::from(EXIT_PEERS_GONE as u8)
            }
            Err(Stop::Failed { reason, transient }) => {
                error!("{reason}");
                agent.outbox().push(Body::Failed(Failed { reason, transient }));
                ExitCode::FAILURE
            }
            Err(Stop::Corrupt(reason, corrupt)) => {
                error!("{reason}");
                agent.outbox().push(Body::Corrupt(corrupt));
                ExitCode::FAILURE
            }
        };
        agent.close();
        code
    }
}

/// Why a process ends before its run does.
pub(super) enum Stop {
    /// The connection to other processes is lost: the run restarts in its next generation.
    Peers(String),
    /// An error. If it is `transient`, the coordinator retries the run; otherwise the run fails.
    Failed { reason: String, transient: bool },
    /// The states of the processes differ: the coordinator finds the wrong one, and restarts the run without its device.
    Corrupt(String, Corrupt),
}

impl Stop {
    pub(super) fn failed(error: impl std::error::Error) -> Self {
        let whole = chain(&error);
        let mut reason = without_frames(&whole);
        if reason != whole {
            // The stack of C++ calls goes to the log only.
            error!("{whole}");
        }
        if let Some(memory) = memory::of(&reason) {
            reason.push_str(&memory);
        }
        Self::Failed { transient: transient::is_in(&whole), reason }
    }

    /// A reason that a retry would meet again.
    pub(super) fn for_good(reason: String) -> Self {
        Self::Failed { reason, transient: false }
    }
}

impl From<TrainError> for Stop {
    fn from(error: TrainError) -> Self {
        use ExchangeError::{Cut, Group, Mesh, PeerGone, Silence, SomePeerGone};
        if let TrainError::Corrupt { step, agreed, divergence } = &error {
            let Divergence { fingerprints, tensors, history: trail } = divergence.clone();
            return Self::Corrupt(
                chain(&error),
                Corrupt { step: *step, agreed: *agreed, fingerprints, tensors, trail },
            );
        }
        let peers = matches!(
            &error,
            TrainError::Exchange {
                source: PeerGone { .. } | SomePeerGone { .. } | Silence { .. } | Cut | Mesh(_) | Group(_),
                ..
            }
        );
        if peers { Self::Peers(chain(&error)) } else { Self::failed(error) }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Error, ErrorKind};

    use rustix::io::Errno;

    use super::*;

    #[test]
    fn a_reason_that_may_pass_is_told_from_one_that_would_come_again() {
        let transient = |error: Error| match Stop::failed(&error) {
            Stop::Failed { transient, .. } => transient,
            Stop::Peers(_) | Stop::Corrupt(..) => panic!("it failed"),
        };
        assert!(
            transient(Errno::STALE.into())
                && transient(Error::other("CUDA error: uncorrectable ECC error encountered"))
        );
        assert!(!transient(Errno::NOENT.into()) && !transient(Error::new(ErrorKind::InvalidData, "the loss is NaN")));
    }
}
