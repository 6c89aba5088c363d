//! Clients: each sends one command at a time, and repeats it to other replicas until it has an answer.
//!
//! Reports contain the generation of their process, as `consumed` samples of its ranks and as its throughput, so that
//! `invariants::fencing` can tell from which generation a checkpoint or progress came.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Manifest, Piece, RankState, RecordPosition, Share, TensorEntry};
use lockstep_common::record::chain_start;
use lockstep_common::{Domain, NodeId, RequestId, RunId, job, world};
use lockstep_core::command::{
    Cancel, Commit, CommitFailed, Messenger, NodeDetached, NodeJoined, NodeLeaving, NodeLost, Report, Resume, Submit,
};
use lockstep_core::replica::Ticket;
use lockstep_core::state::Status;
use lockstep_core::state::{Device, Progress};
use lockstep_core::{ClusterState, Command, ReportBody};

use super::blobs;
use super::random::Random;

/// Ranks and steps of every job.
const RANKS: u32 = 4;
const STEPS: u64 = 1000;

/// Maximum number of runs, so that the state stays small and can be compared often.
const RUNS: usize = 12;

const JOB: &str = r#"
    name = "t"
    steps = 1000
    ranks = 4
    world = { processes = 2, min_processes = 2 }
    batch = { size = 8 }
    model = { kind = "mlp", hidden = [8], outputs = 2 }
    data = { kind = "csv", path = "x.csv", target = "y" }
    optimizer = { kind = "sgd", lr = 0.1 }
    checkpoint = { every_steps = 1 }
"#;

/// A proposal without an answer.
pub(crate) struct Asked {
    pub(crate) ticket: Ticket,
    pub(crate) since: u64,
}

/// A client, with its unanswered command and its last proposal of it.
#[derive(Default)]
pub(crate) struct Client {
    pub(crate) wants: Option<Command>,
    pub(crate) asked: Option<Asked>,
}

/// Sequence number of the last acknowledged report, by run, generation and process.
pub(crate) type Spools = BTreeMap<(RunId, u64, u32), u64>;

/// The next command of a client, chosen at random from the state of some replica.
pub(crate) fn next_command(state: &ClusterState, spools: &Spools, at_ms: u64, random: &mut Random) -> Option<Command> {
    let request =
        RequestId::from_bytes([random.next().to_le_bytes(), random.next().to_le_bytes()].concat().try_into().unwrap());
    let runs = state.runs();
    let secret = [random.next() as u8; 32];
    match random.below(100) {
        0..4 if runs.len() < RUNS => {
            let job = String::from_utf8(job::parse_toml(JOB, &[]).unwrap().canonical()).unwrap();
            let base_dir = "/jobs".to_owned();
            Some(Command::Submit(Submit { request, at_ms, job, base_dir, code: None, data: Vec::new(), secret }))
        }
        4..6 if runs.len() < RUNS => {
            let made: Vec<_> = state.checkpoint_views().iter().map(|made| made.id).collect();
            let checkpoint = *random.pick(&made)?;
            let made_of = Box::new(blobs::manifest(&state.checkpoint(&checkpoint).ok()?.1.manifest).into());
            let (accepted, base_dir, data, code) = (Vec::new(), None, Vec::new(), None);
            Some(Command::Resume(Resume {
                request,
                at_ms,
                checkpoint,
                made_of,
                accepted,
                base_dir,
                data,
                code,
                secret,
            }))
        }
        6 => {
            let run = random.pick(&runs)?.id().clone();
            Some(Command::Cancel(Cancel { request, at_ms, run }))
        }
        7..10 => Some(joined(at_ms, random)),
        10 => {
            let nodes: Vec<_> = state.nodes().collect();
            let node = random.pick(&nodes)?;
            let (node, incarnation, joined) = (node.id.clone(), node.incarnation.clone(), node.joined);
            Some(match random.below(4) {
                0 => Command::NodeDetached(NodeDetached { at_ms, node, joined }),
                1 => Command::NodeLeaving(NodeLeaving { at_ms, node, incarnation }),
                _ => Command::NodeLost(NodeLost { at_ms, node, incarnation }),
            })
        }
        11..17 => opened(state, at_ms, random),
        _ => report(state, spools, at_ms, random),
    }
}

fn joined(at_ms: u64, random: &mut Random) -> Command {
    let node: NodeId = ["a", "b", "c"][random.below(3) as usize].parse().unwrap();
    let device = Device { name: "cpu".to_owned(), model: "test".to_owned(), memory_bytes: 1 };
    let incarnation = random.below(2).to_string();
    Command::NodeJoined(NodeJoined {
        at_ms,
        node,
        incarnation,
        agent: String::new(),
        host: "h".to_owned(),
        devices: vec![device; 4],
    })
}

