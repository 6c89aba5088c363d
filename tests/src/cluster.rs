//! A coordinator and workers as child processes on loopback.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use lockstep_common::numerics::VARIABLES;
use lockstep_support::{Process, binary, http, wait_within};
use serde_json::Value;

/// Limit for each wait of a test.
pub const DEADLINE: Duration = Duration::from_mins(2);

/// The file to which the coordinator's alarm command appends, in the cluster's directory.
const RUNG: &str = "alarms.jsonl";

/// A run's record: for each step, the bits of loss, gradient norm and learning rate.
pub type Record = BTreeMap<u64, [String; 3]>;

/// A coordinator and its workers. All are killed when the value is dropped.
#[derive(Debug)]
pub struct Cluster {
    dir: PathBuf,
    address: String,
    coordinator: Process,
    /// Environment variables that configure the coordinator.
    settings: Vec<(&'static str, &'static str)>,
    workers: Vec<Process>,
    /// Environment variables of every worker and every command.
    variables: Vec<(String, PathBuf)>,
    /// Environment variables that no worker inherits.
    left_out: &'static [&'static str],
}

impl Cluster {
    /// Starts a coordinator with its state in `dir`, and `nodes` workers with one CPU slot each.
    pub fn start(dir: &Path, nodes: usize) -> Self {
        Self::start_with(dir, nodes, &[])
    }

    /// As [`start`](Self::start), with additional environment variables for workers and commands; their values are paths.
    pub fn start_with(dir: &Path, nodes: usize, variables: &[(&str, &Path)]) -> Self {
        let mut cluster = Self::configured(dir, 0, &[]);
        cluster.variables = variables.iter().map(|(name, path)| ((*name).to_owned(), (*path).to_owned())).collect();
        cluster.add_workers(nodes)
    }

    /// As [`start`](Self::start), with environment variables for the coordinator, such as `LOCKSTEP_COORD_LEASE_MS`.
    pub fn configured(dir: &Path, nodes: usize, settings: &[(&'static str, &'static str)]) -> Self {
        let coordinator = serve(dir, "127.0.0.1:0", settings);
        let address = coordinator.line("address of the coordinator", DEADLINE, |line| {
            Some(line.split_once("listening on ")?.1.trim().to_owned())
        });
        let (dir, settings) = (dir.to_owned(), settings.to_vec());
        let (workers, variables) = (Vec::new(), Vec::new());
        let cluster = Self { dir, address, coordinator, settings, workers, variables, left_out: &[] };
        cluster.add_workers(nodes)
    }

    /// As [`start`](Self::start), but workers inherit none of the variables that change bits.
    pub fn start_plain(dir: &Path, nodes: usize) -> Self {
        Self { left_out: VARIABLES, ..Self::start(dir, 0) }.add_workers(nodes)
    }

    fn add_workers(mut self, count: usize) -> Self {
        for _ in 0..count {
            self.add_worker();
        }
        self
    }

