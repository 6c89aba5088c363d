//! Applied requests and their answers, so that a repeated request changes nothing (I4).

use std::collections::BTreeMap;

use lockstep_common::{Digest, RequestId};
use serde::{Deserialize, Serialize};

use crate::outcome::Outcome;

/// Maximum number of stored requests. Clients repeat a request within seconds, and users send this many in hours.
pub(crate) const REMEMBERED: usize = 4096;

/// A request that was applied.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Answered {
    /// Index of the log entry that applied the request.
    pub(crate) index: u64,
    pub(crate) outcome: Outcome,
    /// Digest of the request, to detect another request with the same id; `None` in rows of early builds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) asked: Option<Digest>,
}

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

    /// Stores a request. If there are more than [`REMEMBERED`], removes the oldest and returns its id.
    pub(super) fn insert(&mut self, id: RequestId, answered: Answered) -> Option<RequestId> {
        self.by_index.insert(answered.index, id.clone());
        if let Some(before) = self.by_id.insert(id, answered) {
            self.by_index.remove(&before.index);
        }
        if self.by_index.len() <= REMEMBERED {
            return None;
        }
        let (_, oldest) = self.by_index.pop_first()?;
        self.by_id.remove(&oldest);
        Some(oldest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(number: usize) -> RequestId {
        RequestId::from_bytes((number as u128).to_be_bytes())
    }

    #[test]
    fn the_oldest_is_forgotten_and_only_beyond_the_bound() {
        let mut requests = Requests::default();
        let mut remember = |number: usize, index: usize| {
            requests.insert(id(number), Answered { index: index as u64, outcome: Outcome::Done, asked: None })
        };
        for number in 0..REMEMBERED {
            assert_eq!(remember(number, number), None);
        }
        assert_eq!(remember(0, REMEMBERED), None, "an id that comes again counts once, as of now");
        assert_eq!(remember(REMEMBERED, REMEMBERED + 1), Some(id(1)));
        assert!(requests.get(&id(1)).is_none() && requests.get(&id(0)).is_some());
        assert_eq!(requests.iter().count(), REMEMBERED);
    }
}
