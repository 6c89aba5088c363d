//! A coordinator whose runs have all ended: its memory, its start, and the time of its answers.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use lockstep_common::manifest::state_digest;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::query_request::What;
use lockstep_rpc::{Assignment, Empty, EncodedBlock, Exited, Finished, RunsQuery};
use serde_json::{Value, json};
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

use crate::control::Client;
use crate::coordinator::Coordinator;
use crate::crew::Crew;
use crate::failure::{Failure, PATIENCE};
use crate::words;

/// Steps of a run, and steps between checkpoints. A run has two checkpoints, at steps 3 and 5.
const STEPS: u64 = 5;
const EVERY: u64 = 3;
/// Number of first and of last runs whose CPU time is compared.
const SERIES: usize = 100;
/// Number of repetitions of each question.
const QUESTIONS: usize = 20;
/// Pause between two questions.
const PAUSE: Duration = Duration::from_millis(2);
/// Time until a coordinator has written the numbers that it buffers.
const REST: Duration = Duration::from_secs(5);

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Path of the program `coord`.
    coord: PathBuf,
    #[arg(long, default_value_t = 1000)]
    runs: usize,
    /// Number of runs at a time.
    #[arg(long, default_value_t = 8)]
    together: u32,
    /// Parent of the coordinator's temporary data directory.
    #[arg(long, default_value = "/var/tmp")]
    dir: PathBuf,
}

