//! Replicas with a perfect network and perfect disks. All messages and writes are recorded.

use std::collections::{BTreeMap, VecDeque};

use lockstep_common::{NodeId, RequestId};
use lockstep_core::command::{Cancel, NodeJoined};
use lockstep_core::replica::{
    Config, HardState, LogEntry, LogPosition, PeerMessage, ProposeError, Recovered, Replica, Rows, Ticket,
};
use lockstep_core::{ClusterState, Command, Outcome};

/// Everything that a replica has written.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) truncated: LogPosition,
    pub(crate) entries: Vec<LogEntry>,
    pub(crate) hard_state: HardState,
    pub(crate) rows: BTreeMap<String, Vec<u8>>,
    pub(crate) applied_index: u64,
}

pub(crate) struct Lab {
    pub(crate) replicas: BTreeMap<u64, Replica>,
    pub(crate) disks: BTreeMap<u64, Disk>,
    /// All delivered messages, in order.
    pub(crate) sent: Vec<PeerMessage>,
    pub(crate) replies: BTreeMap<Ticket, Result<Outcome, ProposeError>>,
}

pub(crate) fn config(id: u64, voters: u64) -> Config {
    Config { id, voters: (1..=voters).collect(), election_ticks: 10, heartbeat_ticks: 2, kept_entries: 4 }
}

pub(crate) fn joined(node: &str) -> Command {
    let node: NodeId = node.parse().unwrap();
    Command::NodeJoined(NodeJoined {
        at_ms: 1,
        node,
        incarnation: "1".into(),
        agent: String::new(),
        host: "h".into(),
        devices: Vec::new(),
    })
}

pub(crate) fn cancel_nothing() -> Command {
    Command::Cancel(Cancel { request: RequestId::from_bytes([1; 16]), at_ms: 1, run: "0123456789".parse().unwrap() })
}

impl Disk {
    pub(crate) fn recover(&self) -> Recovered {
        Recovered {
            truncated: self.truncated,
            entries: self.entries.clone(),
            hard_state: self.hard_state,
            applied_index: self.applied_index,
            state: ClusterState::from_rows(self.rows.clone()).unwrap(),
        }
    }
}

impl Lab {
    pub(crate) fn new(voters: u64) -> Self {
        let start = |id| (id, Replica::new(config(id, voters), Recovered::default()).unwrap());
        Self {
            replicas: (1..=voters).map(start).collect(),
            disks: (1..=voters).map(|id| (id, Disk::default())).collect(),
            sent: Vec::new(),
            replies: BTreeMap::new(),
        }
    }

    /// A lab in which replica 1 is the leader and `commands` nodes have joined. Replicas in `absent` received no messages.
    pub(crate) fn with_leader(voters: u64, commands: u64, absent: &[u64]) -> Self {
        let mut lab = Self::new(voters);
        lab.tick(12, absent);
        assert!(lab.replicas[&1].is_serving());
        for number in 0..commands {
            lab.propose(Ticket(number), &joined(&format!("n{number}")));
            lab.settle(absent);
            assert_eq!(lab.replies[&Ticket(number)], Ok(Outcome::Done));
        }
        lab
    }

    pub(crate) fn propose(&mut self, ticket: Ticket, command: &Command) {
        self.replicas.get_mut(&1).unwrap().propose(ticket, command);
    }

    /// Advances the time of replica 1 only, so that no other replica starts an election.
    pub(crate) fn tick(&mut self, ticks: u32, absent: &[u64]) {
        for _ in 0..ticks {
            self.replicas.get_mut(&1).unwrap().tick();
            self.settle(absent);
        }
    }

    /// Delivers messages until there are none. Messages from and to `absent` replicas are lost.
    pub(crate) fn settle(&mut self, absent: &[u64]) {
        let ids: Vec<u64> = self.replicas.keys().copied().filter(|id| !absent.contains(id)).collect();
        let mut flying: VecDeque<PeerMessage> = ids.iter().flat_map(|&id| self.drain(id)).collect();
        while let Some(message) = flying.pop_front() {
            if absent.contains(&message.to) {
                continue;
            }
            self.replicas.get_mut(&message.to).unwrap().step(&message.bytes).unwrap();
            flying.extend(self.drain(message.to));
            self.sent.push(message);
        }
    }

    /// Takes all outputs of a replica and writes them; returns the messages to send.
    pub(crate) fn drain(&mut self, id: u64) -> Vec<PeerMessage> {
        let mut messages = Vec::new();
        while let Some(out) = self.replicas.get_mut(&id).unwrap().take_output() {
            messages.extend(out.now);
            self.replies.extend(out.replies);
            let Some(persist) = out.persist else { continue };
            let disk = self.disks.get_mut(&id).unwrap();
            match persist.rows {
                Rows::Replaced(rows) => {
                    disk.rows = rows.into_iter().collect();
                    disk.entries.clear();
                }
                Rows::Changed(rows) => {
                    disk.rows.extend(rows.into_iter().map(|(key, value)| (key, value.unwrap())));
                }
            }
            if let Some(first) = persist.entries.first() {
                disk.entries.retain(|entry| entry.index < first.index);
            }
            disk.entries.extend(persist.entries);
            if let Some(truncated) = persist.truncated {
                disk.truncated = truncated;
                disk.entries.retain(|entry| entry.index > truncated.index);
            }
            disk.hard_state = persist.hard_state.unwrap_or(disk.hard_state);
            disk.applied_index = persist.applied_index;
            messages.extend(out.after_persist);
            self.replicas.get_mut(&id).unwrap().persisted(persist.number);
        }
        messages
    }
}
