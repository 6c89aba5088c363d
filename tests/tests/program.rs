//! A job with a user's program in a repository of its own: the example `denoise`, built from the code that the run stores.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use lockstep_support::{commit, printed, repository};
use lockstep_tests::{Cluster, Job};
use serde_json::Value;

/// Creates a repository of the example, with its data and an uncommitted change.
fn project(root: &Path) -> Job {
    let example = repository().join("configs/examples/denoise");
    fs::create_dir_all(root.join("src")).unwrap();
    for name in ["build.rs", "src/main.rs"] {
        fs::copy(example.join(name), root.join(name)).unwrap();
    }
    let replaced = |name: &str, from: &str, to: &str| {
        let text = fs::read_to_string(example.join(name)).unwrap();
        assert!(text.contains(from), "{name}: {from}");
        fs::write(root.join(name), text.replace(from, to)).unwrap();
    };
    // The example's dependencies take minutes to compile, and this build has compiled them: flags tell cargo where they are. `make lint`
    // compiles the example unchanged.
    let manifest = fs::read_to_string(example.join("Cargo.toml")).unwrap();
    let (package, _) = manifest.split_once("[dependencies]").unwrap();
    fs::write(root.join("Cargo.toml"), package).unwrap();
    fs::write(root.join("Cargo.lock"), "version = 4\n\n[[package]]\nname = \"denoise\"\nversion = \"0.1.0\"\n")
        .unwrap();
    fs::create_dir(root.join(".cargo")).unwrap();
    fs::write(root.join(".cargo/config.toml"), format!("[build]\nrustflags = {:?}\n", compiled())).unwrap();
    replaced("job.toml", "../../../tests/data/digits.csv", "images");
    fs::create_dir(root.join("images")).unwrap();
    fs::copy(repository().join("tests/data/digits.csv"), root.join("images/digits.csv")).unwrap();
    commit(root, "an autoencoder");
    // For a directory of data, the program receives its files.
    replaced("src/main.rs", "&setup.file(setup.job().data_paths()[0])", "&setup.files(\"images\")[\"digits.csv\"]");
    Job { path: root.join("job.toml") }
}

/// `make lint`, and everybody who builds the example alone, use its lock file with `--locked`, so it must contain Lockstep's
/// dependencies.
#[test]
fn the_lock_file_of_the_example_is_as_its_dependencies_are() {
    let mut cargo = Command::new("cargo");
    cargo.args(["metadata", "--locked", "--offline", "--format-version", "1", "--filter-platform"]);
    cargo.arg(format!("{}-unknown-linux-gnu", std::env::consts::ARCH));
    printed(cargo.current_dir(repository().join("configs/examples/denoise")));
}

/// Compiler flags with which a program uses the crates of this build.
fn compiled() -> Vec<String> {
    let arguments = [
        "test",
        "--no-run",
        "--release",
        "--locked",
        "--workspace",
        "--exclude",
        "lockstep-ingest",
        "--message-format",
        "json",
    ];
    let mut cargo = Command::new("cargo");
    // Without these variables of the test, build scripts do not run again, and cargo compiles nothing.
    for (name, _) in std::env::vars_os() {
        let text = name.to_string_lossy();
        if text.starts_with("CARGO_") && text != "CARGO_HOME" || text == "LD_LIBRARY_PATH" {
            cargo.env_remove(name);
        }
    }
    let messages = printed(cargo.args(arguments).current_dir(repository()));
    let messages: Vec<Value> = messages.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let stale = messages.iter().find(|message| message["fresh"] == false);
    assert!(stale.is_none(), "compiled anew: {stale:?}");
    let mut flags = Vec::new();
    for name in ["lockstep_worker", "serde", "tch"] {
        // Other artifacts of this name belong to build scripts or to a library's tests.
        let library = messages.iter().find(|message| {
            message["target"]["name"] == name
                && message["target"]["kind"][0] == "lib"
                && message["profile"]["test"] == false
                && message["profile"]["opt_level"] != "0"
        });
        let files = library.unwrap_or_else(|| panic!("no `{name}`"))["filenames"].as_array().unwrap();
        let is_library = |file: &&str| Path::new(file).extension().is_some_and(|extension| extension == "rlib");
        let file = files.iter().filter_map(Value::as_str).find(is_library).unwrap();
        flags.extend(["--extern".to_owned(), format!("{name}={file}")]);
    }
    let deps = std::env::current_exe().unwrap().parent().unwrap().to_owned();
    flags.extend(["-L".to_owned(), format!("dependency={}", deps.display())]);
    for message in messages.iter().filter(|message| message["reason"] == "build-script-executed") {
        for path in message["linked_paths"].as_array().unwrap().iter().filter_map(Value::as_str) {
            flags.extend(["-L".to_owned(), path.to_owned()]);
            if let Some(libtorch) = path.strip_prefix("native=").filter(|path| path.ends_with("torch/lib")) {
                flags.extend(["-C".to_owned(), format!("link-arg=-Wl,-rpath,{libtorch}")]);
            }
        }
    }
    flags
}

