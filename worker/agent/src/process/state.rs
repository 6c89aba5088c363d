//! The states of a process. Each has only the values that exist in it.

use std::mem;

use lockstep_common::Digest;
use lockstep_rpc::{Assignment, Save};

use super::connection::Connection;
use super::running::Running;
use crate::child::Exit;
use crate::child::LogWriter;
use crate::event::ConnectionId;

/// State of a process; [`super`] has the diagram.
pub(super) enum State {
    /// Its program is being built.
    Waiting(Waiting),
    /// It was started and has not connected yet.
    Starting(Running),
    /// It has its assignment, and waits for the addresses of its peers.
    Joined(Running, Connection),
    /// It has the addresses of its peers. `Save` is the last outcome of a checkpoint that it was told.
    Training(Running, Connection, Save),
    /// It has reported that it finished, and stays until its reports are acknowledged.
    Finished(Running, Connection),
    /// It has finished and may end: it was told so, or hung up before that.
    Drained(Running, Option<Connection>),
    /// It hung up before it finished. It is stopped if it does not end by itself.
    HungUp(Running),
    /// It ended, and its last messages may still arrive: on its connection, or on one that is not accepted yet.
    Ended(Running, Exit, Option<Connection>),
    /// Its end is recorded.
    Gone,
}

/// A process whose program is being built.
pub(super) struct Waiting {
    pub(super) assignment: Assignment,
    pub(super) program: Digest,
    /// Its log; `None` while the build writes to it.
    pub(super) log: Option<LogWriter>,
}

impl State {
    /// Takes the state and leaves `Gone`; the caller sets the next one.
    pub(super) fn take(&mut self) -> Self {
        mem::replace(self, Self::Gone)
    }

    pub(super) fn waiting(&mut self) -> Option<&mut Waiting> {
        match self {
            Self::Waiting(waiting) => Some(waiting),
            _ => None,
        }
    }

    /// The started process, until it ends.
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

    /// Whether the process runs, or waits to be started.
    pub(super) fn is_alive(&self) -> bool {
        !matches!(self, Self::Ended(..) | Self::Gone)
    }

    /// The assignment, if the process does not have it yet.
    pub(super) fn untold(&mut self) -> Option<&mut Assignment> {
        match self {
            Self::Waiting(waiting) => Some(&mut waiting.assignment),
            Self::Starting(running) => Some(&mut running.assignment),
            _ => None,
        }
    }

    /// Whether `id` is its open connection.
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
