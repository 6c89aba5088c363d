//! A run with its export, and runs of `predict.py` and PyTorch on the export.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_support::{Again, Outcome, binary, printed, repository, tool_packages, torch_python};
use lockstep_tests::{Cluster, Job, write_images};
use serde_json::Value;

/// A finished run and the export of its last checkpoint.
pub(super) struct Exported<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) run: String,
    pub(super) checkpoint: String,
    pub(super) to: PathBuf,
    python: &'a Again,
}

impl<'a> Exported<'a> {
    pub(super) fn of(cluster: &'a Cluster, python: &'a Again, job: &Job, dir: &Path, more: &[&str]) -> Self {
        let run = cluster.submit(job.argument(), &[]);
        cluster.finished(&run);
        let (_, checkpoint) = cluster.checkpoints(&run).last().unwrap().clone();
        let to = dir.join("export");
        let export = [&["export", &checkpoint, "--to", to.to_str().unwrap()], more].concat();
        cluster.run(&export);
        Self { cluster, run, checkpoint, to, python }
    }

    /// Runs `predict.py`.
    pub(super) fn try_predict(&self, arguments: &[&str]) -> Outcome {
        self.python.run(&[&[self.to.join("predict.py").to_str().unwrap()], arguments].concat())
    }

    /// Runs `predict.py`, which must succeed; returns standard output and standard error, which has loss and accuracy.
    pub(super) fn predict(&self, arguments: &[&str]) -> (String, String) {
        let Outcome { code, printed, said } = self.try_predict(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        (printed, said)
    }

    /// Checks that `predict.py` refuses each list of arguments with one line that contains the words beside it.
    pub(super) fn refuses(&self, cases: &[(&[&Path], &str)]) {
        for (arguments, words) in cases {
            let arguments: Vec<&str> = arguments.iter().map(|path| path.to_str().unwrap()).collect();
            let Outcome { code, said, .. } = self.try_predict(&arguments);
            assert!(code == 1 && said.lines().count() == 1, "{arguments:?}: {code}: {said}");
            assert!(said.starts_with("predict.py: ") && said.contains(words), "{arguments:?}: {said}");
        }
    }

    /// Checks the error of `predict.py` if its output does not fit on the disk.
    pub(super) fn tells_of_a_full_disk(&self, file: &Path) {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = python().arg(self.to.join("predict.py")).arg(file).stdout(full).output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.ends_with("predict.py: cannot write the answer: No space left on device\n"), "{said}");
    }

    /// The bits of the scores of every row of the run's file, computed by `worker-rank scores`.
    pub(super) fn scores(&self, batch: &str) -> String {
        let manifest = self.to.with_file_name("manifest");
        fs::write(&manifest, self.cluster.run(&["manifest", &self.checkpoint]).trim_end()).unwrap();
        let mut worker = Command::new(binary("worker-rank"));
        printed(worker.arg("scores").args([&manifest, &self.cluster.store()]).args(["--batch", batch]))
    }

    /// Checks that `worker-rank` and `predict.py` compute the same bits, in batches of these sizes. Batches of 7 start at unaligned
    /// addresses.
    pub(super) fn compare(&self, files: &[&str], rows: usize, batches: &[&str]) {
        for &batch in batches {
            let own = self.scores(batch);
            let mut script = python();
            // The script must replace the user's variables by the run's.
            let users =
                [("ATEN_CPU_CAPABILITY", "default"), ("MKL_VML_DEBUG_CPU_TYPE", "9"), ("MKLDNN_MAX_CPU_ISA", "SSE41")];
            script.envs(users);
            script.arg(self.to.join("predict.py")).args(files).args(["--scores", "--batch", batch]);
            let python = printed(&mut script);
            assert!(own.lines().count() >= rows && own.lines().last().unwrap().contains(','), "{own}");
            let differ = own.lines().zip(python.lines()).find(|(own, python)| own != python);
            assert_eq!(differ, None, "with a batch of {batch}");
            assert_eq!(own, python);
        }
    }

    pub(super) fn manifest(&self) -> Value {
        serde_json::from_slice(&fs::read(self.to.join("manifest.json")).unwrap()).unwrap()
    }

    pub(super) fn card(&self) -> String {
        fs::read_to_string(self.to.join("README.md")).unwrap()
    }

    /// The result of the run's last evaluation.
    pub(super) fn eval(&self) -> Value {
        self.cluster.ask(&["show", &self.run, "--metrics"])["evals"].as_array().unwrap().last().unwrap().clone()
    }
}

/// An interpreter for programs that need PyTorch, safetensors and numpy.
pub(super) fn torch() -> Again {
    let mut command = python();
    command.env("OMP_NUM_THREADS", "1").env("MKL_NUM_THREADS", "1");
    Again::new(command, &["numpy", "safetensors.torch", "torch"])
}

/// PyTorch's interpreter, with the packages of the test tools, which include safetensors.
fn python() -> Command {
    let mut python = Command::new(torch_python());
    python.env("PYTHONPATH", tool_packages());
    python
}

/// The number after `name` in the script's standard error.
pub(super) fn said(words: &str, name: &str) -> f64 {
    let value = words.split(", ").find_map(|part| part.trim().strip_prefix(name));
    value.and_then(|value| value.split_whitespace().next()).unwrap_or_else(|| panic!("{words}")).parse().unwrap()
}

/// The standard output of `tests/oracle/load_export.py`.
pub(super) fn oracle(python: &Again, arguments: &[&str]) -> String {
    let script = repository().join("tests/oracle/load_export.py");
    let Outcome { code, printed, said } = python.run(&[&[script.to_str().unwrap()], arguments].concat());
    assert_eq!(code, 0, "{arguments:?}: {said}");
    printed
}

/// Writes 300 digits as images of 8 × 8 with labels, and a job on them with `model`.
pub(super) fn images(dir: &Path, model: &str) -> Job {
    write_images(dir, 0..300, ["images", "labels"]);
    Job::write(
        dir,
        &format!(
            "name = \"images\"\nseed = 4\nsteps = 30\nranks = 2\nbatch = {{ size = 48 }}\n\
             data = {{ kind = \"idx\", images = \"images\", labels = \"labels\" }}\n\
             optimizer = {{ kind = \"sgd\", lr = 0.05, momentum = 0.9 }}\nmodel = {model}\n"
        ),
    )
}

/// The bytes of an npy file: element type, shape without its last comma, and data.
pub(super) fn npy(kind: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{kind}', 'fortran_order': False, 'shape': ({shape},)}}");
    let header = format!("{header:<117}\n");
    [b"\x93NUMPY\x01\x00\x76\x00", header.as_bytes(), bytes].concat()
}

/// Writes a job on `x.npy` and `y.npy` with `model`.
pub(super) fn arrays(dir: &Path, model: &str) -> Job {
    Job::write(
        dir,
        &format!(
            "name = \"arrays\"\nseed = 4\nsteps = 20\nbatch = {{ size = 8 }}\noptimizer = {{ kind = \"sgd\", lr = 0.05 }}\n\
             data = {{ kind = \"npy\", inputs = \"x.npy\", targets = \"y.npy\" }}\nmodel = {model}\n"
        ),
    )
}