/// A cluster whose workers build and cache programs below `dir`.
fn cluster(dir: &Path, nodes: usize) -> Cluster {
    let [programs, target] = ["programs", "target"].map(|name| dir.join(name));
    Cluster::start_with(dir, nodes, &[("LOCKSTEP_WORKER_PROGRAMS_DIR", &programs), ("CARGO_TARGET_DIR", &target)])
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_program_of_ones_own_gives_the_same_bits_wherever_it_is_built_from_the_run() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path(), 2);
    let root = dir.path().join("work");
    let job = project(&root);
    let run = cluster.submit(job.argument(), &["--allow-dirty", "--keep-data"]);
    let state = cluster.finished_within(&run, Duration::from_mins(15));

    let view = cluster.show(&run);
    assert_eq!(view["environment"]["program"], "denoise", "{view:#}");
    let lock = blake3_of(&root.join("Cargo.lock"));
    assert_eq!(view["environment"]["program.cargo_lock"], lock.as_str());
    assert!(view["environment"]["program.rustc"].as_str().unwrap().starts_with("rustc 1."));
    assert_eq!((view["data"].as_array().unwrap().len(), &view["data"][0]["path"]), (1, &"images/".into()));
    let evals = cluster.ask(&["show", &run, "--metrics"])["evals"].clone();
    let psnr = |at: usize| evals[at]["metrics"]["psnr"].as_f64().unwrap();
    assert!(evals.as_array().unwrap().len() == 4 && psnr(3) > psnr(0), "{evals:#}");
    assert!(cluster.run(&["logs", &run]).contains("[building `denoise` of commit "));

    // The same program started by hand, in one process.
    let program = programs(dir.path());
    assert_eq!(program.len(), 1, "both workers share one build: {program:?}");
    let said = printed(Command::new(&program[0]).args(["train", job.argument()]));
    assert!(said.ends_with(&format!("final state {state} after 200 steps\n")), "{said}");
    assert!(said.contains("psnr"), "{said}");

    // Changed data and changed code are refused by name, or accepted with `--accept`.
    let (step, checkpoint) = cluster.checkpoints(&run)[1].clone();
    assert_eq!(step, 100);
    fs::write(root.join("images/more"), "x").unwrap();
    let refused = cluster.coord(&["resume", &checkpoint]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(3), "{said}");
    assert!(said.contains("images/more`: missing then, 1 bytes with digest"), "{said}");
    assert!(said.contains("--accept data.images`"), "{said}");
    let accepted = cluster.ask(&["resume", &checkpoint, "--accept", "data.images"])["run"].as_str().unwrap().to_owned();
    assert_eq!(cluster.finished(&accepted), state, "the program does not read it");
    assert_eq!(cluster.show(&accepted)["overrides"][0]["key"], "data.images");
    fs::remove_file(root.join("images/more")).unwrap();
    let source = fs::read_to_string(root.join("src/main.rs")).unwrap();
    fs::write(root.join("src/main.rs"), source.replace("x.relu()", "x.tanh()")).unwrap();
    let accepted = cluster.ask(&["resume", &checkpoint, "--accept", "code"])["run"].as_str().unwrap().to_owned();
    assert_ne!(cluster.finished_within(&accepted, Duration::from_mins(5)), state);
    assert_eq!(cluster.show(&accepted)["overrides"][0]["key"], "code");

    // Without the original repository and the built programs.
    fs::remove_dir_all(&root).unwrap();
    fs::remove_dir_all(dir.path().join("programs")).unwrap();
    let resumed = cluster.resume(&checkpoint);
    assert_eq!(cluster.finished_within(&resumed, Duration::from_mins(5)), state);
    for (name, on) in [("again", &[][..]), ("here", &["--on", "local"])] {
        let verdict = cluster.ask(&[&["reproduce", &run, path(&dir.path().join(name))], on].concat());
        assert_eq!((&verdict["equal"], &verdict["last_step"]), (&Value::Bool(true), &200.into()), "{verdict:#}");
        assert_eq!(verdict["reproduced"].as_str(), Some(&*state));
        assert!(verdict["differences"].as_array().unwrap().is_empty(), "{verdict:#}");
    }
}

#[test]
fn a_program_that_does_not_compile_or_lies_in_no_repository_is_told_so() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = cluster(dir.path(), 1);
    let root = dir.path().join("work");
    let job = project(&root);
    let source = fs::read_to_string(root.join("src/main.rs")).unwrap();
    fs::write(root.join("src/main.rs"), source.replace("psnr * images", "psnr * imags")).unwrap();
    let run = cluster.submit(job.argument(), &["--allow-dirty"]);
    let view = cluster.ended_within(&run, Duration::from_mins(15));
    let reason = view["reason"].as_str().unwrap();
    assert_eq!(view["status"], "failed");
    assert!(
        reason.contains("node `node-0` cannot build its program: `cargo build --release --locked` ended"),
        "{reason}"
    );
    assert!(reason.contains("imags") && reason.contains("src/main.rs:"), "{reason}");

    fs::remove_dir_all(root.join(".git")).unwrap();
    let refused = cluster.coord(&["submit", job.argument()]);
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(!refused.status.success() && said.contains("workers build `denoise` from the run's work tree"), "{said}");
}

fn programs(dir: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir.join("programs")).unwrap().map(|entry| entry.unwrap().path().join("program"));
    entries.filter(|path| path.is_file()).collect()
}

fn blake3_of(path: &Path) -> String {
    lockstep_common::Domain::Blob.digest(&fs::read(path).unwrap()).to_hex()
}
