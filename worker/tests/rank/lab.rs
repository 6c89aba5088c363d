//! A directory with data and a store, a job that trains on it, and the outcome of runs.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::{Path, PathBuf};

use lockstep_common::Digest;
use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_common::manifest::{DataFile, Manifest};
use lockstep_host::data::{Listed, hash_files};
use lockstep_rpc::{Assignment, Corrupt, EvalReport, LayerReport, Restore, StepReport, SystemReport};
use lockstep_store::BlobStore;

use crate::processes::{Processes, RUN};

/// Maximum number of processes that share one CUDA device.
const MOST_PROCESSES: u32 = 6;

/// The TorchScript module `<name>.pt` that `tests/<script>.py` writes.
pub(crate) fn module(script: &str, name: &str) -> Vec<u8> {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join(format!("tests/{script}.py"));
    let modules = lockstep_support::modules(&script, Path::new(env!("CARGO_TARGET_TMPDIR")));
    std::fs::read(modules.join(format!("{name}.pt"))).unwrap()
}

/// A directory with data and a store, and a job that trains on it.
pub(crate) struct Lab {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) job: JobSpec,
    pub(crate) data: Vec<DataFile>,
    /// Further environment variables of single processes; they override those of the job.
    pub(crate) variables: BTreeMap<u32, Vec<(String, String)>>,
    /// Whether gradients go through the network although all processes are on this machine.
    pub(crate) messages: bool,
    /// The device of every process, as assignments name it.
    pub(crate) device: &'static str,
    /// Whether processes do not inherit the environment variables that change bits.
    pub(crate) plain: bool,
}

/// The results of a run.
#[derive(Default)]
pub(crate) struct Outcome {
    pub(crate) steps: Vec<StepReport>,
    pub(crate) layers: Vec<LayerReport>,
    pub(crate) evals: Vec<EvalReport>,
    pub(crate) systems: Vec<(u32, SystemReport)>,
    pub(crate) manifests: Vec<Manifest>,
    pub(crate) checkpoint_failures: Vec<(u64, String)>,
    /// Digests of the final states, by process.
    pub(crate) states: Vec<Digest>,
    pub(crate) failures: Vec<String>,
    /// Reports of processes whose states differ.
    pub(crate) corrupt: Vec<Corrupt>,
    /// Exit codes by process, or 128 + signal.
    pub(crate) codes: Vec<i32>,
    pub(crate) stderr: String,
}

impl Outcome {
    /// The digest of the final state, which must be equal in all processes.
    pub(crate) fn state(&self) -> Digest {
        assert!(!self.states.is_empty(), "the run did not finish: {:?}\n{}", self.failures, self.stderr);
        assert!(self.states.iter().all(|state| *state == self.states[0]), "{:?}", self.states);
        self.states[0]
    }

    /// For each step: step, loss, gradient norm, learning rate, positions and bytes of the samples, as bits.
    pub(crate) fn record(&self) -> Vec<[u64; 6]> {
        assert!(self.steps.iter().all(|step| step.contents != 0), "the samples' bytes are known");
        let words = |step: &StepReport| [step.step, step.loss, step.grad_norm, step.lr, step.positions, step.contents];
        self.steps.iter().map(words).collect()
    }

    pub(crate) fn manifest_at(&self, step: u64) -> &Manifest {
        self.manifests.iter().find(|manifest| manifest.step == step).expect("a checkpoint at that step")
    }
}

