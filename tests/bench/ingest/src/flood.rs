//! Hostile clients: a coordinator's memory, and the waiting time of another client meanwhile.

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::query_request::What;
use lockstep_rpc::{BlobChunk, Empty, EncodedBlock, GetBlobRequest, MediaReport, QueryRequest, ReportBlock};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio_stream::wrappers::ReceiverStream;

use crate::agent::Agent;
use crate::control::{Client, connect};
use crate::coordinator::Coordinator;
use crate::failure::Failure;

/// Interval between two requests of the probe.
const PACE: Duration = Duration::from_millis(100);
/// Time after which the probe gives up; a request that failed counts as this long.
const GIVEN_UP: Duration = Duration::from_secs(2);
/// Limit for the start of a flood.
const PATIENCE: Duration = Duration::from_secs(20);
/// Number of uploads on one connection.
const TOGETHER: usize = 52;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Path of the program `coord`.
    coord: PathBuf,
    /// Duration of each flood, in seconds.
    #[arg(long, default_value_t = 8)]
    seconds: u64,
    /// Number of silent connections.
    #[arg(long, default_value_t = 1200)]
    connections: usize,
    /// Number of readers of a blob of 32 MiB that stop reading.
    #[arg(long, default_value_t = 30)]
    readers: usize,
    /// Number of uploads that stall.
    #[arg(long, default_value_t = 520)]
    uploads: usize,
    /// Number of browsers that listen to events.
    #[arg(long, default_value_t = 50)]
    listeners: usize,
    /// Number of runs whose events they receive.
    #[arg(long, default_value_t = 500)]
    runs: u32,
    /// Number of texts of 8 MiB in the reports of one run.
    #[arg(long, default_value_t = 20)]
    texts: u64,
    /// Run only floods whose name contains this text.
    #[arg(long, default_value = "")]
    only: String,
}

/// Resources of a flood, which ends when they are dropped.
type Held = Box<dyn std::any::Any + Send>;

/// Runs each flood, and prints one line of JSON for each.
pub(crate) async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    for name in ["none", "silent on gRPC", "silent on the page", "slow readers", "still uploads", "listeners", "texts"]
    {
        if name.contains(&arguments.only) {
            let found = arguments.one(name).await?;
            writeln!(std::io::stdout(), "{found}")?;
        }
    }
    Ok(())
}

impl Arguments {
    async fn one(&self, name: &str) -> Result<serde_json::Value, Failure> {
        let dir = tempfile::tempdir()?;
        let coordinator = Arc::new(Coordinator::start(&self.coord, &dir.path().join("data"))?);
        let prepared = self.prepare(name, &coordinator).await?;
        let (before, cpu) = (coordinator.memory()?, coordinator.cpu_seconds()?);
        let peak = coordinator.watch_memory();
        let probe = Probe::start(coordinator.address.clone(), Duration::from_secs(self.seconds));
        let end = Instant::now() + Duration::from_secs(self.seconds);
        let flood = tokio::time::timeout(PATIENCE, self.flood(name, &coordinator, prepared, end)).await;
        let held = flood.unwrap_or_else(|_| Err(format!("the flood did not start within {PATIENCE:?}").into()));
        while !probe.0.is_finished() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut waits = probe.0.join().map_err(|_| "the probe panicked")?;
        waits.sort_by(f64::total_cmp);
        let cpu = coordinator.cpu_seconds()? - cpu;
        let failed = held.as_ref().err().map(ToString::to_string);
        drop(held);
        let (median, worst) = (waits.get(waits.len() / 2), waits.last());
        let given_up = waits.iter().filter(|ms| **ms >= GIVEN_UP.as_secs_f64() * 1e3).count();
        Ok(serde_json::json!({
            "flood": name, "memory_before_mb": before >> 20, "memory_peak_mb": peak.load(Ordering::Relaxed) >> 20,
            "median_ms": median, "worst_ms": worst, "looks": waits.len(), "given_up": given_up, "cpu_s": cpu,
            "failed": failed,
        }))
    }

    /// Submits the runs that a flood needs, and returns their ids.
    async fn prepare(&self, name: &str, coordinator: &Coordinator) -> Result<Vec<String>, Failure> {
        let runs = match name {
            "listeners" => self.runs,
            "texts" => 1,
            _ => 0,
        };
        let mut client = Client::connect(&coordinator.address, 0).await?;
        let mut ids = Vec::new();
        for _ in 0..runs {
            ids.push(client.submit("flood", 1, 1_000_000, 0).await?);
        }
        Ok(ids)
    }

