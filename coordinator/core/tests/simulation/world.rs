//! The simulation of one seed: replicas, disks, network, clients, and faults.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::Digest;
use lockstep_core::command::Report;
use lockstep_core::replica::{Config, Output, PeerMessage, Persist, ProposeError, Replica, Ticket};
use lockstep_core::{Command, Effect, Outcome};

use super::clients::{self, Asked, Client, Spools};
use super::disk::Disk;
use super::invariants::acknowledged::Acknowledged;
use super::invariants::at_most_once::AtMostOnce;
use super::invariants::election_safety::ElectionSafety;
use super::invariants::log_matching::LogMatching;
use super::invariants::opened::Opened;
use super::invariants::state_equality::StateEquality;
use super::invariants::{fencing, liveness};
use super::network::Network;
use super::random::Random;

const VOTERS: [u64; 3] = [1, 2, 3];
const CLIENTS: usize = 6;

/// Ticks after which a client proposes its command again, possibly to another replica.
const PATIENCE: u64 = 40;

/// States are compared only after entries whose index is a multiple of this, because comparisons take most of the time.
const COMPARED: u64 = 4;

/// Probability per tick, in thousandths, that an idle client sends a new command.
const BUSY: u64 = 300;

/// Probabilities of faults, in thousandths.
#[derive(Clone, Copy)]
pub(crate) struct Faults {
    pub(crate) lost: u64,
    pub(crate) doubled: u64,
    pub(crate) late: u64,
    /// Per replica and tick.
    pub(crate) crash: u64,
    /// Per tick.
    pub(crate) repartition: u64,
    /// Per replica and tick: the replica's clock does not advance.
    pub(crate) slow_clock: u64,
    /// Per write: the write takes 1 to 5 ticks.
    pub(crate) slow_disk: u64,
}

impl Faults {
    pub(crate) const NONE: Self =
        Self { lost: 0, doubled: 0, late: 0, crash: 0, repartition: 0, slow_clock: 0, slow_disk: 0 };
    pub(crate) const STORM: Self =
        Self { lost: 30, doubled: 20, late: 100, crash: 2, repartition: 10, slow_clock: 50, slow_disk: 100 };
}

/// Counts of events, so that a test can check that enough happened.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Seen {
    pub(crate) leaders: u64,
    pub(crate) crashes: u64,
    pub(crate) snapshots: u64,
    pub(crate) acknowledged: u64,
    pub(crate) indeterminate: u64,
    pub(crate) repeated: u64,
    pub(crate) commits: u64,
    pub(crate) rewinds: u64,
    pub(crate) fenced: u64,
}

/// A running replica.
struct Up {
    replica: Replica,
    /// A write under way: the time of its end, its data, and the messages to send afterwards.
    writing: Option<(u64, Persist, Vec<PeerMessage>)>,
    applied: u64,
    served: bool,
}

pub(crate) struct World {
    pub(crate) seen: Seen,
    faults: Faults,
    random: Random,
    now: u64,
    up: BTreeMap<u64, Up>,
    disks: BTreeMap<u64, Disk>,
    /// Time at which each crashed replica restarts.
    down: BTreeMap<u64, u64>,
    network: Network,
    clients: Vec<Client>,
    spools: Spools,
    tickets: u64,
    answered_since_healed: u64,
    trace: blake3::Hasher,
    elections: ElectionSafety,
    logs: LogMatching,
    states: StateEquality,
    acknowledged: Acknowledged,
    at_most_once: AtMostOnce,
    opened: Opened,
    checkpoints: BTreeSet<Digest>,
}

impl World {
    pub(crate) fn new(seed: u64, faults: Faults) -> Self {
        let mut world = Self {
            seen: Seen::default(),
            faults,
            random: Random::new(seed),
            now: 0,
            up: BTreeMap::new(),
            disks: VOTERS.iter().map(|&id| (id, Disk::default())).collect(),
            down: BTreeMap::new(),
            network: Network::default(),
            clients: (0..CLIENTS).map(|_| Client::default()).collect(),
            spools: Spools::new(),
            tickets: 0,
            answered_since_healed: 0,
            trace: blake3::Hasher::new(),
            elections: ElectionSafety::default(),
            logs: LogMatching::default(),
            states: StateEquality::default(),
            acknowledged: Acknowledged::default(),
            at_most_once: AtMostOnce::default(),
            opened: Opened::default(),
            checkpoints: BTreeSet::new(),
        };
        for id in VOTERS {
            world.start(id);
        }
        world
    }

    /// Digest of all events.
    pub(crate) fn trace(&self) -> Digest {
        Digest::of(&self.trace)
    }

