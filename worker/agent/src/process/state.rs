//! The states of a process, each with what exists in it and nothing else.

use std::mem;

use lockstep_common::Digest;
use lockstep_rpc::{Assignment, Save};

use super::connection::Connection;
use super::running::Running;
use crate::child::Exit;
use crate::child::LogWriter;
use crate::event::ConnectionId;

/// Where a process is in its life. [`super`] has the diagram.
pub(super) enum State {
    /// Its program is being built.
    Waiting(Waiting),
    /// It was started and has not connected.
    Starting(Running),
    /// It has its assignment, and needs its peers to go on.
    Joined(Running, Connection),
    /// It was told its peers, and of the last checkpoint this.
    Training(Running, Connection, Save),
    /// It has reported that it finished, and is needed until its reports are safe.
    Finished(Running, Connection),
    /// It has finished and may end: it was told so, or hung up before.
    Drained(Running, Option<Connection>),
    /// It hung up before it finished. It is stopped if it does not end by itself.
    HungUp(Running),
    /// Its last messages may still come: on the connection, or, without one, on the one that it may have opened last.
    Ended(Running, Exit, Option<Connection>),
    /// Its end is recorded.
    Gone,
}

/// A process whose program is being built.
pub(super) struct Waiting {
    pub(super) assignment: Assignment,
    pub(super) program: Digest,
    /// Its log, if the build has not borrowed it.
    pub(super) log: Option<LogWriter>,
}

impl State {
    /// The state, to be replaced by the next one.
    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::Gone)
    }

    pub(super) fn waiting(&mut self) -> Option<&mut Waiting> {
        match self {
            Self::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// The process, while it lives.
    pub(super) fn running(&mut self) -> Option<&mut Running> {
        match self {
            Self::Starting(running)
            | Self::Joined(running, _)
            | Self::Training(running, ..)
            | Self::Finished(running, _)
            | Self::Drained(running, _)
            | Self::HungUp(running) => Some(running),
            Self::Waiting(_) | Self::Ended(..) | Self::Gone => None,
        }
    }

    /// Whether it lives, or will.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self, Self::Ended(..) | Self::Gone)
    }

    /// The assignment, if the process was not given it yet.
    pub(super) fn untold(&mut self) -> Option<&mut Assignment> {
        match self {
            Self::Waiting(waiting) => Some(&mut waiting.assignment),
            Self::Starting(running) => Some(&mut running.assignment),
            _ => None,
        }
    }

    /// Whether this is its connection.
    pub(super) fn is_connected(&self, id: ConnectionId) -> bool {
        let connection = match self {
            Self::Joined(_, connection) | Self::Training(_, connection, _) | Self::Finished(_, connection) => {
                Some(connection)
            }
            Self::Drained(_, connection) | Self::Ended(_, _, connection) => connection.as_ref(),
            Self::Waiting(_) | Self::Starting(_) | Self::HungUp(_) | Self::Gone => None,
        };
        connection.is_some_and(|connection| connection.id == id)
    }

    pub(super) fn assignment(&self) -> Option<&Assignment> {
        match self {
            Self::Waiting(waiting) => Some(&waiting.assignment),
            Self::Starting(running)
            | Self::Joined(running, _)
            | Self::Training(running, ..)
            | Self::Finished(running, _)
            | Self::Drained(running, _)
            | Self::HungUp(running)
            | Self::Ended(running, ..) => Some(&running.assignment),
            Self::Gone => None,
        }
    }
}
