//! Requests that were applied, so that one which comes again changes nothing (I4).

use std::collections::BTreeMap;

use lockstep_common::RequestId;
use serde::{Deserialize, Serialize};

use crate::command::Outcome;

/// Requests that are remembered. A client asks again within seconds; this is hours of people's commands.
pub(crate) const REMEMBERED: usize = 4096;

/// A request that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Answered {
    /// By the log entry at this index.
    pub(super) index: u64,
    /// With this outcome.
    pub(super) outcome: Outcome,
}

/// The remembered requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Requests {
    by_id: BTreeMap<RequestId, Answered>,
    by_index: BTreeMap<u64, RequestId>,
}

impl Requests {
    pub(super) fn get(&self, id: &RequestId) -> Option<&Answered> {
        self.by_id.get(id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&RequestId, &Answered)> {
        self.by_id.iter()
    }

    /// Remembers `id`, and returns the oldest if that makes one too many, which is forgotten.
    pub(super) fn insert(&mut self, id: RequestId, answered: Answered) -> Option<RequestId> {
        self.by_index.insert(answered.index, id.clone());
        self.by_id.insert(id, answered);
        if self.by_index.len() <= REMEMBERED {
            return None;
        }
        let (_, oldest) = self.by_index.pop_first()?;
        self.by_id.remove(&oldest);
        Some(oldest)
    }
}
