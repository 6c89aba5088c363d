//! The trait of all commands, and requests: commands that clients may repeat.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Domain, RequestId};
use serde::Serialize;

use crate::formats::encode;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// A command: a change of the state.
pub(crate) trait Apply {
    /// Applies the command, which is the log entry at `index`. Adds to `effects`, which are stored together with the state, in order.
    ///
    /// Deterministic, and total: no value of the command panics.
    ///
    /// # Errors
    /// The reason why the command was refused; it has changed nothing then.
    fn apply(&self, state: &mut ClusterState, index: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal>;

    /// The request, if a client sent the command: clients repeat a request until it is answered (I4). `None` for commands of agents and
    /// of the leader.
    fn request(&self) -> Option<Request<'_>> {
        None
    }
}

/// A client's request. If the same request comes again, it gets the first answer.
pub(crate) struct Request<'a> {
    pub(crate) id: &'a RequestId,
    /// Whether the command creates a run.
    pub(crate) makes_run: bool,
    /// Digest of the command, without the fields that the leader filled in.
    pub(crate) asked: Digest,
}

impl<'a> Request<'a> {
    /// A request that creates a run. `name` is the command's name in the log. In `asked`, the fields that the leader filled in must be
    /// cleared.
    pub(super) fn run(id: &'a RequestId, name: &str, asked: &impl Serialize) -> Self {
        Self { id, makes_run: true, asked: digest(name, asked) }
    }

    /// As [`Request::run`], for a request that creates no run.
    pub(super) fn change(id: &'a RequestId, name: &str, asked: &impl Serialize) -> Self {
        Self { id, makes_run: false, asked: digest(name, asked) }
    }
}

/// Digest of the command as the log encodes it: a map from its name to its fields.
fn digest(name: &str, asked: &impl Serialize) -> Digest {
    Domain::Request.digest(&encode(&BTreeMap::from([(name, asked)])))
}
