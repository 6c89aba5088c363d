//! Measures the step rate of a job on this machine, without coordinator and agent. `P` processes of this program train together on
//! loopback, with one thread each. The first one prints a line of JSON with the rate and the digest of the final state.
//!
//! ```text
//! rate JOB.toml [--processes P] [--steps N] [--warmup N] [--alone] [--no-shared-memory] [--store DIR] [--set key=value]...
//! ```
//!
//! With `--alone` each process trains its part of the batch alone: the rate without communication. With `--store` the run writes
//! checkpoints, and the line also has the microseconds of each step, the phases of each report, and for each checkpoint the milliseconds
//! from the end of its step until the first process's share was durable.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use clap::Parser;
use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::numerics;
use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_rpc::process_message::Body;
use lockstep_worker::observe::{Message, Outbox};
use lockstep_worker::{local, program::BuiltIn};

type Failure = Box<dyn std::error::Error>;

#[derive(Parser)]
struct Arguments {
    job: PathBuf,
    #[arg(long, default_value_t = 2)]
    processes: u32,
    #[arg(long, default_value_t = 2000)]
    steps: u64,
    #[arg(long, default_value_t = 200)]
    warmup: u64,
    #[arg(long)]
    alone: bool,
    #[arg(long)]
    no_shared_memory: bool,
    #[arg(long)]
    store: Option<PathBuf>,
    #[arg(long)]
    set: Vec<String>,
    /// Process index; set when this program starts itself
    #[arg(long, hide = true)]
    process: Option<usize>,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let job = job(&arguments)?;
    match arguments.process {
        Some(process) => train(&arguments, &job, process),
        None => launch(&job, arguments.processes),
    }
}

fn job(arguments: &Arguments) -> Result<JobSpec, Failure> {
    let text = std::fs::read_to_string(&arguments.job)?;
    let mut sets = arguments.set.clone();
    sets.push(format!("steps={}", arguments.steps + arguments.warmup));
    let job = parse_toml(&text, &sets)?;
    if !arguments.alone {
        return Ok(job);
    }
    sets.extend(["ranks=1".to_owned(), format!("batch.size={}", job.batch.size / u64::from(arguments.processes))]);
    Ok(parse_toml(&text, &sets)?)
}

/// Starts the processes, sends each the addresses of all, and prints their output.
fn launch(job: &JobSpec, processes: u32) -> Result<(), Failure> {
    let own = std::env::current_exe()?;
    let mut children = Vec::new();
    for process in 0..processes {
        let mut command = Command::new(&own);
        command.args(std::env::args_os().skip(1)).args(["--process", &process.to_string()]);
        let child = command.envs(numerics::environment(job)).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
        children.push(child);
    }
    let mut lines = Vec::new();
    for child in &mut children {
        let mut reader = BufReader::new(child.stdout.take().ok_or("a child without output")?);
        let mut address = String::new();
        reader.read_line(&mut address)?;
        lines.push((reader, address.trim().to_owned()));
    }
    let addresses = lines.iter().map(|(_, address)| address.as_str()).collect::<Vec<_>>().join(" ");
    for child in &mut children {
        writeln!(child.stdin.as_mut().ok_or("a child without input")?, "{addresses}")?;
    }
    for ((mut reader, _), mut child) in lines.into_iter().zip(children) {
        std::io::copy(&mut reader, &mut std::io::stdout())?;
        child.wait()?;
    }
    Ok(())
}

fn train(arguments: &Arguments, job: &JobSpec, process: usize) -> Result<(), Failure> {
    let listener = Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST))?;
    writeln!(std::io::stdout(), "{}", listener.local_addr())?;
    let mut line = String::new();
    std::io::stdin().lock().read_line(&mut line)?;
    let addresses = line.split_whitespace().map(str::parse).collect::<Result<Vec<SocketAddr>, _>>()?;
    let config = MeshConfig {
        process,
        addresses,
        secret: [0; 32],
        run: "rate".into(),
        generation: 1,
        connect_deadline: Duration::from_mins(1),
        silence_limit: Duration::from_mins(1),
        shared_memory: !arguments.no_shared_memory,
    };
    let mesh = if arguments.alone { None } else { Some(Mesh::join(listener, &config)?) };
    let outbox = Outbox::default();
    let base = arguments.job.parent().unwrap_or(Path::new("."));
    let reader = {
        let outbox = outbox.clone();
        std::thread::spawn(move || Said::until_closed(&outbox))
    };
    let finished = local::train(&BuiltIn, job, base, mesh, arguments.store.as_deref(), None, &outbox)?;
    outbox.close();
    let said = reader.join().map_err(|_| "the reader panicked")?;
    if process == 0 || arguments.alone {
        let timed: Vec<u64> = said.micros.range(arguments.warmup + 1..).map(|(_, micros)| *micros).collect();
        let mut report = serde_json::json!({
            "job": job.name,
            "communication": !arguments.alone,
            "processes": arguments.processes,
            "steps_per_second": timed.len() as f64 / (timed.iter().sum::<u64>() as f64 / 1e6),
            "phase_micros": said.phases_since(arguments.warmup),
            "state": finished.state.to_hex(),
        });
        if arguments.store.is_some() {
            report["micros"] = serde_json::json!(said.micros);
            report["reports"] = serde_json::json!(said.reports);
            report["durable_ms"] = serde_json::json!(said.durable_ms);
        }
        writeln!(std::io::stdout(), "{report}")?;
    }
    Ok(())
}

/// The reports of a process.
#[derive(Default)]
struct Said {
    micros: BTreeMap<u64, u64>,
    /// Time at the end of each step, in milliseconds since 1970.
    at_ms: BTreeMap<u64, u64>,
    reports: Vec<Phases>,
    durable_ms: BTreeMap<u64, u64>,
}

/// Mean microseconds of the last `steps` steps up to `step`, by phase.
#[derive(serde::Serialize)]
struct Phases {
    step: u64,
    steps: u64,
    micros: BTreeMap<String, f64>,
}

impl Said {
    fn until_closed(outbox: &Outbox) -> Self {
        let mut said = Self::default();
        while let Some(message) = outbox.pop() {
            match message {
                Message::Block(block) => {
                    said.micros.extend(block.steps.iter().map(|step| (step.step, step.micros)));
                    said.at_ms.extend(block.steps.iter().map(|step| (step.step, step.at_ms)));
                    for system in block.systems {
                        let since = said.reports.last().map_or(0, |report| report.step);
                        let micros = system.phase_micros.into_iter().collect();
                        said.reports.push(Phases { step: system.step, steps: system.step - since, micros });
                    }
                }
                Message::Other(Body::Share(share)) => {
                    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_millis() as u64);
                    // The reports of the steps that it covers came before it.
                    let ended = said.at_ms.get(&share.step).copied().unwrap_or(now);
                    said.durable_ms.insert(share.step, now.saturating_sub(ended));
                }
                Message::Other(_) => {}
            }
        }
        said
    }

    /// Means over the reports of steps after `warmup`.
    fn phases_since(&self, warmup: u64) -> BTreeMap<&str, f64> {
        let (mut phases, mut counted) = (BTreeMap::new(), 0);
        for report in self.reports.iter().filter(|report| report.step - report.steps >= warmup) {
            counted += report.steps;
            for (phase, mean) in &report.micros {
                *phases.entry(phase.as_str()).or_insert(0.0) += mean * report.steps as f64;
            }
        }
        for sum in phases.values_mut() {
            *sum /= counted.max(1) as f64;
        }
        phases
    }
}
