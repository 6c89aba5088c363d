//! The reports of a process: in its spool, or held in memory while the disk cannot be written.

use std::collections::VecDeque;

use lockstep_common::chain;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{Failed, ProcessMessage, Report};
use tokio::sync::oneshot;
use tracing::{error, warn};

use crate::child::ProcessKey;
use crate::spool::Spool;

/// The reports of one process.
pub(super) struct Reports {
    key: ProcessKey,
    spool: Spool,
    /// Messages that the spool did not take, in order. At most three: readings of the device, one message of the process, which then
    /// waits, and the end of the process.
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

    /// Spools a message after the held ones, and then answers `accepted`.
    pub(super) fn record(&mut self, body: Body, accepted: Option<oneshot::Sender<()>>) {
        let waits = self.is_held();
        self.held.push_back(Held { message: ProcessMessage { body: Some(body) }, accepted });
        if !waits {
            self.spool_held();
        }
    }

    /// Spools held messages until one fails.
    pub(super) fn spool_held(&mut self) {
        while let Some(held) = self.held.pop_front() {
            if let Err(error) = self.spool.append(held.message.clone()) {
                warn!("{}: {error}: {}; retrying every second", self.key, source(&error));
                return self.held.push_front(held);
            }
            if let Some(accepted) = held.accepted {
                // Its connection may have ended meanwhile.
                accepted.send(()).ok();
            }
        }
    }

    /// The coordinator has all reports up to `sequence`.
    pub(super) fn acknowledge(&mut self, sequence: u64) {
        if let Err(error) = self.spool.acknowledge(sequence) {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
    }

    /// The next report to send. One that cannot be read is replaced by a failure of the process.
    pub(super) fn next(&mut self) -> Option<Report> {
        match self.spool.next_unsent() {
            Ok(report) => report,
            Err(lost) => {
                // Numbers have no gaps, so another report takes its place: the run fails, because it cannot continue without it.
                let lost = chain(&lost);
                error!("{}: {lost}", self.key);
                let reason = format!("its agent lost a report: {lost}");
                let failed = Failed { reason, transient: false };
                Some(self.spool.skip(ProcessMessage { body: Some(Body::Failed(failed)) }))
            }
        }
    }

    /// Marks all unacknowledged reports as unsent, for a new stream.
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

    /// Whether the coordinator has acknowledged all spooled reports.
    pub(super) fn is_acknowledged(&self) -> bool {
        self.spool.is_acknowledged()
    }

    /// Deletes the spool; a failure is logged.
    pub(super) fn remove(self) {
        if let Err(error) = self.spool.remove() {
            warn!("{}: {error}: {}", self.key, source(&error));
        }
    }
}

fn source(error: &dyn std::error::Error) -> String {
    error.source().map(ToString::to_string).unwrap_or_default()
}
