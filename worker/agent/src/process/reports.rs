//! The reports of a process: spooled, or, while the disk takes none, held in memory.

use std::collections::VecDeque;

use lockstep_common::chain;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Failed, ProcessMessage, Report};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::child::ProcessKey;
use crate::spool::Spool;

/// See the module.
pub(super) struct Reports {
    key: ProcessKey,
    spool: Spool,
    /// Messages that the spool did not take, in order. At most readings of its device, one of the process, which waits, and its end.
    held: VecDeque<Held>,
}

struct Held {
    message: ProcessMessage,
    accepted: Option<oneshot::Sender<()>>,
}

impl Reports {
    pub(super) fn new(key: ProcessKey, spool: Spool) -> Self {
        Self { key, spool, held: VecDeque::new() }
    }

    /// Spools a message, behind those that are held; then `accepted` is answered.
    pub(super) fn record(&mut self, body: Body, accepted: Option<oneshot::Sender<()>>) {
        let waits = self.is_held();
        self.held.push_back(Held { message: ProcessMessage { body: Some(body) }, accepted });
        if !waits {
            self.spool_held();
        }
    }

    /// Spools as much of what is held as the disk takes.
    pub(super) fn spool_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            if let Err(error) = self.spool.append(held.message.clone()) {
                warn!("{}: {error}: {}; trying again", self.key, source(&error));
                return self.held.push_front(held);
            }
            if let Some(accepted) = held.accepted {
                // Its connection may have ended meanwhile.
                accepted.send(()).ok();
            }
        }
    }

    /// The coordinator has everything up to `sequence`.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if let Err(error) = self.spool.acknowledge(sequence) {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
    }

    /// The next report to send.
    pub(super) fn next(&mut self) -> Option<Report> {
        match self.spool.next_unsent() {
            Ok(report) => report,
            Err(lost) => {
                // The numbering has no gaps, so something must be said in its place; the run cannot go on without it.
                let lost = chain(&lost);
                error!("{}: {lost}", self.key);
                let reason = format!("its agent lost a report: {lost}");
                let failed = Failed { reason, transient: false };
                Some(self.spool.skip(ProcessMessage { body: Some(Body::Failed(failed)) }))
            }
        }
    }

    /// Sends everything that is not acknowledged again.
    pub(super) fn rewind(&mut self) {
        self.spool.rewind();
    }

    pub(super) fn has_unsent(&self) -> bool {
        self.spool.has_unsent()
    }

    /// Whether a message waits for the disk.
    pub(super) fn is_held(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the coordinator has everything that is spooled.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.spool.is_acknowledged()
    }

    /// Deletes the spool.
    pub(super) fn remove(self) {
        if let Err(error) = self.spool.remove() {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
    }
}

fn source(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
