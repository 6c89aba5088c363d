//! Generations that have been starting for too long: an agent may be there, and do nothing with what it was given.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_common::RunId;
use lockstep_core::ClusterState;
use tokio::time::Instant;

/// Since when this leader has seen each generation start.
#[derive(Default)]
pub(super) struct StartTimeouts {
    since: BTreeMap<(RunId, u64), Instant>,
}

impl StartTimeouts {
    /// The generations that have been starting for longer than `limit`, each once.
    pub(super) fn overdue(&mut self, state: &ClusterState, now: Instant, limit: Duration) -> Vec<(RunId, u64)> {
        let current = state.starting();
        self.since.retain(|known, _| current.contains(known));
        let mut overdue = Vec::new();
        for generation in current {
            let since = self.since.entry(generation.clone()).or_insert(now);
            if now.duration_since(*since) > limit {
                *since = now;
                overdue.push(generation);
            }
        }
        overdue
    }

    /// Begins all anew: this coordinator stood still.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}
