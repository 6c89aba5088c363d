//! The desired state of a node: the last `Desired`, with assignments and peers from separate messages.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::{AgentMessage, Assignment, AssignmentRequest, DesiredProcess, DesiredRun};

/// A run's id and the number of its generation.
type Generation = (String, u64);

/// The desired state of one node.
#[derive(Clone, Default)]
pub(crate) struct Desires {
    runs: Vec<DesiredRun>,
    assignments: BTreeMap<Generation, Option<Assignment>>,
    /// Number of peers of a generation, once they are known.
    peers: BTreeMap<Generation, usize>,
}

impl Desires {
    /// Processes a message to the node, and returns the node's requests in reply.
    pub(crate) fn take(&mut self, told: Told) -> Vec<AgentMessage> {
        let mut asks = Vec::new();
        match told {
            Told::Desired(now) => {
                self.runs = now.runs;
                for DesiredRun { run, generation, .. } in &self.runs {
                    if let Entry::Vacant(entry) = self.assignments.entry((run.clone(), *generation)) {
                        let asked = AssignmentRequest { run: run.clone(), generation: *generation };
                        asks.push(AgentMessage { body: Some(Say::Fetch(asked)) });
                        entry.insert(None);
                    }
                }
                let runs = &self.runs;
                let goes_on = |(run, generation): &Generation| {
                    runs.iter().any(|one| (&one.run, one.generation) == (run, *generation))
                };
                self.assignments.retain(|of, _| goes_on(of));
                self.peers.retain(|of, _| goes_on(of));
            }
            Told::Assignment(one) => drop(self.assignments.insert((one.run.clone(), one.generation), Some(one))),
            Told::Peers(peers) => drop(self.peers.insert((peers.run, peers.generation), peers.addresses.len())),
            Told::Acknowledged(_) | Told::Log(_) | Told::Welcome(_) => {}
        }
        asks
    }

    /// Assignments of all desired processes whose assignment has arrived.
    pub(crate) fn all(&self) -> Vec<Assignment> {
        let of = |run: &DesiredRun| {
            let whole = self.assignments.get(&(run.run.clone(), run.generation))?.clone()?;
            let process = |one: &DesiredProcess| Assignment { process: one.process, ..whole.clone() };
            Some(run.processes.iter().map(process).collect::<Vec<_>>())
        };
        self.runs.iter().filter_map(of).flatten().collect()
    }

    /// Whether the node should run no process.
    pub(crate) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Whether the last checkpoint of a process's run is committed.
    pub(crate) fn is_saved(&self, of: &Assignment) -> bool {
        let runs = self.runs.iter().filter(|run| (&run.run, run.generation) == (&of.run, of.generation));
        runs.filter_map(|run| run.save).any(|save| save.committed)
    }

    /// Whether the peers of a process have arrived.
    pub(crate) fn has_met(&self, of: &Assignment) -> bool {
        self.peers.contains_key(&(of.run.clone(), of.generation))
    }
}