/// The command of a leader that opened, or could not open, the blobs of a written checkpoint. The leader may have changed since.
fn opened(state: &ClusterState, at_ms: u64, random: &mut Random) -> Option<Command> {
    let written = state.written();
    let (run, generation, step) = random.pick(&written)?.clone();
    let written = state.written_at(&run, generation, step)?;
    let share = |blob: &Piece| Share::decode(&blobs::get(blob)).unwrap();
    let read = written.shares.iter().map(|(process, blob)| (*process, share(blob))).collect();
    match written.assemble(&read, written.earlier.as_ref().map(blobs::manifest).as_ref()) {
        Ok(made) if !random.chance(100) => {
            let (bytes, shares) = (made.encode(), written.shares_digest());
            let (checkpoint, epoch, state) = (Manifest::id(&bytes), made.epoch, made.state);
            let manifest = blobs::put(&bytes);
            Some(Command::Commit(Commit { at_ms, run, generation, step, checkpoint, manifest, epoch, state, shares }))
        }
        Ok(_) => Some(Command::CommitFailed(CommitFailed {
            at_ms,
            run,
            generation,
            step,
            reason: "a blob is missing".to_owned(),
        })),
        Err(reason) => Some(Command::CommitFailed(CommitFailed { at_ms, run, generation, step, reason })),
    }
}

/// The next report of some process, of its run's current generation or of an earlier one.
fn report(state: &ClusterState, spools: &Spools, at_ms: u64, random: &mut Random) -> Option<Command> {
    let mut known: Vec<(RunId, u64, u32)> = spools.keys().cloned().collect();
    if random.chance(900) || known.is_empty() {
        known = state
            .runs()
            .iter()
            .filter(|run| !run.state.status.is_final())
            .flat_map(|run| run.state.placement.keys().map(|&p| (run.id().clone(), run.state.generation, p)))
            .collect();
    }
    let (run, generation, process) = random.pick(&known)?.clone();
    let sequence = spools.get(&(run.clone(), generation, process)).copied().unwrap_or(0) + 1;
    let training = state.run(&run).is_some_and(|run| run.state.status == Status::Running);
    let body = said(&run, (generation, training), process, sequence, random);
    let placed = state.run(&run).and_then(|run| run.state.placement.get(&process));
    let node = placed.and_then(|placed| state.node(&placed.node));
    let from = node.map(|node| Messenger { node: node.id.clone(), incarnation: node.incarnation.clone() });
    Some(Command::Report(Report { at_ms, run, generation, process, sequence, from, body }))
}

/// Report number `sequence` of a process: first `Ready`, then a share of a checkpoint as every sixth report, and otherwise progress. At
/// random the process ends.
fn said(
    run: &RunId,
    (generation, training): (u64, bool),
    process: u32,
    sequence: u64,
    random: &mut Random,
) -> ReportBody {
    let step = 100 * generation.min(8) + sequence;
    if random.chance(15) {
        return ReportBody::Exited { code: 1, output: "killed".to_owned(), ending: None };
    }
    match sequence {
        1 => ReportBody::Ready {
            address: format!("{run}:{generation}:{process}"),
            numerics: BTreeMap::new(),
            environment: BTreeMap::new(),
        },
        _ if training && sequence.is_multiple_of(6) && random.chance(30) => {
            ReportBody::ShareFailed { step, reason: "disk full".to_owned() }
        }
        _ if training && sequence.is_multiple_of(6) => {
            ReportBody::Share { step, blob: blobs::put(&share(generation, process, step).encode()) }
        }
        _ if sequence > STEPS => ReportBody::Failed { reason: "too long".to_owned(), transient: false },
        _ => {
            let samples_per_second = generation as f64;
            let progress = Progress { step, loss: random.next(), grad_norm: 0, samples_per_second };
            ReportBody::Block { progress: Some(progress), bytes: vec![process as u8, generation as u8] }
        }
    }
}

fn share(generation: u64, process: u32, step: u64) -> Share {
    let content = [step.to_le_bytes(), generation.to_le_bytes(), u64::from(process).to_le_bytes()].concat();
    let tensor = TensorEntry {
        name: format!("model/w{process}"),
        dtype: "float".to_owned(),
        shape: vec![1],
        pieces: vec![Piece { digest: Domain::Blob.digest(&content), bytes: 4 }],
    };
    let rank = |rank| RankState {
        rank,
        seeds: BTreeMap::new(),
        epoch: 0,
        consumed: generation,
        next_position: 0,
        generators: BTreeMap::new(),
    };
    Share {
        step,
        epoch: 0,
        tensors: vec![tensor],
        ranks: world::hosted(process, 2, RANKS).map(rank).collect(),
        record: (process == 0).then(|| RecordPosition { steps: step, digest: chain_start() }),
        preprocessing: None,
    }
}