    /// Starts a flood; `listeners` returns at `end`, the others once they have started.
    async fn flood(&self, name: &str, to: &Coordinator, runs: Vec<String>, end: Instant) -> Result<Held, Failure> {
        match name {
            "silent on gRPC" => Ok(Box::new(silent(&to.address, self.connections).await)),
            "silent on the page" => Ok(Box::new(silent(&to.page, self.connections).await)),
            "slow readers" => Ok(Box::new(self.read_slowly(&to.address).await?)),
            "still uploads" => Ok(Box::new(self.upload_nothing(&to.address).await?)),
            "listeners" => Ok(Box::new(self.listen(to, runs, end).await?)),
            "texts" => Ok(Box::new(self.write_texts(&to.address).await?)),
            _ => Ok(Box::new(())),
        }
    }

    async fn read_slowly(&self, address: &str) -> Result<Held, Failure> {
        let chunks = vec![BlobChunk { data: vec![7; 1 << 20] }; 32];
        let blob = connect(address).await?.put_blob(tokio_stream::iter(chunks)).await?.into_inner();
        let mut streams = Vec::new();
        for _ in 0..self.readers {
            let mut client = connect(address).await?;
            let mut stream =
                client.get_blob(GetBlobRequest { blob: Some(blob.clone()), offset: 0 }).await?.into_inner();
            stream.message().await?;
            streams.push((client, stream));
        }
        Ok(Box::new(streams))
    }

    async fn upload_nothing(&self, address: &str) -> Result<Held, Failure> {
        let (mut tasks, mut held) = (JoinSet::new(), Vec::new());
        let mut client = connect(address).await?;
        for number in 0..self.uploads {
            if number % TOGETHER == 0 {
                client = connect(address).await?;
            }
            let (to, chunks) = mpsc::channel(1);
            to.send(BlobChunk { data: vec![7; 1024] }).await?;
            held.push(to);
            let mut client = client.clone();
            tasks.spawn(async move { client.put_blob(ReceiverStream::new(chunks)).await });
        }
        Ok(Box::new((tasks, held)))
    }

    async fn listen(&self, to: &Coordinator, runs: Vec<String>, end: Instant) -> Result<Held, Failure> {
        let mut tasks = JoinSet::new();
        for _ in 0..self.listeners {
            let mut stream = TcpStream::connect(&to.page).await?;
            stream.write_all(format!("GET /api/events HTTP/1.1\r\nHost: {}\r\n\r\n", to.page).as_bytes()).await?;
            tasks.spawn(async move {
                let mut bytes = vec![0; 1 << 16];
                while stream.read(&mut bytes).await.is_ok_and(|count| count > 0) {}
            });
        }
        let mut client = Client::connect(&to.address, 1 << 40).await?;
        for (number, run) in runs.into_iter().cycle().enumerate() {
            if Instant::now() >= end {
                break;
            }
            client.tag(&run, format!("t{number}")).await?;
            tokio::time::sleep(PACE / 2).await;
        }
        Ok(Box::new(tasks))
    }

    async fn write_texts(&self, address: &str) -> Result<Held, Failure> {
        let mut agent = Agent::attach(address, 1).await?;
        let assigned = agent.assigned(1).await?;
        agent.ready(&assigned[0]).await?;
        for number in 0..self.texts {
            let text = "x".repeat(8 << 20);
            let media =
                MediaReport { name: "text".into(), step: number, kind: "text".into(), text, ..MediaReport::default() };
            let block = ReportBlock { process: 0, media: vec![media], ..ReportBlock::default() };
            agent.say(&assigned[0], number + 2, Said::Block(EncodedBlock::of(block))).await?;
        }
        agent.acknowledged_to(&assigned, self.texts + 1).await?;
        Ok(Box::new(agent))
    }
}

/// Opens up to `connections` connections that send nothing.
async fn silent(address: &str, connections: usize) -> Vec<TcpStream> {
    let mut held = Vec::new();
    for _ in 0..connections {
        if let Ok(Ok(stream)) = tokio::time::timeout(GIVEN_UP, TcpStream::connect(address)).await {
            held.push(stream);
        }
    }
    held
}

/// A thread that asks for the nodes again and again, each time with a new client, and returns the milliseconds of each request.
struct Probe(std::thread::JoinHandle<Vec<f64>>);

impl Probe {
    fn start(address: String, time: Duration) -> Self {
        Self(std::thread::spawn(move || {
            let mut waits = Vec::new();
            let Ok(runtime) = tokio::runtime::Builder::new_current_thread().enable_all().build() else { return waits };
            runtime.block_on(async {
                let end = Instant::now() + time;
                while Instant::now() < end {
                    let begin = Instant::now();
                    let look = async {
                        let what = Some(What::Nodes(Empty {}));
                        Ok::<_, Failure>(connect(&address).await?.query(QueryRequest { what }).await?)
                    };
                    let seen = tokio::time::timeout(GIVEN_UP, look).await.is_ok_and(|seen| seen.is_ok());
                    let wait = if seen { begin.elapsed() } else { GIVEN_UP };
                    waits.push(wait.as_secs_f64() * 1e3);
                    tokio::time::sleep(PACE.saturating_sub(begin.elapsed())).await;
                }
            });
            waits
        }))
    }
}