    /// The alarms of `run` that the coordinator has passed to its alarm command so far.
    pub fn rung(&self, run: &str) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.join(RUNG)).unwrap_or_default();
        // A line without a line feed is still being written.
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        let told = lines.map(|line| serde_json::from_str::<Value>(line).expect("each alarm is a line of JSON"));
        told.filter(|told| told["run"] == run).map(|told| told["alarm"].clone()).collect()
    }

    /// Starts one more worker, and waits until it has joined.
    pub fn add_worker(&mut self) {
        self.add_worker_with(&[]);
    }

    /// Starts one more worker, with `fault` as `LOCKSTEP_FAULT`, which injects an error into its rank processes.
    pub fn add_worker_with_fault(&mut self, fault: Option<&str>) {
        self.add_worker_with(fault.map(|fault| ("LOCKSTEP_FAULT", fault)).as_slice());
    }

    /// Starts one more worker with additional environment variables, and waits until it has joined.
    pub fn add_worker_with(&mut self, variables: &[(&str, &str)]) {
        self.workers.push(self.worker(self.workers.len(), variables));
        let name = format!("node-{}", self.workers.len() - 1);
        let joined = |node: &Value| node["id"] == name && node["alive"] == true;
        wait_for("the node to join", || self.ask(&["nodes"]).as_array()?.iter().any(joined).then_some(()));
    }

    /// Starts one more worker through `program`, a command with its first arguments. Does not wait until it joins.
    pub fn add_worker_under(&mut self, program: &[&str]) {
        let mut command = Command::new(program[0]);
        command.args(&program[1..]).arg(binary("worker")).args(self.arguments(self.workers.len()));
        self.workers.push(Process::start(&mut command));
    }

    /// The agent process of worker `index`.
    pub fn worker_process(&mut self, index: usize) -> &mut Process {
        &mut self.workers[index]
    }

    /// Kills a worker's agent with SIGKILL, and starts the same node again with these additional environment variables.
    pub fn restart_worker_with(&mut self, index: usize, variables: &[(&str, &str)]) {
        self.workers[index].kill();
        self.workers[index] = self.worker(index, variables);
    }

    /// Sends SIGTERM to a worker's agent, as on a preemption, and returns its exit code.
    pub fn stop_worker(&mut self, index: usize) -> i32 {
        self.workers[index].stop(DEADLINE)
    }

    /// A node's `state` in `coord nodes --json`; `unknown` if there is no such node.
    pub fn node_state(&self, name: &str) -> String {
        let nodes = self.ask(&["nodes"]);
        let node = nodes.as_array().into_iter().flatten().find(|node| node["id"] == name);
        node.and_then(|node| node["state"].as_str()).unwrap_or("unknown").to_owned()
    }

    /// The coordinator's process.
    pub fn coordinator_process(&mut self) -> &mut Process {
        &mut self.coordinator
    }

    fn worker(&self, index: usize, variables: &[(&str, &str)]) -> Process {
        let mut command = Command::new(binary("worker"));
        for name in self.left_out {
            command.env_remove(name);
        }
        command.args(self.arguments(index)).envs(self.variables.iter().cloned()).envs(variables.iter().copied());
        Process::start(&mut command)
    }

    /// The command line of worker `index`.
    fn arguments(&self, index: usize) -> [String; 10] {
        let name = format!("node-{index}");
        let data = self.dir.join(&name).display().to_string();
        ["--join", &self.address, "--name", &name, "--data-dir", &data, "--devices", "cpu", "--slots", "1"]
            .map(str::to_owned)
    }

    /// Kills the coordinator with SIGKILL.
    pub fn kill_coordinator(&mut self) {
        self.coordinator.kill();
    }

    /// Sends SIGTERM to the coordinator, and returns its exit code.
    pub fn stop_coordinator(&mut self) -> i32 {
        self.coordinator.stop(DEADLINE)
    }

    /// Starts the coordinator again with the same directory and port, and waits until it answers.
    pub fn restart_coordinator(&mut self) {
        self.coordinator = serve(&self.dir, &self.address, &self.settings);
        wait_for("the coordinator to answer", || {
            let code = self.coordinator.exit_code();
            assert_eq!(code, None, "it has ended: {}", self.coordinator.output());
            self.coord(&["ps"]).status.success().then_some(())
        });
    }

    /// Kills a worker's agent with SIGKILL.
    pub fn kill_worker(&mut self, index: usize) {
        self.workers[index].kill();
    }

    /// The coordinator's gRPC address, `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The address of the coordinator's page, `127.0.0.1:PORT`.
    pub fn page(&self) -> String {
        self.coordinator.line("address of the page", DEADLINE, |line| {
            Some(line.split_once("page at http://")?.1.trim_end_matches('/').to_owned())
        })
    }

    /// Status and body of the page's answer to GET `path`.
    pub fn get(&self, path: &str) -> (u16, String) {
        self.http("GET", path, "")
    }

    /// Status and body of the page's answer to a request.
    pub fn http(&self, method: &str, path: &str, body: &str) -> (u16, String) {
        http(&self.page(), method, path, body, DEADLINE)
    }

    /// The JSON document at `path` of the page's API.
    pub fn document(&self, path: &str) -> Value {
        let (status, body) = self.get(path);
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_str(&body).expect("the API answers JSON")
    }

    /// The directory of the coordinator's store.
    pub fn store(&self) -> PathBuf {
        self.dir.join("coord/store")
    }

    /// Runs `coord` with `arguments` against this cluster.
    pub fn coord(&self, arguments: &[&str]) -> Output {
        let mut command = Command::new(binary("coord"));
        command.args(arguments).args(["--addr", &self.address]).envs(self.variables.iter().cloned());
        command.output().expect("coord is built")
    }

    /// Runs a `coord` command that must succeed, and returns its standard output.
    pub fn run(&self, arguments: &[&str]) -> String {
        let output = self.coord(arguments);
        assert!(output.status.success(), "coord {arguments:?}: {output:?}\ncoordinator: {}", self.coordinator.output());
        String::from_utf8(output.stdout).expect("coord writes UTF-8")
    }

    /// Runs a `coord` command with `--json`, and returns its output.
    pub fn ask(&self, arguments: &[&str]) -> Value {
        let arguments: Vec<&str> = arguments.iter().copied().chain(["--json"]).collect();
        serde_json::from_str(&self.run(&arguments)).expect("--json prints JSON")
    }

    /// Submits a job, with `more` arguments, and returns the run's id.
    pub fn submit(&self, job: &str, more: &[&str]) -> String {
        let arguments: Vec<&str> = ["submit", job].iter().chain(more).copied().chain(["--json"]).collect();
        let reply: Value = serde_json::from_str(&self.run(&arguments)).expect("--json prints JSON");
        reply["run"].as_str().expect("a run id").to_owned()
    }

    /// Resumes from a checkpoint, and returns the new run's id.
    pub fn resume(&self, checkpoint: &str) -> String {
        let reply: Value = serde_json::from_str(&self.run(&["resume", checkpoint, "--json"])).expect("JSON");
        reply["run"].as_str().expect("a run id").to_owned()
    }

    /// The document of a run: `coord show --json`.
    pub fn show(&self, run: &str) -> Value {
        self.ask(&["show", run])
    }

    /// The same document, read from the page. A request costs 0.2 ms; `coord show` starts a program.
    fn view(&self, run: &str) -> Value {
        self.document(&format!("/api/runs/{run}"))
    }

    /// Waits until a run has ended with any status, and returns its document.
    pub fn ended(&self, run: &str) -> Value {
        self.ended_within(run, DEADLINE)
    }

    /// As [`ended`](Self::ended) with another limit, for runs whose program must be compiled first.
    pub fn ended_within(&self, run: &str, deadline: Duration) -> Value {
        wait_within(deadline, "the run to end", || {
            let view = self.view(run);
            let status = view["status"].as_str()?;
            ["finished", "failed", "cancelled", "unsaved"].contains(&status).then_some(view)
        })
    }

    /// Waits until a run has finished, and returns the digest of its final state.
    pub fn finished(&self, run: &str) -> String {
        self.finished_within(run, DEADLINE)
    }

    /// As [`finished`](Self::finished) with another limit.
    pub fn finished_within(&self, run: &str, deadline: Duration) -> String {
        let view = self.ended_within(run, deadline);
        assert_eq!(view["status"], "finished", "{view:#}");
        view["final_state_digest"].as_str().expect("a digest").to_owned()
    }

    /// Waits until a run has completed `step` steps.
    pub fn reached(&self, run: &str, step: u64) {
        wait_for("the run's progress", || {
            let view = self.view(run);
            assert_ne!(view["status"], "failed", "{view:#}");
            (view["step"].as_u64()? >= step).then_some(())
        });
    }

    /// A run's record.
    ///
    /// # Panics
    /// If a step is recorded twice: a roll-back must remove its steps, even if the re-run gave the same bits.
    pub fn record(&self, run: &str) -> Record {
        let metrics = self.ask(&["show", run, "--metrics"]);
        let bits = |step: &Value, key: &str| step[key].as_str().expect("bits").to_owned();
        let mut record = Record::new();
        for step in metrics["steps"].as_array().expect("steps") {
            let number = step["step"].as_u64().expect("a step");
            let bits = [bits(step, "loss_bits"), bits(step, "grad_norm_bits"), bits(step, "lr_bits")];
            assert!(record.insert(number, bits).is_none(), "step {number} of run {run} is recorded twice");
        }
        record
    }

    /// A run's checkpoints, oldest first: step and id.
    pub fn checkpoints(&self, run: &str) -> Vec<(u64, String)> {
        let list = self.ask(&["checkpoints", run]);
        let of =
            |entry: &Value| (entry["step"].as_u64().expect("a step"), entry["id"].as_str().expect("an id").to_owned());
        list.as_array().expect("checkpoints").iter().map(of).collect()
    }

    /// The process ids of the rank processes that train `run`, by process number.
    pub fn rank_pids(&self, run: &str) -> BTreeMap<u32, u32> {
        let mut pids = BTreeMap::new();
        for entry in std::fs::read_dir("/proc").expect("/proc").flatten() {
            let Ok(pid) = entry.file_name().to_string_lossy().parse::<u32>() else { continue };
            let Ok(line) = std::fs::read(entry.path().join("cmdline")) else { continue };
            let words: Vec<&str> =
                line.split(|byte| *byte == 0).filter_map(|word| std::str::from_utf8(word).ok()).collect();
            let after = |flag: &str| words.iter().position(|word| *word == flag).and_then(|at| words.get(at + 1));
            if words.first().is_some_and(|program| program.contains("worker")) && after("--run") == Some(&run) {
                let process = after("--process").and_then(|text| text.parse().ok());
                pids.insert(process.expect("a rank process names its number"), pid);
            }
        }
        pids
    }
}

fn serve(dir: &Path, listen: &str, settings: &[(&str, &str)]) -> Process {
    let mut command = Command::new(binary("coord"));
    // The default, ten ports above the free port, could belong to another test.
    command.args(["serve", "--listen", listen, "--web-listen", "127.0.0.1:0", "--data-dir"]).arg(dir.join("coord"));
    let rung = format!("cat >> '{}'", dir.join(RUNG).display());
    command.env("LOCKSTEP_COORD_ALARMS__COMMAND", rung).envs(settings.iter().copied());
    Process::start(&mut command)
}

/// Calls `look` until it returns a value.
///
/// # Panics
/// If it returns none within [`DEADLINE`].
pub fn wait_for<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    wait_within(DEADLINE, what, look)
}
