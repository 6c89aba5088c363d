//! The closed enum of commands, and what the state asks each of them.

use serde::{Deserialize, Serialize};

use super::annotate::Annotate;
use super::apply::Apply;
use super::archive::ArchiveRuns;
use super::cancel::Cancel;
use super::commit::{Commit, CommitFailed};
use super::fence::FenceDevices;
use super::nodes::{NodeDetached, NodeForgotten, NodeJoined, NodeLeaving, NodeLost};
use super::replay::ReplayRun;
use super::report::Report;
use super::resume::Resume;
use super::retries::{Configure, RetryDue, WaitTimedOut};
use super::submit::Submit;

/// A change of the cluster's state. In the log each is a map from the variant's name to the struct's fields.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Command {
    /// A client submits a job.
    Submit(Submit),
    /// A client starts a new run from a checkpoint.
    Resume(Resume),
    /// A client ends a run.
    Cancel(Cancel),
    /// A person writes on a run.
    Annotate(Annotate),
    /// An agent opened its stream.
    NodeJoined(NodeJoined),
    /// A node's agent is about to end.
    NodeLeaving(NodeLeaving),
    /// A node's stream has ended.
    NodeDetached(NodeDetached),
    /// A node that is not there is forgotten.
    NodeForgotten(NodeForgotten),
    /// A node was silent for longer than its lease.
    NodeLost(NodeLost),
    /// A process said something, through its agent.
    Report(Report),
    /// A client repeats a part of a run.
    Replay(ReplayRun),
    /// A person takes devices out of use, or gives them back.
    Fence(FenceDevices),
    /// The leader opened every blob of a checkpoint.
    Commit(Commit),
    /// The leader could not open a checkpoint.
    CommitFailed(CommitFailed),
    /// The leader's configuration of what is decided here.
    Configure(Configure),
    /// Nothing was heard for too long of a generation that starts.
    Silent(WaitTimedOut),
    /// The pause before a run's next attempt is over.
    Due(RetryDue),
    /// Runs that ended long ago leave the state.
    Archive(ArchiveRuns),
}

impl Command {
    /// What it does, and how it is known when it comes again.
    pub(crate) fn dispatch(&self) -> &dyn Apply {
        match self {
            Self::Submit(command) => command,
            Self::Resume(command) => command,
            Self::Cancel(command) => command,
            Self::Annotate(command) => command,
            Self::NodeJoined(command) => command,
            Self::NodeLeaving(command) => command,
            Self::NodeDetached(command) => command,
            Self::NodeForgotten(command) => command,
            Self::NodeLost(command) => command,
            Self::Report(command) => command,
            Self::Replay(command) => command,
            Self::Fence(command) => command,
            Self::Commit(command) => command,
            Self::CommitFailed(command) => command,
            Self::Configure(command) => command,
            Self::Silent(command) => command,
            Self::Due(command) => command,
            Self::Archive(command) => command,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use lockstep_common::Domain;

    use super::*;
    use crate::formats::{decode, encode};

    /// A state remembers requests that another build has answered.
    #[test]
    fn a_request_is_known_by_the_bytes_of_its_command_in_the_log() {
        let mut kinds = BTreeSet::new();
        for line in include_str!("../../golden/commands-3.txt").lines() {
            let (kind, digits) = line.split_once(' ').unwrap();
            let digit = |at: usize| u8::from_str_radix(&digits[at..at + 2], 16).unwrap();
            let bytes: Vec<u8> = (0..digits.len()).step_by(2).map(digit).collect();
            let command: Command = decode(&bytes).unwrap();
            let Some(request) = command.dispatch().request() else { continue };
            let asked = match command.clone() {
                Command::Submit(it) => Command::Submit(Submit { at_ms: 0, secret: [0; 32], ..it }),
                Command::Resume(it) => {
                    Command::Resume(Resume { at_ms: 0, secret: [0; 32], made_of: Box::default(), ..it })
                }
                Command::Replay(it) => {
                    Command::Replay(ReplayRun { at_ms: 0, secret: [0; 32], original: Box::default(), ..it })
                }
                Command::Cancel(it) => Command::Cancel(Cancel { at_ms: 0, ..it }),
                Command::Fence(it) => Command::Fence(FenceDevices { at_ms: 0, ..it }),
                other => other,
            };
            assert_eq!(request.asked, Domain::Request.digest(&encode(&asked)), "{kind}");
            kinds.insert(kind);
        }
        assert_eq!(kinds.len(), 7);
    }
}
