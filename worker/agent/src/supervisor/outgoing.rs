//! Messages to the coordinator: first answers and requests, then reports, one process after another.

use std::ops::Bound;

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::{AgentMessage, Empty, LogReply, LogRequest};
use tokio::sync::mpsc;
use tracing::warn;

use super::{ANSWER_CAPACITY, Supervisor};
use crate::child::ProcessKey;
use crate::process::Process;

impl Supervisor {
    /// Sends messages as long as the stream has room, then removes processes that are over.
    pub(crate) fn pump(&mut self) {
        if let Some(outbox) = self.outbox.clone() {
            while let Ok(permit) = outbox.try_reserve() {
                let Some(message) = self.next_message() else { break };
                permit.send(message);
            }
        }
        for (_, process) in self.processes.extract_if(.., |_, process| process.is_over()) {
            process.remove();
        }
    }

    /// The outbox whose room to wait for; `None` if there is nothing to send, or no stream.
    pub(crate) fn blocked_on(&self) -> Option<mpsc::Sender<AgentMessage>> {
        let waits = !self.answers.is_empty() || self.processes.values().any(Process::has_unsent);
        self.outbox.clone().filter(|_| waits)
    }

    /// Queues, before all other messages, that this node leaves, so that no process is placed here.
    pub(super) fn say_leaving(&mut self) {
        self.answers.push_front(AgentMessage { body: Some(Say::Leaving(Empty {})) });
    }

    pub(super) fn answer(&mut self, request: &LogRequest) {
        if self.answers.len() == ANSWER_CAPACITY {
            return warn!("dropped a log request of the coordinator: {ANSWER_CAPACITY} answers wait to be sent");
        }
        let reply = match ProcessKey::new(&request.run, request.generation, request.process) {
            Err(_) => LogReply { id: request.id, next_offset: request.offset, end: true, ..Default::default() },
            Ok(key) => self.read_log(&key, request),
        };
        self.answers.push_back(AgentMessage { body: Some(Say::Log(reply)) });
    }

    fn read_log(&self, key: &ProcessKey, request: &LogRequest) -> LogReply {
        let (id, offset) = (request.id, request.offset);
        // Before reading: a process that ends while its log is read may have written more.
        let may_grow = self.postponed.contains_key(key) || self.processes.get(key).is_some_and(Process::is_alive);
        match self.logs.read(key, offset) {
            Ok(chunk) => {
                LogReply { id, text: chunk.text, next_offset: chunk.next_offset, end: chunk.at_end && !may_grow }
            }
            Err(error) => {
                let text = format!("[node `{}` cannot read this log: {error}]\n", self.options.node).into_bytes();
                LogReply { id, text, next_offset: offset, end: true }
            }
        }
    }

    fn next_message(&mut self) -> Option<AgentMessage> {
        if let Some(answer) = self.answers.pop_front() {
            return Some(answer);
        }
        let after = self.served.take().map_or(Bound::Unbounded, Bound::Excluded);
        let next = |range: Option<(&ProcessKey, &mut Process)>| {
            range.map(|(key, process)| (key.clone(), process.next_report()))
        };
        let found = next(self.processes.range_mut((after, Bound::Unbounded)).find(|(_, process)| process.has_unsent()));
        let (key, report) = match found {
            Some(found) => found,
            None => next(self.processes.iter_mut().find(|(_, process)| process.has_unsent()))?,
        };
        self.served = Some(key);
        Some(AgentMessage { body: Some(Say::Report(report?)) })
    }
}