/// A table of 50 rows with 6 numbers and one of three classes, computed by integer arithmetic.
pub(crate) fn table() -> String {
    let mut text = "a,b,c,d,e,f,class\n".to_owned();
    for row in 0..50_u64 {
        let cells: Vec<String> = (0..6)
            .map(|column| {
                let mixed = (row * 6 + column + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
                format!("{:.4}", (mixed >> 40) as f64 / (1_u64 << 23) as f64 - 1.0 + 0.3 * (row % 3) as f64)
            })
            .collect();
        writeln!(text, "{},{}", cells.join(","), row % 3).unwrap();
    }
    text
}

impl Lab {
    /// A lab for the job `text` with `sets`, and with files that are given by name and contents.
    pub(crate) fn new(text: &str, sets: &[&str], files: &[(&str, Vec<u8>)]) -> Self {
        lockstep_tch_ext::exit::skip_static_destructors();
        let dir = tempfile::tempdir().unwrap();
        // Processes do not create a store, because other machines would not share it.
        lockstep_store::BlobStore::open(&dir.path().join("store")).unwrap();
        for (name, bytes) in files {
            std::fs::write(dir.path().join(name), bytes).unwrap();
        }
        let job = parse(text, sets);
        let files: Vec<Listed> = job.data_paths().iter().map(|path| Listed::new(dir.path(), path)).collect();
        let data = hash_files(&files.iter().collect::<Vec<_>>(), None, &|_| ()).unwrap();
        Self { dir, job, data, variables: BTreeMap::new(), messages: false, device: "cpu", plain: false }
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.dir.path().join("store")
    }

    /// Another job with the same files and store.
    pub(crate) fn with(self, text: &str, sets: &[&str]) -> Self {
        Self { job: parse(text, sets), ..self }
    }

    /// The same lab with a further environment variable for `process`.
    pub(crate) fn with_variable(mut self, process: u32, name: &str, value: &str) -> Self {
        self.variables.entry(process).or_default().push((name.to_owned(), value.to_owned()));
        self
    }

    /// The same lab, but processes do not inherit the environment variables that change bits.
    pub(crate) fn plain(self) -> Self {
        Self { plain: true, ..self }
    }

    /// The same lab, but processes share no memory, as if they were on different machines.
    pub(crate) fn by_messages(self) -> Self {
        Self { messages: true, ..self }
    }

    /// The same lab on the first CUDA device, which all processes share. NCCL rejects two processes of one machine on one device, so each
    /// process pretends to be on its own machine.
    pub(crate) fn on_cuda(mut self) -> Self {
        for process in 0..MOST_PROCESSES {
            let own = self.variables.entry(process).or_default();
            own.push(("NCCL_HOSTID".to_owned(), format!("machine-{process}")));
            own.push(("NCCL_SOCKET_IFNAME".to_owned(), "lo".to_owned()));
        }
        Self { device: "cuda:0", ..self }
    }

    /// The numerics fingerprints that processes report, by process. No step is made.
    pub(crate) fn fingerprints(&self, processes: u32) -> Vec<BTreeMap<String, String>> {
        let mut started = Processes::start(self, processes, None);
        assert!(started.all_ready(), "every process comes up");
        for process in 0..processes {
            started.kill(process as usize);
        }
        let fingerprints = std::mem::take(&mut started.fingerprints);
        started.finish(self);
        fingerprints.into_values().collect()
    }

    /// Runs the job to its end.
    pub(crate) fn run(&self, processes: u32, restore: Option<&Manifest>) -> Outcome {
        self.run_and(processes, restore, |_| {})
    }

    /// As `run`. `meanwhile` is called when all processes are ready, before they start to train.
    pub(crate) fn run_and(
        &self,
        processes: u32,
        restore: Option<&Manifest>,
        meanwhile: impl FnOnce(&mut Processes),
    ) -> Outcome {
        let mut started = Processes::start(self, processes, restore);
        if started.all_ready() {
            for (process, numerics) in &started.fingerprints {
                assert_eq!(*numerics, started.numerics, "numerics of process {process}");
            }
            meanwhile(&mut started);
            started.tell_peers();
        }
        started.finish(self)
    }

    pub(crate) fn assignment(&self, process: u32, processes: u32, restore: Option<&Manifest>) -> Assignment {
        Assignment {
            run: RUN.to_owned(),
            generation: 1,
            process,
            processes,
            device: self.device.to_owned(),
            job: self.job.canonical(),
            base_dir: self.dir.path().to_str().unwrap().to_owned(),
            store: self.store().to_str().unwrap().to_owned(),
            data: self.data.iter().map(Into::into).collect(),
            restore: restore.map(|manifest| {
                let bytes = manifest.encode();
                let blob = BlobStore::open(&self.store()).unwrap().put(&bytes).unwrap();
                Restore { checkpoint: Manifest::id(&bytes).as_bytes().to_vec(), manifest: Some((&blob).into()) }
            }),
            secret: vec![5; 32],
            replay: None,
            judge_at: Vec::new(),
            code: None,
        }
    }
}

pub(crate) fn parse(text: &str, sets: &[&str]) -> JobSpec {
    parse_toml(text, &sets.iter().map(|set| (*set).to_owned()).collect::<Vec<_>>()).unwrap()
}

/// A file in IDX format, with elements of type `u8` and these sizes.
pub(crate) fn idx(sizes: &[u32], value: impl Fn(usize) -> u8) -> Vec<u8> {
    let mut bytes = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        bytes.extend(size.to_be_bytes());
    }
    let count = sizes.iter().product::<u32>() as usize;
    bytes.extend((0..count).map(value));
    bytes
}

pub(crate) fn path_of_blob(store: &Path, digest: &Digest) -> PathBuf {
    let name = digest.to_hex();
    store.join(&name[..2]).join(name)
}
