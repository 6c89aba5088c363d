//! Detects generations that take too long to start, for example because an agent is connected but starts no processes.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_common::RunId;
use lockstep_core::ClusterState;
use tokio::time::Instant;

/// The time at which this leader first saw each starting generation.
#[derive(Default)]
pub(super) struct StartTimeouts {
    since: BTreeMap<(RunId, u64), Instant>,
}

impl StartTimeouts {
    /// The generations that have been starting for longer than `limit`. Each is returned once per `limit`.
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

    /// Restarts all timeouts, after a pause of this coordinator.
    pub(super) fn clear(&mut self) {
        self.since.clear();
    }
}