    pub(crate) fn run(&mut self, ticks: u64) {
        for _ in 0..ticks {
            self.now += 1;
            self.let_things_fail();
            self.finish_writes();
            self.deliver();
            for id in VOTERS {
                if !self.random.chance(self.faults.slow_clock)
                    && let Some(up) = self.up.get_mut(&id)
                {
                    up.replica.tick();
                    self.drive(id);
                }
            }
            for client in 0..CLIENTS {
                self.let_act(client);
            }
        }
    }

    /// Ends all faults and restarts all crashed replicas.
    pub(crate) fn heal(&mut self) {
        self.faults = Faults::NONE;
        self.network.heal();
        for id in std::mem::take(&mut self.down).into_keys() {
            self.start(id);
        }
        self.answered_since_healed = 0;
    }

    /// Checks the invariants that must hold at the end, after [`World::heal`].
    pub(crate) fn check_end(&mut self) {
        let replicas: Vec<&Replica> = self.up.values().map(|up| &up.replica).collect();
        liveness::check(&replicas, VOTERS.len(), self.answered_since_healed);
        for replica in replicas.into_iter().filter(|replica| replica.is_serving()) {
            self.acknowledged.check(replica.state());
            self.at_most_once.check(replica.state());
            self.seen.commits = replica.state().checkpoint_views().len() as u64;
        }
        self.seen.leaders = self.elections.leaders() as u64;
    }

    fn note(&mut self, what: &str, numbers: &[u64], bytes: &[u8]) {
        self.trace.update(what.as_bytes());
        for number in numbers {
            self.trace.update(&number.to_le_bytes());
        }
        self.trace.update(bytes);
    }

    fn start(&mut self, id: u64) {
        let config = Config { id, voters: VOTERS.to_vec(), election_ticks: 10, heartbeat_ticks: 2, kept_entries: 30 };
        let replica = Replica::new(config, self.disks[&id].recover()).unwrap();
        let applied = replica.applied_index();
        self.note("start", &[self.now, id, applied], &[]);
        self.up.insert(id, Up { replica, writing: None, applied, served: false });
        self.drive(id);
    }

    fn let_things_fail(&mut self) {
        if self.random.chance(self.faults.repartition) {
            self.network.repartition(&VOTERS, &mut self.random);
        }
        for id in VOTERS {
            if self.up.contains_key(&id) && self.random.chance(self.faults.crash) {
                self.crash(id);
            }
        }
        let back: Vec<u64> = self.down.iter().filter(|(_, at)| **at <= self.now).map(|(&id, _)| id).collect();
        for id in back {
            self.down.remove(&id);
            self.start(id);
        }
    }

    fn crash(&mut self, id: u64) {
        let Some(up) = self.up.remove(&id) else { return };
        let disk = self.disks.get_mut(&id).unwrap();
        // A write that was under way may have reached the disk without being reported as durable.
        if let Some((_, persist, _)) = up.writing
            && self.random.chance(500)
        {
            disk.write(persist);
        }
        disk.crash(&mut self.random);
        let back = self.now + 1 + self.random.below(80);
        self.down.insert(id, back);
        self.seen.crashes += 1;
        self.note("crash", &[self.now, id, back], &[]);
    }

    fn deliver(&mut self) {
        while let Some((from, message)) = self.network.receive(self.now) {
            let id = message.to;
            let Some(up) = self.up.get_mut(&id) else { continue };
            up.replica.step(&message.bytes).unwrap_or_else(|error| panic!("from {from} to {id}: {error}"));
            self.note("step", &[self.now, from, id], &message.bytes);
            self.drive(id);
        }
    }

    fn finish_writes(&mut self) {
        for id in VOTERS {
            let Some(up) = self.up.get_mut(&id) else { continue };
            if let Some((_, persist, messages)) = up.writing.take_if(|(done, ..)| *done <= self.now) {
                self.written(id, persist, messages);
                self.drive(id);
            }
        }
    }

    fn written(&mut self, id: u64, persist: Persist, messages: Vec<PeerMessage>) {
        let number = persist.number;
        self.disks.get_mut(&id).unwrap().write(persist);
        self.send(id, messages);
        self.up.get_mut(&id).unwrap().replica.persisted(number);
    }

    fn send(&mut self, from: u64, messages: Vec<PeerMessage>) {
        for message in messages {
            self.network.send(self.now, from, &message, &self.faults, &mut self.random);
        }
    }

