//! Cost of a placement and of an applied report: the coordinator's CPU time, and the bytes that it sends and writes.

use std::collections::BTreeMap;
use std::io::Write;
use std::ops::Sub;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Instant;

use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::query_request::What;
use lockstep_rpc::{Assignment, EncodedBlock};
use serde_json::{Value, json};

use crate::control::Client;
use crate::coordinator::Coordinator;
use crate::crew::Crew;
use crate::failure::{Failure, PATIENCE};
use crate::words;

/// Steps of each job: so many that no job ends during the measurement.
const STEPS: u64 = 1_000_000;
/// Processes to place in one measurement; many, because Linux counts CPU time in hundredths of a second.
const PROCESSES_PLACED: u32 = 600;
/// Reports to send in one measurement.
const REPORTS: u32 = 4_000;
/// Length of tensor names in a large manifest.
const NAME_LETTERS: usize = 60;
/// Bytes that such a tensor adds to a manifest.
const TENSOR_BYTES: usize = 220;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Path of the program `coord`.
    coord: PathBuf,
    /// Numbers of processes of jobs that start without a checkpoint.
    #[arg(long, value_delimiter = ',', default_value = "10,100,1000")]
    processes: Vec<u32>,
    /// Jobs that start from a checkpoint: number of processes, and approximate size of the manifest in bytes.
    #[arg(long, value_delimiter = ',', default_value = "8:1000000,8:10000000,100:1000000")]
    manifests: Vec<Restored>,
    /// CPU slots of each node.
    #[arg(long, default_value_t = 8)]
    per_node: u32,
    /// Parent of the coordinator's temporary data directory; must be on a disk, or its writes are not counted.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

#[derive(Clone, Copy)]
struct Restored {
    processes: u32,
    bytes: usize,
}

impl FromStr for Restored {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (processes, bytes) = text.split_once(':').ok_or("expected PROCESSES:BYTES")?;
        let number = |text: &str| text.parse::<u32>().map_err(|error| error.to_string());
        Ok(Self { processes: number(processes)?, bytes: number(bytes)? as usize })
    }
}

/// Measures each case, and prints one line of JSON for each.
pub(crate) async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let fresh = arguments.processes.iter().map(|&processes| Restored { processes, bytes: 0 });
    for case in fresh.chain(arguments.manifests.iter().copied()) {
        let found = Bench::start(arguments, case).await?.measure(case).await;
        let found = found.unwrap_or_else(|error| json!({ "refused": error.to_string() }));
        let head = json!({ "processes": case.processes, "manifest_bytes": case.bytes, "found": found });
        writeln!(std::io::stdout(), "{head}")?;
    }
    Ok(())
}

/// Resources that a coordinator has used.
#[derive(Clone, Copy)]
struct Usage {
    at: Instant,
    cpu_s: f64,
    sent: u64,
    written: u64,
    disk: u64,
}

impl Sub for Usage {
    type Output = Self;

    fn sub(self, before: Self) -> Self {
        Self {
            at: before.at,
            cpu_s: self.cpu_s - before.cpu_s,
            sent: self.sent - before.sent,
            written: self.written - before.written,
            disk: self.disk - before.disk,
        }
    }
}

impl Usage {
    /// The average for each of `count` operations.
    fn each(self, count: u32) -> Value {
        let bytes = |all: u64| all as f64 / f64::from(count);
        json!({
            "cpu_ms": self.cpu_s * 1e3 / f64::from(count),
            "sent": bytes(self.sent), "written": bytes(self.written), "disk": bytes(self.disk),
        })
    }
}

/// A coordinator with its nodes and a client.
struct Bench {
    coordinator: Coordinator,
    crew: Crew,
    client: Client,
    /// Dropped last, after the coordinator has ended.
    _dir: tempfile::TempDir,
}

impl Bench {
    async fn start(arguments: &Arguments, case: Restored) -> Result<Self, Failure> {
        let dir = tempfile::tempdir_in(&arguments.dir)?;
        let coordinator = Coordinator::start(&arguments.coord, &dir.path().join("data"))?;
        let nodes = case.processes.div_ceil(arguments.per_node);
        let crew = Crew::attach(&coordinator.address, nodes, arguments.per_node).await?;
        let client = Client::connect(&coordinator.address, 0).await?;
        Ok(Self { coordinator, crew, client, _dir: dir })
    }

    async fn measure(&mut self, case: Restored) -> Result<Value, Failure> {
        let Restored { processes, bytes } = case;
        let checkpoint = if bytes == 0 { None } else { Some(self.checkpoint(processes, bytes).await?) };
        let rounds = (PROCESSES_PLACED / processes).clamp(2, 30);
        let (mut told, mut started, mut waits) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..rounds {
            let begin = self.usage()?;
            let run = self.begin(checkpoint.as_deref(), processes).await?;
            self.placed(&run, processes).await?;
            told.push(self.usage()? - begin);
            self.ready(&run).await?;
            started.push(self.usage()? - begin);
            waits.push(begin.at.elapsed().as_secs_f64() * 1e3);
            if round + 1 < rounds {
                self.client.cancel(&run).await?;
                self.crew.until("no process is desired", Crew::is_idle).await?;
            }
        }
        let report = self.report(processes, u64::from(checkpoint.is_some())).await?;
        waits.sort_by(f64::total_cmp);
        Ok(json!({
            "nodes": self.crew.nodes(), "rounds": rounds,
            "told": sum(&told).each(rounds), "started": sum(&started).each(rounds),
            "started_ms": waits[waits.len() / 2], "report": report,
        }))
    }

