//! A coordinator for tests: stores and acknowledges the messages of agents, and can be killed and restarted.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use lockstep_net::listen::{Limits, Port, Speaks};
use lockstep_rpc::agent_message::Body as Said;
use lockstep_rpc::agents_server::{Agents, AgentsServer};
use lockstep_rpc::coordinator_message::Body as Tell;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    Acknowledged, AgentMessage, Assignment, AssignmentRequest, CoordinatorMessage, Desired, DesiredProcess, DesiredRun,
    Hello, LogReply, LogRequest, PROTOCOL, Peers, Report, StoreSeen, Welcome,
};
use lockstep_support::wait_within;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic::{Request, Response, Status, Streaming};

/// How long a test waits for anything.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Name of the files of the check at join, and the content of the coordinator's file.
const CHECK: &str = "c1";
pub(crate) const WROTE: &str = "by the coordinator";

/// A store in which the coordinator has written its part of the check.
fn store() -> TempDir {
    let store = tempfile::tempdir().unwrap();
    std::fs::create_dir(store.path().join("tmp")).unwrap();
    std::fs::write(store.path().join(format!("tmp/join-{CHECK}.owner")), WROTE).unwrap();
    store
}

/// Run, generation and process.
pub(crate) type Key = (String, u64, u32);

/// State that survives a restart of the coordinator.
#[derive(Default)]
pub(crate) struct Memory {
    /// Reports of each process in order, each number once.
    pub(crate) reports: BTreeMap<Key, Vec<Report>>,
    /// Number of reports that were sent again.
    pub(crate) repeated: usize,
    pub(crate) hellos: Vec<Hello>,
    pub(crate) heartbeats: usize,
    /// Number of agents that announced their end.
    pub(crate) leaving: usize,
    /// Results of the agents' checks of the store.
    pub(crate) seen: Vec<StoreSeen>,
    /// If set, agents are refused for this reason.
    pub(crate) refuses: Option<String>,
    pub(crate) protocol: u32,
    pub(crate) acknowledges: bool,
    pub(crate) logs: BTreeMap<u64, LogReply>,
    desired: Vec<Desire>,
    asked: Vec<LogRequest>,
    questions: u64,
}

/// A process that should run.
#[derive(Clone)]
pub(crate) struct Desire {
    pub(crate) assignment: Assignment,
    /// Addresses of its generation, which it gets once it is ready.
    pub(crate) peers: Vec<String>,
}

impl From<Assignment> for Desire {
    fn from(assignment: Assignment) -> Self {
        Self { assignment, peers: Vec::new() }
    }
}

impl Memory {
    fn told(&self) -> Desired {
        let run = |Desire { assignment, .. }: &Desire| DesiredRun {
            run: assignment.run.clone(),
            generation: assignment.generation,
            processes: vec![DesiredProcess { process: assignment.process, device: assignment.device.clone() }],
            save: None,
        };
        Desired { runs: self.desired.iter().map(run).collect() }
    }

    fn assignment(&self, asked: &AssignmentRequest, store: &str) -> Option<Assignment> {
        let is_asked =
            |one: &&Desire| (&one.assignment.run, one.assignment.generation) == (&asked.run, asked.generation);
        let found = self.desired.iter().find(is_asked)?.assignment.clone();
        let store = if found.store.is_empty() { store.to_owned() } else { found.store.clone() };
        Some(Assignment { process: 0, device: String::new(), store, ..found })
    }

    /// The peers of desired processes that are ready.
    fn met(&self) -> Vec<Peers> {
        let met = |one: &Desire| {
            let Assignment { run, generation, process, .. } = one.assignment.clone();
            let bodies = self.bodies(&(run.clone(), generation, process));
            let is_ready = bodies.iter().any(|body| matches!(body, Body::Ready(_)));
            (is_ready && !one.peers.is_empty()).then(|| Peers { run, generation, addresses: one.peers.clone() })
        };
        self.desired.iter().filter_map(met).collect()
    }

    /// The messages of `key`, without their numbers.
    pub(crate) fn bodies(&self, key: &Key) -> Vec<Body> {
        let reports = self.reports.get(key).into_iter().flatten();
        reports.map(|report| report.message.clone().unwrap().body.unwrap()).collect()
    }

