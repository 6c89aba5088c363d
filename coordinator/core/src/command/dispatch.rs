//! The enum of all commands.

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
    /// Creates a run from a client's job.
    Submit(Submit),
    /// Creates a run from a checkpoint.
    Resume(Resume),
    /// Ends a run at a client's request.
    Cancel(Cancel),
    /// Sets the tags or the note of a run.
    Annotate(Annotate),
    /// An agent has connected.
    NodeJoined(NodeJoined),
    /// An agent announces its end.
    NodeLeaving(NodeLeaving),
    /// An agent's stream has ended.
    NodeDetached(NodeDetached),
    /// Removes a node that is gone or lost.
    NodeForgotten(NodeForgotten),
    /// A node's lease has ended.
    NodeLost(NodeLost),
    /// A report of a process, sent through its agent.
    Report(Report),
    /// Creates a run that re-runs steps of another run.
    Replay(ReplayRun),
    /// Fences devices of a node, or removes their fences.
    Fence(FenceDevices),
    /// Commits a checkpoint whose blobs the leader has opened.
    Commit(Commit),
    /// Rejects a checkpoint that the leader could not open.
    CommitFailed(CommitFailed),
    /// Sets the limits of retries.
    Configure(Configure),
    /// A generation took too long to start.
    Silent(WaitTimedOut),
    /// Ends the pause before a run's next attempt.
    Due(RetryDue),
    /// Moves runs that ended long ago to the archive.
    Archive(ArchiveRuns),
}

impl Command {
    /// The command as an [`Apply`] object.
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

    /// States contain digests of requests that earlier builds answered.
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
