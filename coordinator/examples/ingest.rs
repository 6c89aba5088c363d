//! How many points a second a coordinator takes, with durable acknowledgement, and how fast a long series is drawn.
//!
//! Starts the `coord` beside it, speaks to it as the agent of one node whose processes report as fast as they are acknowledged,
//! and prints a line of JSON: points a second acknowledged, how long until all could be read back, the coordinator's largest
//! memory, and the times of a query of the longest series.
//!
//! ```text
//! ingest COORD [--points N] [--processes P] [--series S]
//! ```

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use clap::Parser;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::agents_client::AgentsClient;
use lockstep_rpc::coordinator_message::Body as Told;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{
    AgentMessage, Assignment, CoordinatorMessage, Device, Heartbeat, Hello, ProcessMessage, Ready, Report, ReportBlock,
    Series,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;

type Failure = Box<dyn std::error::Error>;

/// Points of each series in one report, as a process that makes a few hundred steps a second would gather in its quarter of a
/// second.
const TOGETHER: u64 = 64;
/// Reports of a process that may wait for their acknowledgement.
const OPEN: u64 = 16;
/// Queries that are timed.
const QUERIES: usize = 21;
/// Pixels that the long series is drawn on.
const PIXELS: usize = 2000;
/// For all that has to happen at all.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Parser)]
struct Arguments {
    /// The program `coord`.
    coord: PathBuf,
    /// Points to send; the longest series gets a tenth of them, at most a million.
    #[arg(long, default_value_t = 4_000_000)]
    points: u64,
    #[arg(long, default_value_t = 2)]
    processes: u32,
    /// Series of each process.
    #[arg(long, default_value_t = 150)]
    series: u64,
}

fn main() -> Result<(), Failure> {
    let arguments = Arguments::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(measure(&arguments))
}

async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let coordinator = Coordinator::start(&arguments.coord, &dir.path().join("data"))?;
    let peak = coordinator.watch_memory();
    let mut agent = Agent::attach(&coordinator.address, arguments.processes).await?;
    let run = coordinator.submit(&arguments.coord, dir.path(), arguments.processes)?;
    let assigned = agent.assigned().await?;
    for assignment in &assigned {
        let numerics = [("threads".to_owned(), "1".to_owned())].into();
        let address = format!("127.0.0.1:{}", 9000 + assignment.process);
        agent.say(assignment, 1, Said::Ready(Ready { address, numerics, environment: [].into() })).await?;
    }

    // Small at first: what the coordinator needs beside the points is no matter of theirs.
    let before = peak.load(Ordering::Relaxed);
    let begin = Instant::now();
    let sent = send(arguments, &mut agent, &assigned).await?;
    let acknowledged = begin.elapsed();
    let name = format!("points/{:03}", 0);
    let last = sent.steps;
    while coordinator.last_step(&run, &name)? < last {
        if begin.elapsed() > acknowledged + PATIENCE {
            return Err("what was acknowledged cannot be read".into());
        }
        agent.wait().await?;
    }
    let readable = begin.elapsed();

    let long = grow_long_series(arguments, &mut agent, &assigned[0], sent.sequence).await?;
    while coordinator.last_step(&run, "long")? < long {
        agent.wait().await?;
    }
    let mut times = Vec::new();
    for _ in 0..QUERIES {
        let begin = Instant::now();
        let answer = coordinator.get(&format!("/api/runs/{run}/points?name=long&pixels={PIXELS}"))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        if !answer.contains("\"exact\":false") {
            return Err("the long series is not drawn from its levels".into());
        }
    }
    times.sort_by(f64::total_cmp);
    let result = serde_json::json!({
        "points": sent.points,
        "points_per_second": sent.points as f64 / acknowledged.as_secs_f64(),
        "readable_per_second": sent.points as f64 / readable.as_secs_f64(),
        "memory_before_mb": before >> 20,
        "memory_peak_mb": peak.load(Ordering::Relaxed) >> 20,
        "long_series_points": long,
        "query_ms": { "median": times[QUERIES / 2], "min": times[0], "max": times[QUERIES - 1] },
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

struct Sent {
    points: u64,
    /// The last step of each series.
    steps: u64,
    /// The last report of each process.
    sequence: u64,
}

/// Every process reports all its series, [`OPEN`] reports ahead of what is acknowledged.
async fn send(arguments: &Arguments, agent: &mut Agent, assigned: &[Assignment]) -> Result<Sent, Failure> {
    let each = TOGETHER * arguments.series;
    let reports = arguments.points.div_ceil(each * u64::from(arguments.processes));
    for report in 0..reports {
        for assignment in assigned {
            let series = (0..arguments.series).map(|series| {
                let key = SeriesKey::part(format!("points/{series:03}"), assignment.process);
                Series::of_points(&key, &points(report * TOGETHER, series))
            });
            let block = ReportBlock { process: assignment.process, series: series.collect(), ..ReportBlock::default() };
            // The first said that it is ready.
            agent.say(assignment, report + 2, Said::Block(block)).await?;
        }
        agent.acknowledged_to(assigned, (report + 2).saturating_sub(OPEN)).await?;
    }
    agent.acknowledged_to(assigned, reports + 1).await?;
    Ok(Sent {
        points: reports * each * u64::from(arguments.processes),
        steps: reports * TOGETHER,
        sequence: reports + 1,
    })
}

/// One series with many points, for the query; its last step.
async fn grow_long_series(
    arguments: &Arguments,
    agent: &mut Agent,
    assignment: &Assignment,
    mut sequence: u64,
) -> Result<u64, Failure> {
    const BLOCK: u64 = 10_000;
    let blocks = (arguments.points / 10).clamp(BLOCK, 1_000_000) / BLOCK;
    for block in 0..blocks {
        sequence += 1;
        let points: Vec<Point> = (block * BLOCK..(block + 1) * BLOCK).map(|step| point(step, 7)).collect();
        let series = vec![Series::of_points(&SeriesKey::whole("long"), &points)];
        let block = ReportBlock { process: assignment.process, series, ..ReportBlock::default() };
        agent.say(assignment, sequence, Said::Block(block)).await?;
        agent.acknowledged_to(std::slice::from_ref(assignment), sequence.saturating_sub(OPEN)).await?;
    }
    Ok(blocks * BLOCK)
}

fn points(after: u64, series: u64) -> Vec<Point> {
    (after..after + TOGETHER).map(|step| point(step, series)).collect()
}

/// A falling, noisy curve.
fn point(step: u64, series: u64) -> Point {
    let noise = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ series) >> 40;
    let value = 2.0 / (1.0 + step as f64 * 1e-4) + noise as f64 * 1e-9;
    Point { step: step + 1, at_ms: 1_795_000_000_000 + step * 4, value }
}

/// An agent without processes: it says what theirs would.
struct Agent {
    say: mpsc::Sender<AgentMessage>,
    told: Streaming<CoordinatorMessage>,
    acknowledged: BTreeMap<u32, u64>,
}

impl Agent {
    async fn attach(address: &str, slots: u32) -> Result<Self, Failure> {
        let mut client = AgentsClient::connect(format!("http://{address}")).await?;
        let (say, messages) = mpsc::channel(64);
        let device = Device { name: "cpu".into(), model: "none".into(), memory_bytes: 1 << 30 };
        let hello = Hello {
            node: "bench".into(),
            incarnation: "1".into(),
            host: "bench".into(),
            devices: vec![device; slots as usize],
            version: "0".into(),
        };
        say.send(AgentMessage { body: Some(Say::Hello(hello)) }).await?;
        let told = client.attach(ReceiverStream::new(messages)).await?.into_inner();
        Ok(Self { say, told, acknowledged: BTreeMap::new() })
    }

    /// The processes that it should run.
    async fn assigned(&mut self) -> Result<Vec<Assignment>, Failure> {
        loop {
            if let Some(Told::Desired(desired)) = self.listen().await?
                && !desired.assignments.is_empty()
            {
                return Ok(desired.assignments);
            }
        }
    }

    async fn say(&self, of: &Assignment, sequence: u64, body: Said) -> Result<(), Failure> {
        let message = Some(ProcessMessage { body: Some(body) });
        let Assignment { run, generation, process, .. } = of;
        let (generation, process) = (*generation, *process);
        let report = Report { run: run.clone(), generation, process, sequence, message };
        Ok(self.say.send(AgentMessage { body: Some(Say::Report(report)) }).await?)
    }

    async fn acknowledged_to(&mut self, all: &[Assignment], sequence: u64) -> Result<(), Failure> {
        while all.iter().any(|of| self.acknowledged.get(&of.process).copied().unwrap_or(0) < sequence) {
            self.listen().await?;
        }
        Ok(())
    }

    /// A moment, in which the node still lives.
    async fn wait(&self) -> Result<(), Failure> {
        self.say.send(AgentMessage { body: Some(Say::Heartbeat(Heartbeat {})) }).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
        Ok(())
    }

    async fn listen(&mut self) -> Result<Option<Told>, Failure> {
        let message = tokio::time::timeout(PATIENCE, self.told.message()).await??;
        let body = message.ok_or("the coordinator has ended the stream")?.body;
        if let Some(Told::Acknowledged(ack)) = &body {
            self.acknowledged.insert(ack.process, ack.sequence);
        }
        Ok(body)
    }
}

/// The coordinator; it ends with the value.
struct Coordinator {
    child: Child,
    address: String,
    page: String,
    end: Arc<AtomicBool>,
}

impl Coordinator {
    fn start(coord: &Path, data: &Path) -> Result<Self, Failure> {
        let mut command = Command::new(coord);
        command.args(["serve", "--listen", "127.0.0.1:0", "--web-listen", "127.0.0.1:0", "--data-dir"]).arg(data);
        let mut child = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn()?;
        let mut lines = BufReader::new(child.stderr.take().ok_or("no output")?).lines();
        let (mut address, mut page) = (None, None);
        while address.is_none() || page.is_none() {
            let line = lines.next().ok_or("coord has ended")??;
            if let Some((_, found)) = line.split_once("listening on ") {
                address = Some(found.trim().to_owned());
            }
            if let Some((_, found)) = line.split_once("page at http://") {
                page = Some(found.trim_end_matches('/').to_owned());
            }
        }
        // What it says later must go somewhere; warnings say why something fails here.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok).filter(|line| line.contains(" WARN ") || line.contains(" ERROR ")) {
                // Nobody may be listening.
                let _ = writeln!(std::io::stderr(), "{line}");
            }
        });
        let (address, page) = (address.unwrap_or_default(), page.unwrap_or_default());
        Ok(Self { child, address, page, end: Arc::default() })
    }

    /// The most memory that it has had, in bytes, looked at all the time.
    fn watch_memory(&self) -> Arc<AtomicU64> {
        let (peak, end) = (Arc::new(AtomicU64::new(0)), Arc::clone(&self.end));
        let (most, path) = (Arc::clone(&peak), format!("/proc/{}/statm", self.child.id()));
        std::thread::spawn(move || {
            while !end.load(Ordering::Relaxed) {
                let pages = std::fs::read_to_string(&path).ok();
                let pages = pages.and_then(|text| text.split(' ').nth(1)?.parse::<u64>().ok()).unwrap_or(0);
                most.fetch_max(pages * 4096, Ordering::Relaxed);
                std::thread::sleep(Duration::from_millis(20));
            }
        });
        peak
    }

    fn submit(&self, coord: &Path, dir: &Path, ranks: u32) -> Result<String, Failure> {
        std::fs::write(dir.join("data.csv"), "x,y\n1,0\n2,1\n3,0\n4,1\n")?;
        let job = dir.join("job.toml");
        let text = format!(
            "name = \"ingest\"\nsteps = 1000000\nranks = {ranks}\nbatch = {{ size = {ranks} }}\n\
             model = {{ kind = \"mlp\", hidden = [4], outputs = 2 }}\n\
             data = {{ kind = \"csv\", path = \"data.csv\", target = \"y\" }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n"
        );
        std::fs::write(&job, text)?;
        let output = Command::new(coord).arg("submit").arg(&job).args(["--addr", &self.address]).output()?;
        if !output.status.success() {
            return Err(String::from_utf8_lossy(&output.stderr).into_owned().into());
        }
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    }

    fn last_step(&self, run: &str, name: &str) -> Result<u64, Failure> {
        let answer: serde_json::Value = serde_json::from_str(&self.get(&format!("/api/runs/{run}/series"))?)?;
        let of_name = |series: &&serde_json::Value| series["name"] == name;
        let found = answer["series"].as_array().ok_or("no series")?.iter().filter(of_name);
        Ok(found.filter_map(|series| series["last_step"].as_u64()).min().unwrap_or(0))
    }

    /// The body of the answer to GET `path`; all of it, from a connection of its own.
    fn get(&self, path: &str) -> Result<String, Failure> {
        let mut stream = TcpStream::connect(&self.page)?;
        write!(stream, "GET {path} HTTP/1.1\r\nHost: {}\r\nConnection: close\r\n\r\n", self.page)?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        let (head, body) = answer.split_once("\r\n\r\n").ok_or("no answer")?;
        if head.starts_with("HTTP/1.1 200 ") { Ok(body.to_owned()) } else { Err(format!("{path}: {head}").into()) }
    }
}

impl Drop for Coordinator {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        // Gone already, if it failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