    /// The last step that `key` reported.
    pub(crate) fn step(&self, key: &Key) -> u64 {
        let mut steps = self.bodies(key).into_iter().filter_map(|body| match body {
            Body::Block(block) => Some(block.known().last_step),
            _ => None,
        });
        steps.next_back().unwrap_or(0)
    }

    fn take(&mut self, report: Report) -> Acknowledged {
        let key = (report.run.clone(), report.generation, report.process);
        let done = Acknowledged {
            run: report.run.clone(),
            generation: report.generation,
            process: report.process,
            sequence: report.sequence,
            applied: 0,
        };
        let said = self.reports.entry(key).or_default();
        let expected = said.len() as u64 + 1;
        assert!(report.sequence >= 1 && report.sequence <= expected, "{} after {}", report.sequence, expected - 1);
        if report.sequence == expected {
            said.push(report);
        } else {
            assert_eq!(said[report.sequence as usize - 1], report, "a number has one meaning");
            self.repeated += 1;
        }
        done
    }
}

#[derive(Clone)]
struct Service {
    memory: Arc<Mutex<Memory>>,
    changed: watch::Sender<()>,
    lease: Duration,
    store: Arc<TempDir>,
}

/// A test coordinator, running or not.
pub(crate) struct Coordinator {
    service: Service,
    address: SocketAddr,
    runtime: Option<Runtime>,
}

impl Coordinator {
    pub(crate) fn new() -> Self {
        let mut coordinator = Self::not_yet_started();
        coordinator.start();
        coordinator
    }

    /// A coordinator with an address on which nobody listens yet.
    pub(crate) fn not_yet_started() -> Self {
        let memory = Memory { acknowledges: true, protocol: PROTOCOL, ..Default::default() };
        let service = Service {
            memory: Arc::new(Mutex::new(memory)),
            changed: watch::channel(()).0,
            lease: Duration::from_millis(300),
            store: Arc::new(store()),
        };
        // 127.0.0.2, because servers of other tests take ports of 127.0.0.1.
        let address = std::net::TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap();
        Self { service, address, runtime: None }
    }

    pub(crate) fn address(&self) -> String {
        self.address.to_string()
    }

    pub(crate) fn start(&mut self) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let port = runtime.block_on(Port::open(self.address, Speaks::Http2, Limits::of(64))).unwrap();
        let routes = Routes::new(AgentsServer::new(self.service.clone()));
        runtime.spawn(lockstep_net::serve(port, routes, CancellationToken::new()));
        self.runtime = Some(runtime);
    }

    /// Ends it as kill -9 does: all connections break without a message.
    pub(crate) fn kill(&mut self) {
        self.runtime.take().unwrap().shutdown_timeout(DEADLINE);
    }

    /// Directory of the store, which has the files of the check at join.
    pub(crate) fn store(&self) -> &std::path::Path {
        self.service.store.path()
    }

    /// Gives it another store from its next start on.
    pub(crate) fn move_store(&mut self) {
        self.service.store = Arc::new(store());
    }

    pub(crate) fn memory(&self) -> MutexGuard<'_, Memory> {
        self.service.memory.lock().unwrap()
    }

    pub(crate) fn desire(&self, desired: Vec<Desire>) {
        self.memory().desired = desired;
        self.service.changed.send_replace(());
    }

    /// Reads a whole log as a client would; returns it when `enough` says so, or at its end.
    pub(crate) fn read_log(&self, key: &Key, enough: impl Fn(&str) -> bool) -> (String, bool) {
        let (mut text, mut offset) = (Vec::new(), 0);
        let deadline = Instant::now() + DEADLINE;
        loop {
            let id = {
                let mut memory = self.memory();
                memory.questions += 1;
                let (id, (run, generation, process)) = (memory.questions, key.clone());
                memory.asked.push(LogRequest { id, run, process, generation, offset });
                id
            };
            self.service.changed.send_replace(());
            let reply = self.wait("a log", |memory| memory.logs.remove(&id));
            text.extend(reply.text);
            offset = reply.next_offset;
            let so_far = String::from_utf8(text.clone()).unwrap();
            if reply.end || enough(&so_far) {
                return (so_far, reply.end);
            }
            assert!(Instant::now() < deadline, "not enough in {so_far:?}");
        }
    }

    /// Waits until `found` finds something.
    pub(crate) fn wait<T>(&self, what: &str, mut found: impl FnMut(&mut Memory) -> Option<T>) -> T {
        wait_within(DEADLINE, what, || found(&mut self.memory()))
    }

    /// Waits until `key` said something that `wanted` picks.
    pub(crate) fn hear<T>(&self, what: &str, key: &Key, wanted: impl Fn(Body) -> Option<T>) -> T {
        self.wait(what, |memory| memory.bodies(key).into_iter().find_map(&wanted))
    }
}

