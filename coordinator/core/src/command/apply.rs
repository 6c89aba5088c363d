//! What every command is: a change of the state, and where a client asks for it, a request.

use std::collections::BTreeMap;

use lockstep_common::{Digest, Domain, RequestId};
use serde::Serialize;

use crate::formats::encode;
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::ClusterState;

/// What a command does to the state.
pub(crate) trait Apply {
    /// Changes the state as the log entry at `index`. `effects` are written with the state, in order.
    ///
    /// Deterministic, and total: no value of the command panics.
    ///
    /// # Errors
    /// Why the command was refused. Nothing changed then.
    fn apply(&self, state: &mut ClusterState, index: u64, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal>;

    /// The request of a client, who repeats it until it is answered (I4); none for what agents and the leader say.
    fn request(&self) -> Option<Request<'_>> {
        None
    }
}

/// What a client asked: asked again under the same id, it gets the first answer.
pub(crate) struct Request<'a> {
    /// Its id.
    pub(crate) id: &'a RequestId,
    /// Whether it asks for a run.
    pub(crate) makes_run: bool,
    /// Digest of what it asks for.
    pub(crate) asked: Digest,
}

impl<'a> Request<'a> {
    /// A request for a run, by a command that is called `name` in the log. What the leader filled in is no part of what is asked:
    /// `asked` has none of it.
    pub(super) fn run(id: &'a RequestId, name: &str, asked: &impl Serialize) -> Self {
        Self { id, makes_run: true, asked: digest(name, asked) }
    }

    /// A request for a change, likewise.
    pub(super) fn change(id: &'a RequestId, name: &str, asked: &impl Serialize) -> Self {
        Self { id, makes_run: false, asked: digest(name, asked) }
    }
}

/// Of the command as the log has it: a map from its name to its fields.
fn digest(name: &str, asked: &impl Serialize) -> Digest {
    Domain::Request.digest(&encode(&BTreeMap::from([(name, asked)])))
}
