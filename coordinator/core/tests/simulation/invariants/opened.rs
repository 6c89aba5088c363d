//! Invariant: a checkpoint is committed only if a leader has opened the blobs of exactly this manifest.

use std::collections::BTreeSet;

use lockstep_common::Digest;
use lockstep_core::command::Commit;
use lockstep_core::{ClusterState, Command};

#[derive(Default)]
pub(crate) struct Opened(BTreeSet<Digest>);

impl Opened {
    /// Records a command, before it is proposed for the first time.
    pub(crate) fn asks(&mut self, command: &Command) {
        if let Command::Commit(Commit { checkpoint, .. }) = command {
            self.0.insert(*checkpoint);
        }
    }

    pub(crate) fn check(&self, state: &ClusterState) {
        for run in state.runs() {
            let unknown = run.checkpoints.values().find(|made| !self.0.contains(&made.id));
            assert!(unknown.is_none(), "nobody opened the blobs of {unknown:?} of run `{}`", run.id());
        }
    }
}