#[tonic::async_trait]
impl Agents for Service {
    type AttachStream = ReceiverStream<Result<CoordinatorMessage, Status>>;

    async fn attach(&self, request: Request<Streaming<AgentMessage>>) -> Result<Response<Self::AttachStream>, Status> {
        let mut said = request.into_inner();
        let Some(AgentMessage { body: Some(Said::Hello(hello)) }) = said.message().await? else {
            return Err(Status::invalid_argument("no hello"));
        };
        let (tell, told) = mpsc::channel(16);
        self.memory.lock().unwrap().hellos.push(hello);
        let service = self.clone();
        tokio::spawn(async move { service.serve(said, tell).await });
        Ok(Response::new(ReceiverStream::new(told)))
    }
}

impl Service {
    async fn serve(
        self,
        mut said: Streaming<AgentMessage>,
        tell: mpsc::Sender<Result<CoordinatorMessage, Status>>,
    ) -> Option<()> {
        let send = async |body| tell.send(Ok(CoordinatorMessage { body: Some(body) })).await.ok();
        let lease_ms = self.lease.as_millis() as u64;
        let store = self.store.path().display().to_string();
        let (cluster, version) = ("test".to_owned(), "1.2.3".to_owned());
        let protocol = self.memory.lock().unwrap().protocol;
        let start = "0011".to_owned();
        let welcome = Welcome { cluster, lease_ms, store, check: CHECK.into(), version, protocol, start };
        send(Tell::Welcome(welcome)).await?;
        let refused = self.memory.lock().unwrap().refuses.clone();
        if let Some(why) = refused {
            tell.send(Err(Status::failed_precondition(why))).await.ok()?;
            // Keep the stream open until the agent has read the refusal.
            while said.message().await.ok()?.is_some() {}
            return None;
        }
        let mut told = BTreeSet::new();
        let mut changed = self.changed.subscribe();
        changed.mark_changed();
        loop {
            tokio::select! {
                result = changed.changed() => {
                    result.ok()?;
                    let (desired, met, asked) = {
                        let mut memory = self.memory.lock().unwrap();
                        (memory.told(), memory.met(), std::mem::take(&mut memory.asked))
                    };
                    send(Tell::Desired(desired)).await?;
                    for peers in met {
                        send(Tell::Peers(peers)).await?;
                    }
                    for request in asked {
                        send(Tell::Log(request)).await?;
                    }
                }
                message = said.message() => {
                    let message = message.ok()??;
                    if let Some(Said::Fetch(asked)) = &message.body {
                        let store = self.store.path().display().to_string();
                        let found = self.memory.lock().unwrap().assignment(asked, &store);
                        if let Some(assignment) = found {
                            send(Tell::Assignment(assignment)).await?;
                        }
                    }
                    if let Some(done) = self.remember(message) {
                        send(Tell::Acknowledged(done)).await?;
                    }
                    let met = self.memory.lock().unwrap().met();
                    for peers in met.into_iter().filter(|peers| told.insert((peers.run.clone(), peers.generation))) {
                        send(Tell::Peers(peers)).await?;
                    }
                }
            }
        }
    }

    fn remember(&self, message: AgentMessage) -> Option<Acknowledged> {
        let mut memory = self.memory.lock().unwrap();
        match message.body? {
            Said::Hello(_) => panic!("a second hello on one stream"),
            Said::Heartbeat(_) => memory.heartbeats += 1,
            Said::Fetch(_) => {}
            Said::Leaving(_) => memory.leaving += 1,
            Said::Store(seen) => memory.seen.push(seen),
            Said::Log(reply) => {
                memory.logs.insert(reply.id, reply);
            }
            Said::Report(report) => {
                let done = memory.take(report);
                return memory.acknowledges.then_some(done);
            }
        }
        None
    }
}