    /// Processes all outputs of a replica, as its owner does in production.
    fn drive(&mut self, id: u64) {
        while let Some(out) = self.up.get_mut(&id).and_then(|up| up.replica.take_output()) {
            let Output { now, replies, persist, after_persist, leadership } = out;
            if let Some(leadership) = leadership {
                self.elections.observe(id, leadership);
                self.note("leads", &[id, leadership.term, leadership.leader.unwrap_or(0)], &[]);
            }
            self.send(id, now);
            self.look_at(id);
            for (ticket, reply) in replies {
                self.answered(ticket, reply);
            }
            let Some(persist) = persist else {
                assert!(after_persist.is_empty(), "messages that wait for nothing");
                continue;
            };
            self.logs.observe(&persist);
            self.seen.snapshots += u64::from(matches!(persist.rows, lockstep_core::replica::Rows::Replaced(_)));
            let rewinds = persist.effects.iter().filter(|(_, effect)| matches!(effect, Effect::Rewind { .. }));
            self.seen.rewinds += rewinds.count() as u64;
            self.note("persist", &[self.now, id, persist.number, persist.applied_index], &[]);
            if self.random.chance(self.faults.slow_disk) {
                let done = self.now + 1 + self.random.below(5);
                self.up.get_mut(&id).unwrap().writing = Some((done, persist, after_persist));
            } else {
                self.written(id, persist, after_persist);
            }
        }
    }

    /// Checks the invariants of a replica that may have applied entries.
    fn look_at(&mut self, id: u64) {
        let Some(up) = self.up.get_mut(&id) else { return };
        let (applied, serves) = (up.replica.applied_index(), up.replica.is_serving());
        if applied > up.applied {
            if applied.is_multiple_of(COMPARED) {
                self.states.observe(id, applied, up.replica.state());
            }
            fencing::check(up.replica.state(), &mut self.checkpoints);
            self.opened.check(up.replica.state());
        }
        assert!(applied >= up.applied, "replica {id} went back");
        up.applied = applied;
        if serves && !up.served {
            self.acknowledged.check(up.replica.state());
            self.at_most_once.check(up.replica.state());
        }
        up.served = serves;
    }

    fn let_act(&mut self, client: usize) {
        if let Some(asked) = &self.clients[client].asked {
            if self.now < asked.since + PATIENCE {
                return;
            }
            self.clients[client].asked = None;
        }
        if self.clients[client].wants.is_none() {
            if !self.random.chance(BUSY) {
                return;
            }
            let Some(up) = self.random.pick(&VOTERS).and_then(|id| self.up.get(id)) else { return };
            let at_ms = 1000 * self.now;
            let wants = clients::next_command(up.replica.state(), &self.spools, at_ms, &mut self.random);
            let Some(wants) = wants else { return };
            self.at_most_once.asks(&wants);
            self.opened.asks(&wants);
            self.clients[client].wants = Some(wants);
        } else {
            self.seen.repeated += 1;
        }
        self.ask(client);
    }

    /// Sends the client's command to the replica that some replica believes to be the leader.
    fn ask(&mut self, client: usize) {
        let Some(&any) = self.random.pick(&VOTERS) else { return };
        let hint = self.up.get(&any).and_then(|up| up.replica.leadership().leader);
        let node = hint.unwrap_or(any);
        let Some(command) = self.clients[client].wants.clone() else { return };
        let Some(up) = self.up.get_mut(&node) else { return };
        self.tickets += 1;
        let ticket = Ticket(self.tickets);
        self.clients[client].asked = Some(Asked { ticket, since: self.now });
        up.replica.propose(ticket, &command);
        self.drive(node);
    }

    fn answered(&mut self, ticket: Ticket, reply: Result<Outcome, ProposeError>) {
        let asked = |client: &&mut Client| client.asked.as_ref().is_some_and(|asked| asked.ticket == ticket);
        // A client ignores answers to earlier proposals.
        let Some(client) = self.clients.iter_mut().find(asked) else { return };
        client.asked = None;
        let outcome = match reply {
            Ok(outcome) => outcome,
            Err(error) => {
                self.seen.indeterminate += u64::from(error == ProposeError::Indeterminate);
                return;
            }
        };
        let Some(command) = client.wants.take() else { return };
        self.acknowledged.observe(&command, &outcome);
        self.at_most_once.observe(&command, &outcome);
        self.seen.acknowledged += 1;
        self.answered_since_healed += 1;
        if let (Command::Report(Report { run, generation, process, sequence, .. }), Outcome::Done) =
            (&command, &outcome)
        {
            let known = self.up.values().map(|up| up.replica.state().run(run).map_or(0, |run| run.state.generation));
            self.seen.fenced += u64::from(known.max().unwrap_or(0) > *generation);
            let last = self.spools.entry((run.clone(), *generation, *process)).or_default();
            *last = (*last).max(*sequence);
        }
        self.note("answer", &[self.now, ticket.0], format!("{outcome:?}").as_bytes());
    }
}

impl Seen {
    pub(crate) fn add(&mut self, other: &Self) {
        self.leaders += other.leaders;
        self.crashes += other.crashes;
        self.snapshots += other.snapshots;
        self.acknowledged += other.acknowledged;
        self.indeterminate += other.indeterminate;
        self.repeated += other.repeated;
        self.commits += other.commits;
        self.rewinds += other.rewinds;
        self.fenced += other.fenced;
    }
}