    fn usage(&self) -> Result<Usage, Failure> {
        let (written, disk) = self.coordinator.written()?;
        let cpu_s = self.coordinator.cpu_seconds()?;
        Ok(Usage { at: Instant::now(), cpu_s, sent: self.crew.bytes(), written, disk })
    }

    async fn begin(&mut self, checkpoint: Option<&str>, processes: u32) -> Result<String, Failure> {
        match checkpoint {
            Some(checkpoint) => self.client.resume(checkpoint).await,
            None => self.client.submit("cost", processes, STEPS, 0).await,
        }
    }

    /// Waits until all processes of `run` are assigned to nodes.
    async fn placed(&mut self, run: &str, processes: u32) -> Result<(), Failure> {
        let all = |crew: &Crew| crew.assignments().filter(|(_, one)| one.run == run).count() == processes as usize;
        self.crew.until("all processes are assigned", all).await
    }

    /// Sends `Ready` for all processes, and waits until each process has its peers.
    async fn ready(&mut self, run: &str) -> Result<(), Failure> {
        let processes: Vec<(usize, Assignment)> = self.processes();
        let all = self.crew.acknowledgements() + processes.len() as u64;
        for (node, of) in &processes {
            self.crew.say(*node, of, 1, Said::Ready(words::ready(of))).await?;
        }
        let started = |crew: &Crew| {
            crew.acknowledgements() == all
                && crew.assignments().all(|(node, one)| one.run == run && crew.has_met(node, one))
        };
        self.crew.until("all processes know each other", started).await
    }

    fn processes(&self) -> Vec<(usize, Assignment)> {
        // Without the long fields, which reports do not need.
        let short = |of: &Assignment| Assignment { job: Vec::new(), data: Vec::new(), ..of.clone() };
        self.crew.assignments().map(|(node, of)| (node, short(of))).collect()
    }

    /// Makes a checkpoint with a manifest of about `bytes` bytes, in a run of its own, and returns the checkpoint's id.
    async fn checkpoint(&mut self, processes: u32, bytes: usize) -> Result<String, Failure> {
        let run = self.client.submit("parent", processes, STEPS, 1).await?;
        self.placed(&run, processes).await?;
        self.ready(&run).await?;
        let each = bytes / TENSOR_BYTES / processes as usize;
        let all = self.crew.acknowledgements() + u64::from(processes);
        for (node, of) in self.processes() {
            let like = words::tensor(&of.store, String::new())?;
            let name = |index| format!("model/{:04}.{index:0>width$}", of.process, width = NAME_LETTERS);
            let tensors = (0..each).map(|index| {
                let mut tensor = like.clone();
                tensor.name = name(index);
                tensor
            });
            let share = words::share(&of.store, 1, of.process, tensors.collect())?;
            self.crew.say(node, &of, 2, Said::Share(share)).await?;
        }
        self.crew.until("all shares are acknowledged", |crew| crew.acknowledgements() == all).await?;
        let end = Instant::now() + PATIENCE;
        let id = loop {
            let made = self.client.ask(What::Checkpoints(run.clone())).await?;
            if let Some(id) = made[0]["id"].as_str() {
                break id.to_owned();
            }
            if Instant::now() > end {
                let run = self.client.ask(What::Run(run)).await?;
                return Err(
                    format!("no checkpoint was committed within {PATIENCE:?}: {}", run["failed_checkpoints"]).into()
                );
            }
            self.crew.listen().await?;
        };
        self.client.cancel(&run).await?;
        self.crew.until("no process is desired", Crew::is_idle).await?;
        Ok(id)
    }

    /// Lets all processes report steps after `step` at once, and again when all reports are acknowledged. Measures the cost of a report.
    async fn report(&mut self, processes: u32, step: u64) -> Result<Value, Failure> {
        let rounds = (REPORTS / processes).clamp(4, 100);
        let all = self.processes();
        let (mut waits, begin) = (Vec::new(), self.usage()?);
        for round in 0..u64::from(rounds) {
            let (sequence, step) = (round + 2, step + round);
            let mut sent = BTreeMap::new();
            for (node, of) in &all {
                let block = match of.process {
                    0 => words::steps(step..step + 1),
                    process => words::telemetry(process, step + 1),
                };
                sent.insert(of.process, Instant::now());
                self.crew.say(*node, of, sequence, Said::Block(EncodedBlock::of(block))).await?;
            }
            // Each process has exactly one report in flight.
            let expected = self.crew.acknowledgements() + all.len() as u64;
            let acknowledged = |crew: &Crew| crew.acknowledgements() == expected;
            self.crew.until("all reports are acknowledged", acknowledged).await?;
            for (_, of) in &all {
                let at = self
                    .crew
                    .acknowledged(of)
                    .map(|(_, at)| at)
                    .ok_or_else(|| format!("process {} has no acknowledged report", of.process))?;
                waits.push(at.duration_since(sent[&of.process]).as_secs_f64() * 1e3);
            }
        }
        let used = self.usage()? - begin;
        waits.sort_by(f64::total_cmp);
        let mut found = used.each(rounds * processes);
        found["count"] = json!(waits.len());
        found["median_ms"] = json!(waits[waits.len() / 2]);
        found["p99_ms"] = json!(waits[waits.len() * 99 / 100]);
        Ok(found)
    }
}

fn sum(all: &[Usage]) -> Usage {
    let first = Usage { at: Instant::now(), cpu_s: 0.0, sent: 0, written: 0, disk: 0 };
    all.iter().fold(first, |sum, one| Usage {
        at: sum.at,
        cpu_s: sum.cpu_s + one.cpu_s,
        sent: sum.sent + one.sent,
        written: sum.written + one.written,
        disk: sum.disk + one.disk,
    })
}