/// Lets all runs end, measures, and prints one line of JSON.
pub(crate) async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let data = dir.path().join("data");
    let coordinator = Coordinator::start(&arguments.coord, &data)?;
    let empty = coordinator.memory()?;
    let mut crew = Crew::attach(&coordinator.address, 1, arguments.together).await?;
    let begin = Instant::now();
    let made = make(arguments, &coordinator, &mut crew).await?;
    let seconds = begin.elapsed().as_secs_f64();
    rest(&mut crew).await?;
    let (memory, peak) = (coordinator.memory()?, coordinator.peak_memory()?);
    let mut client = Client::connect(&coordinator.address, 1 << 100).await?;
    let oldest = oldest(&mut client, arguments.runs).await?;
    let answers = answers(&arguments.coord, &coordinator, &mut client, &oldest).await?;
    let memory_after_answers = coordinator.memory()?;
    drop((crew, client));
    // The connections close during this pause; otherwise the coordinator would wait for them when it ends.
    tokio::time::sleep(PAUSE * 50).await;
    coordinator.stop()?;

    let begin = Instant::now();
    let coordinator = Coordinator::start(&arguments.coord, &data)?;
    let mut client = Client::connect(&coordinator.address, 2 << 100).await?;
    client.ask(What::Nodes(Empty {})).await?;
    let start = begin.elapsed();
    let start_cpu = coordinator.cpu_seconds()?;
    tokio::time::sleep(REST).await;
    let result = json!({
        "runs": arguments.runs, "seconds": seconds, "together": arguments.together,
        "memory_empty": empty, "memory": memory, "memory_peak": peak, "memory_after_answers": memory_after_answers,
        "memory_restarted": coordinator.memory()?, "memory_restarted_peak": coordinator.peak_memory()?,
        "start_ms": start.as_secs_f64() * 1e3, "start_cpu_ms": start_cpu * 1e3, "database_bytes": databases(&data)?,
        "first_cpu_ms": made.first * 1e3, "last_cpu_ms": made.last * 1e3, "answers": answers,
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

/// CPU seconds for each of the first runs, and for each of the last runs.
struct Made {
    first: f64,
    last: f64,
}

/// The last message that was sent for a process.
#[derive(Clone, Copy, PartialEq)]
enum Stage {
    Ready,
    Finished,
    Exited,
}

/// Starts and ends all runs, `--together` at a time.
async fn make(arguments: &Arguments, coordinator: &Coordinator, crew: &mut Crew) -> Result<Made, Failure> {
    let (permits, submitting) = submit_all(coordinator.address.clone(), arguments.together as usize);
    let (mut begun, mut ended) = (0, 0);
    let mut stages: BTreeMap<String, Stage> = BTreeMap::new();
    let mut cpu = BTreeMap::from([(0, coordinator.cpu_seconds()?)]);
    let mut moved = Instant::now();
    while ended < arguments.runs {
        while begun < arguments.runs && begun - ended < arguments.together as usize {
            permits.send(begun).await.map_err(|_| "the task that submits runs has ended")?;
            begun += 1;
        }
        crew.listen().await?;
        let (now, gone) = advance(crew, &stages).await?;
        if !(now.is_empty() && gone.is_empty()) {
            moved = Instant::now();
        }
        if moved.elapsed() > PATIENCE {
            return Err(
                format!("no progress for {PATIENCE:?} after {ended} of {} runs had ended", arguments.runs).into()
            );
        }
        stages.extend(now);
        for run in gone {
            stages.remove(&run);
            ended += 1;
            if ended == SERIES || ended + SERIES == arguments.runs || ended == arguments.runs {
                cpu.insert(ended, coordinator.cpu_seconds()?);
            }
        }
    }
    drop(permits);
    submitting.await??;
    let spent = |from: usize, to: usize| (cpu[&to] - cpu[&from]) / (to - from) as f64;
    let few = SERIES.min(arguments.runs);
    Ok(Made { first: spent(0, few), last: spent(arguments.runs - few, arguments.runs) })
}

/// Starts a task that submits one run for each number that it receives.
fn submit_all(address: String, together: usize) -> (mpsc::Sender<usize>, JoinHandle<Result<(), Failure>>) {
    let (permits, mut numbers) = mpsc::channel(together);
    let submitting = tokio::spawn(async move {
        let mut client = Client::connect(&address, 0).await?;
        while let Some(number) = numbers.recv().await {
            client.submit(&format!("sweep-{number:05}"), 1, STEPS, EVERY).await?;
        }
        Ok(())
    });
    (permits, submitting)
}

/// Sends the next message of each process that can continue. Returns the new stages, and the runs whose process is no longer desired.
async fn advance(
    crew: &Crew,
    stages: &BTreeMap<String, Stage>,
) -> Result<(BTreeMap<String, Stage>, Vec<String>), Failure> {
    let mut now = BTreeMap::new();
    let all: Vec<(usize, Assignment)> = crew.assignments().map(|(node, of)| (node, of.clone())).collect();
    for (node, of) in &all {
        let next = match stages.get(&of.run) {
            None => {
                crew.say(*node, of, 1, Said::Ready(words::ready(of))).await?;
                Stage::Ready
            }
            Some(Stage::Ready) if crew.has_met(*node, of) => {
                train(crew, *node, of).await?;
                Stage::Finished
            }
            Some(Stage::Finished) if crew.is_saved(*node, of) => {
                crew.say(*node, of, 6, Said::Exited(Exited::default())).await?;
                Stage::Exited
            }
            _ => continue,
        };
        now.insert(of.run.clone(), next);
    }
    let desired: BTreeSet<&str> = all.iter().map(|(_, of)| of.run.as_str()).collect();
    let is_gone = |(run, stage): &(&String, &Stage)| **stage != Stage::Ready && !desired.contains(run.as_str());
    Ok((now, stages.iter().filter(is_gone).map(|(run, _)| run.clone()).collect()))
}

/// Reports all steps, both checkpoints and the end of a process.
async fn train(crew: &Crew, node: usize, of: &Assignment) -> Result<(), Failure> {
    crew.say(node, of, 2, Said::Block(EncodedBlock::of(words::steps(0..STEPS)))).await?;
    let tensors = vec![words::tensor(&of.store, "model/w".to_owned())?];
    let state = state_digest(&tensors).as_bytes().to_vec();
    for (sequence, step) in [(3, EVERY), (4, STEPS)] {
        crew.say(node, of, sequence, Said::Share(words::share(&of.store, step, 0, tensors.clone())?)).await?;
    }
    crew.say(node, of, 5, Said::Finished(Finished { step: STEPS, state })).await
}

/// Waits for [`REST`], and processes messages meanwhile.
async fn rest(crew: &mut Crew) -> Result<(), Failure> {
    let end = Instant::now() + REST;
    while Instant::now() < end {
        crew.listen().await?;
    }
    Ok(())
}

/// The id of the oldest run; fails unless all runs have finished.
async fn oldest(client: &mut Client, runs: usize) -> Result<String, Failure> {
    let rows = client.ask(What::Runs(RunsQuery::default())).await?;
    let rows = rows.as_array().ok_or("the answer is not a list of runs")?;
    let finished = rows.iter().filter(|row| row["status"] == "finished").count();
    if finished != runs {
        return Err(format!("only {finished} of {runs} runs have finished; the first is {}", rows[0]).into());
    }
    Ok(rows[0]["run"].as_str().ok_or("the oldest run has no id")?.to_owned())
}

/// Wall-clock time and the coordinator's CPU time of questions and commands, by name.
async fn answers(coord: &Path, at: &Coordinator, client: &mut Client, oldest: &str) -> Result<Value, Failure> {
    let program = |words: &[&str]| {
        let command = Command::new(coord).args(words).args(["--addr", &at.address]).stdout(Stdio::null()).status()?;
        if command.success() {
            Ok(())
        } else {
            Err(Failure::from(format!("`coord {}` failed with {command}", words.join(" "))))
        }
    };
    let mut found = serde_json::Map::new();
    let mut note = |name: &str, timed: Timed| found.insert(name.to_owned(), timed.result());
    let mut timed = Timed::new(at)?;
    for _ in 0..QUESTIONS {
        timed.one(|| program(&["ps", "--json"])).await?;
    }
    note("coord ps --json", timed.end(at)?);
    let mut timed = Timed::new(at)?;
    for _ in 0..QUESTIONS {
        timed.one(|| at.get("/api/runs?limit=200").map(drop)).await?;
    }
    note("list of the page", timed.end(at)?);
    let mut timed = Timed::new(at)?;
    for _ in 0..QUESTIONS {
        timed.one(|| program(&["show", oldest, "--json"])).await?;
    }
    note("coord show of the oldest", timed.end(at)?);
    let mut timed = Timed::new(at)?;
    for number in 0..QUESTIONS {
        let begin = Instant::now();
        client.tag(oldest, format!("t{number}")).await?;
        timed.took(begin);
    }
    note("annotate", timed.end(at)?);
    let (mut timed, mut runs) = (Timed::new(at)?, Vec::new());
    for number in 0..QUESTIONS {
        let begin = Instant::now();
        runs.push(client.submit(&format!("more-{number}"), 1, STEPS, EVERY).await?);
        timed.took(begin);
    }
    note("submit", timed.end(at)?);
    Ok(found.into())
}

/// Times of repeated questions.
struct Timed {
    took_ms: Vec<f64>,
    cpu_s: f64,
}

impl Timed {
    fn new(at: &Coordinator) -> Result<Self, Failure> {
        Ok(Self { took_ms: Vec::new(), cpu_s: at.cpu_seconds()? })
    }

    async fn one(&mut self, ask: impl FnOnce() -> Result<(), Failure>) -> Result<(), Failure> {
        let begin = Instant::now();
        ask()?;
        self.took(begin);
        // Heartbeats of the node are sent during this pause.
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }

    fn took(&mut self, begin: Instant) {
        self.took_ms.push(begin.elapsed().as_secs_f64() * 1e3);
    }

    /// Ends the measurement: adds the coordinator's CPU time since [`new`](Self::new), and sorts the times.
    fn end(mut self, at: &Coordinator) -> Result<Self, Failure> {
        self.cpu_s = at.cpu_seconds()? - self.cpu_s;
        self.took_ms.sort_by(f64::total_cmp);
        Ok(self)
    }

    fn result(&self) -> Value {
        let count = self.took_ms.len();
        json!({
            "median_ms": self.took_ms[count / 2], "min_ms": self.took_ms[0], "max_ms": self.took_ms[count - 1],
            "cpu_ms": self.cpu_s * 1e3 / count as f64,
        })
    }
}

/// Size of each database file, in bytes.
fn databases(data: &Path) -> Result<Value, Failure> {
    let mut found = serde_json::Map::new();
    for entry in std::fs::read_dir(data)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "redb") {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            found.insert(name, path.metadata()?.len().into());
        }
    }
    Ok(found.into())
}
