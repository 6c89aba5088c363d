//! Mistakes on the command line: each has its documented exit code, and a message that names the cause.

use std::fs;
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_support::{Outcome, Process, Signal, commit, git, printed};
use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::{Coordinator, DEADLINE, coord, copy_of_coord, fails, run, write_job};

#[test]
fn one_line_tells_the_address_and_sigterm_ends_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    assert!(coordinator.address.starts_with("127.0.0.1:") && !coordinator.address.ends_with(":0"));
    assert_eq!(coordinator.terminate(), 0);
    // The directory is free again.
    let coordinator = Coordinator::start(&dir.path().join("state"));
    assert_eq!(coordinator.ask(&["ps"]), serde_json::json!([]));
}

#[test]
fn a_data_directory_and_a_port_have_one_coordinator_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start(&state);
    let errors = fails(&["serve", "--listen", "127.0.0.1:0", "--data-dir", state.to_str().unwrap()], 6);
    let words = format!("error: directory `{}` is in use by process {}", state.display(), coordinator.pid());
    assert!(errors.contains(&words), "{errors}");

    let other = dir.path().join("other");
    let errors = fails(&["serve", "--listen", &coordinator.address, "--data-dir", other.to_str().unwrap()], 6);
    assert!(errors.contains(&format!("cannot listen on `{}`", coordinator.address)), "{errors}");
    assert!(!other.exists(), "nothing was touched");
}

#[test]
fn only_loopback_unless_said_otherwise() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let arguments = ["serve", "--listen", "0.0.0.0:0", "--data-dir", state.to_str().unwrap()];
    let errors = fails(&arguments, 2);
    assert!(errors.contains("`0.0.0.0:0` is not a loopback address"), "{errors}");
    assert!(errors.contains("hint: if that is acceptable, set LOCKSTEP_COORD_ALLOW_REMOTE=true"), "{errors}");
    assert!(!state.exists());
    let config = dir.path().join("c.toml");
    fs::write(&config, "allow_remote = true\n").unwrap();
    let coordinator = Coordinator::start_with(&state, &["--config", config.to_str().unwrap(), "--listen", "0.0.0.0:0"]);
    assert!(coordinator.address.starts_with("0.0.0.0:"));
}

#[test]
fn configuration_is_shown_with_origins_and_mistakes_are_named() {
    let dir = tempfile::tempdir().unwrap();
    let config = dir.path().join("c.toml");
    fs::write(&config, "lease_ms = 5000\n").unwrap();
    let config = config.to_str().unwrap();
    let output = coord(&["config", "--show", "--config", config, "--listen", "127.0.0.1:9", "--json"])
        .env("LOCKSTEP_COORD_STORE__PATH", "/somewhere")
        .env("LOCKSTEP_WORKER_SLOTS", "3") // for another program in the same shell
        .output()
        .unwrap();
    let shown: Vec<serde_json::Value> = serde_json::from_slice(&output.stdout).unwrap();
    let words = String::from_utf8(output.stderr).unwrap();
    assert!(words.starts_with("configuration of `coord serve` in this directory"), "{words}");
    let of = |key: &str| shown.iter().find(|origin| origin["key"] == key).unwrap();
    assert_eq!((&of("lease_ms")["value"], &of("lease_ms")["origin"]), (&"5000".into(), &config.into()));
    assert_eq!((&of("listen")["origin"], &of("tick_ms")["origin"]), (&"flag".into(), &"default".into()));
    assert_eq!(of("store.path")["origin"], "environment variable `LOCKSTEP_COORD_STORE__PATH`");
    // An answer that does not fit on the disk is an error; a closed pipe is not.
    for words in [&["config", "--show"][..], &["--help"], &["submit", "--help"], &["--version"]] {
        let full = fs::File::options().write(true).open("/dev/full").unwrap();
        let output = coord(words).stdout(full).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(6), "{words:?}: {errors}");
        let said = "cannot write all of the answer to standard output: No space left on device";
        assert!(errors.contains(said), "{words:?}: {errors}");
    }
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    assert_eq!(coord(&["config", "--show"]).stdout(writer).output().unwrap().status.code(), Some(0));
    let output = coord(&["config", "--show"]).env("LOCKSTEP_COORD_LEESE_MS", "5").output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(
        errors.contains("environment variable `LOCKSTEP_COORD_...`: unknown key `leese_ms`: did you mean `lease_ms`?"),
        "{errors}"
    );
    fs::write(config, "leese_ms = 5000\n").unwrap();
    let errors = fails(&["config", "--show", "--config", config], 2);
    assert!(errors.contains(&format!("`{config}`: unknown key `leese_ms`: did you mean `lease_ms`?")), "{errors}");
    let errors = fails(&["serve", "--config", "/nonexistent.toml"], 2);
    assert!(errors.contains("cannot read configuration file `/nonexistent.toml`"), "{errors}");
}

#[test]
fn names_that_fit_nothing_or_too_much_are_not_found() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let job = write_job(dir.path(), 1, 4);
    let address = ["--addr", coordinator.address.as_str()];
    let runs = [coordinator.submit(&job), coordinator.submit(&job)];
    for words in [["show", "zzz"], ["cancel", "zzz"], ["logs", "zzz"], ["checkpoints", "zzz"]] {
        assert!(fails(&[words, address].concat(), 4).contains("error: there is no run `zzz`"), "{words:?}");
    }
    assert!(fails(&[["resume", "abc"], address].concat(), 4).contains("there is no checkpoint `abc`"));
    // Both runs have the job's name.
    let errors = fails(&[["show", "walk"], address].concat(), 4);
    assert!(runs.iter().all(|run| errors.contains(run)) && errors.contains("`walk` matches 2 runs"), "{errors}");
    // A unique prefix is enough.
    let unique = (1..=10).map(|len| &runs[0][..len]).find(|prefix| !runs[1].starts_with(prefix)).unwrap();
    assert_eq!(coordinator.ask(&["show", unique])["run"], runs[0].as_str());
    // No node: queued, with the reason.
    let shown = coordinator.ask(&["show", &runs[0]]);
    assert_eq!(shown["status"], "queued");
    assert!(shown["reason"].as_str().unwrap().contains("device"), "{}", shown["reason"]);
    assert!(fails(&[["logs", &runs[0]], address].concat(), 3).contains("has no process to read from: it is queued"));
    // An ended run cannot be cancelled.
    assert!(run(&[["cancel", &runs[0]], address].concat()).status.success());
    assert!(fails(&[["cancel", &runs[0]], address].concat(), 3).contains("has already ended: cancelled"));
}

#[test]
fn jobs_are_refused_with_file_and_key() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let job = write_job(dir.path(), 2, 4);
    let submit = |more: &[&str], code| {
        fails(&[&["submit", job.to_str().unwrap(), "--addr", &coordinator.address], more].concat(), code)
    };
    let errors = submit(&["--set", "optimizer.rl=1"], 2);
    let words = format!("job file `{}`: unknown key `optimizer.rl`", job.display());
    assert!(errors.contains(&words), "{errors}");
    assert!(submit(&["--set", "batch.size=3"], 2).contains("key `batch.size`: 3 is not divisible by `ranks` = 2"));
    assert!(submit(&["--set", "steps"], 2).contains("`steps` is not an override"));
    assert!(submit(&["--set", "data.path=none.csv"], 2).contains("none.csv` does not exist"));
    fs::write(dir.path().join("empty.csv"), "").unwrap();
    assert!(submit(&["--set", "data.path=empty.csv"], 2).contains("empty.csv` is empty"));
    assert!(fails(&["submit", "/nonexistent/job.toml"], 2).contains("cannot read job file `/nonexistent/job.toml`"));
    what_is_no_job_file_is_refused(dir.path(), &coordinator);
    assert_eq!(coordinator.ask(&["ps"]), serde_json::json!([]), "nothing was submitted");
}

/// Each is refused at once, without waiting for a writer of the pipe or for the end of `/dev/zero`.
fn what_is_no_job_file_is_refused(dir: &Path, coordinator: &Coordinator) {
    const LIMIT: usize = 1 << 20;
    let [pipe, directory, long] = ["pipe.toml", "dir.toml", "long.toml"].map(|name| dir.join(name));
    mknodat(CWD, &pipe, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).unwrap();
    fs::create_dir(&directory).unwrap();
    let sound = fs::read_to_string(dir.join("job.toml")).unwrap();
    fs::write(&long, format!("{sound}#{}", " ".repeat(LIMIT - sound.len()))).unwrap();
    let submit = |file: &Path| {
        let mut command = Command::new("timeout");
        command.args(["20", env!("CARGO_BIN_EXE_coord"), "submit"]).arg(file).args(["--set", "optimizer.rl=1"]);
        let output = command.args(["--addr", &coordinator.address]).output().unwrap();
        let errors = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(2), "{}: {errors}", file.display());
        errors
    };
    for (file, why) in [
        (pipe.as_path(), "it is not a regular file"),
        (&directory, "it is not a regular file"),
        (Path::new("/dev/zero"), "it is not a regular file"),
        (&long, "it has more than 1048576 bytes"),
    ] {
        let errors = submit(file);
        assert!(errors.contains(&format!("cannot read job file `{}`: {why}", file.display())), "{errors}");
    }
    // A file that is one character shorter is read.
    fs::write(&long, format!("{sound}#{}", " ".repeat(LIMIT - sound.len() - 1))).unwrap();
    assert!(submit(&long).contains("unknown key `optimizer.rl`"));
}

#[test]
fn a_dirty_work_tree_is_refused_with_its_files() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    git(&tree, &["init", "-q"]);
    let job = write_job(&tree, 1, 4);
    let words = ["submit", job.to_str().unwrap(), "--addr", &coordinator.address];
    assert!(fails(&words, 3).contains("has no commit yet"));
    commit(&tree, "x");
    let head = git(&tree, &["rev-parse", "HEAD"]);
    let run_id = coordinator.submit(&job);
    let code = &coordinator.ask(&["show", &run_id])["code"];
    assert_eq!((&code["commit"], &code["dirty"]), (&head.as_str().into(), &false.into()));

    fs::write(tree.join("new.txt"), "x").unwrap();
    let errors = fails(&words, 3);
    assert!(errors.contains("uncommitted changes:\n    new.txt\n"), "{errors}");
    let output = run(&[words.as_slice(), &["--allow-dirty", "--json"]].concat());
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = &coordinator.ask(&["show", reply["run"].as_str().unwrap()])["code"];
    assert_eq!((&code["commit"], &code["dirty"]), (&head.as_str().into(), &true.into()));

    // `--allow-dirty` lists the files that are stored.
    for index in 0..11 {
        fs::write(tree.join(format!("secret-{index:02}")), "x").unwrap();
    }
    fs::write(tree.join("bell\u{7}"), "x").unwrap();
    let output = run(&[words.as_slice(), &["--allow-dirty"]].concat());
    let said = String::from_utf8(output.stderr).unwrap();
    let begins = "note: 13 files that differ from the commit are stored with the run, including these untracked files:\n    bell\\";
    assert!(said.contains(begins), "{said}");
    assert!(said.contains("\n    secret-07\n    and 3 more\n  name in `.gitignore`"), "{said}");

    // An index that only `git` itself can read, while `git` is not in PATH.
    git(&tree, &["update-index", "--split-index"]);
    assert!(run(&[words.as_slice(), &["--allow-dirty"]].concat()).status.success());
    let output = coord(&[words.as_slice(), &["--allow-dirty"]].concat()).env("PATH", "").output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.code() == Some(6) && said.contains("`git` is not in PATH"), "{said}");
}

/// A job in a repository of git, whose data DVC tracks; the data lies in its cache only, and its revision is `HEAD`.
fn write_tracked_job(tree: &Path) -> PathBuf {
    let job = write_job(tree, 1, 4);
    let data = tree.join("data.csv");
    let md5 = printed(Command::new("md5sum").arg(&data))[..32].to_owned();
    let object = tree.join(".dvc/cache/files/md5").join(&md5[..2]).join(&md5[2..]);
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::rename(&data, object).unwrap();
    fs::write(tree.join(".dvc/config"), "").unwrap();
    fs::write(tree.join("data.csv.dvc"), format!("outs:\n- path: data.csv\n  hash: md5\n  md5: {md5}\n")).unwrap();
    fs::write(tree.join(".gitignore"), "/data.csv\n/.dvc/cache\n").unwrap();
    let text = fs::read_to_string(&job).unwrap().replace("target = ", "rev = \"HEAD\", target = ");
    fs::write(&job, text).unwrap();
    commit(tree, "x");
    job
}

#[test]
fn the_repository_of_another_owner_is_read_if_the_environment_allows_it() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: only root can give a directory to another owner");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let job = write_tracked_job(&tree);
    let head = git(&tree, &["rev-parse", "HEAD"]);
    printed(Command::new("chown").args(["-R", "65534:65534"]).arg(&tree));
    let submit = |directory: &Path| {
        let mut command = coord(&["submit", job.to_str().unwrap(), "--addr", &coordinator.address, "--json"]);
        command.env("HOME", dir.path()).env("GIT_CONFIG_COUNT", "1").env("GIT_CONFIG_KEY_0", "safe.directory");
        command.env("GIT_CONFIG_VALUE_0", directory).output().unwrap()
    };
    let output = submit(dir.path());
    let said = String::from_utf8(output.stderr).unwrap();
    let hint = "`git config --global --add safe.directory DIRECTORY`";
    assert!(output.status.code() == Some(6) && said.contains(hint), "{said}");
    let output = submit(&tree);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let reply: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let code = &coordinator.ask(&["show", reply["run"].as_str().unwrap()])["code"];
    assert_eq!((&code["commit"], &code["dirty"]), (&head.as_str().into(), &false.into()));
}

#[test]
fn a_remote_that_runs_programs_is_not_recorded_and_that_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    let job = write_job(&tree, 1, 4);
    commit(&tree, "x");
    for (url, kept) in [("git@example.org:r.git", true), ("ext::touch x", false)] {
        git(&tree, &["config", "remote.origin.url", url]);
        let output = run(&["submit", job.to_str().unwrap(), "--addr", &coordinator.address]);
        let words = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{words}");
        assert_eq!(words.contains("note: the remote `ext::touch x` is not recorded"), !kept, "{words}");
        let id = String::from_utf8(output.stdout).unwrap();
        let remote = &coordinator.ask(&["show", id.trim()])["code"]["remote"];
        assert_eq!(remote.as_str(), kept.then_some(url));
    }
}

#[test]
fn a_coordinator_that_is_not_there_is_said_with_its_address() {
    // The port was bound and closed: it is free, and nothing else uses ports of this address.
    let address = TcpListener::bind("127.0.0.2:0").unwrap().local_addr().unwrap().to_string();
    for words in [&["ps"][..], &["nodes"], &["show", "x"], &["cancel", "x"]] {
        let errors = fails(&[words, &["--addr", &address]].concat(), 5);
        assert!(errors.contains(&format!("cannot reach a coordinator at `{address}`")), "{errors}");
    }
    let output = coord(&["ps"]).env("LOCKSTEP_ADDR", &address).output().unwrap();
    assert_eq!(output.status.code(), Some(5));
    assert!(String::from_utf8_lossy(&output.stderr).contains(&address));
    assert!(fails(&["ps", "--addr", "no address"], 2).contains("`no address` is not an address"));
}

#[test]
fn a_command_that_is_interrupted_before_it_has_said_anything_says_so() {
    // It accepts connections and sends nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = silent.local_addr().unwrap().to_string();
    for (words, signal) in [(["ps"].as_slice(), Signal::INT), (&["show", "x"], Signal::TERM)] {
        let mut asks = Process::start(&mut coord(&[words, &["--addr", &address]].concat()));
        let _connection = silent.accept().unwrap();
        asks.signal(signal);
        let Outcome { code, printed, said } = asks.end(DEADLINE);
        let expected = "ended with code 130: interrupted by Ctrl-C\n";
        assert_eq!((code, said.as_str(), printed.as_str()), (130, expected, ""));
    }
}

#[test]
fn local_without_a_worker_program_says_where_it_was_looked_for() {
    let dir = tempfile::tempdir().unwrap();
    // A copy of `coord` with no `worker` beside it, and none in PATH.
    let alone = copy_of_coord(dir.path());
    let job = write_job(dir.path(), 1, 4);
    let output = Command::new(&alone).arg("submit").arg(&job).args(["--local", "1"]).env("PATH", "").output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{errors}");
    assert!(errors.contains("the program `worker` was not found") && errors.contains("hint: "), "{errors}");
    assert!(!dir.path().join(".lockstep").exists(), "nothing was written");
}

#[test]
fn a_local_worker_that_ends_too_early_is_said_with_its_last_words() {
    let dir = tempfile::tempdir().unwrap();
    let coord = copy_of_coord(dir.path());
    let worker = "printf '#!/bin/sh\necho libfoo.so is missing >&2\nexit 3\n' >worker; chmod +x worker";
    printed(Command::new("sh").current_dir(dir.path()).args(["-c", worker]));
    let job = write_job(dir.path(), 1, 4);
    let output = Command::new(&coord).arg("submit").arg(&job).args(["--local", "1"]).output().unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(6), "{errors}");
    assert!(
        errors.contains("worker `local-1` ended before the job (exit status: 3):\nlibfoo.so is missing"),
        "{errors}"
    );
    // The embedded coordinator has ended, too: its directory is free.
    let state = dir.path().join(".lockstep/coordinator");
    assert_eq!(Coordinator::start(&state).ask(&["ps"]), serde_json::json!([]));
}

#[test]
fn local_writes_through_no_link_that_lies_beside_a_job() {
    let dir = tempfile::tempdir().unwrap();
    let coord = copy_of_coord(dir.path());
    let worker =
        "printf '#!/bin/sh\nexit 3\n' >worker; chmod +x worker; mkdir -p .lockstep/coordinator; echo precious >victim";
    printed(Command::new("sh").current_dir(dir.path()).args(["-c", worker]));
    let (job, victim) = (write_job(dir.path(), 1, 4), dir.path().join("victim"));
    for link in [".lockstep/local-1.log", ".lockstep/coordinator/LOCK"] {
        let link = dir.path().join(link);
        std::os::unix::fs::symlink(&victim, &link).unwrap();
        let output = Command::new(&coord).arg("submit").arg(&job).args(["--local", "1"]).output().unwrap();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains("is a symbolic link") && errors.contains("--data-dir"), "{errors}");
        assert_eq!(std::fs::read_to_string(&victim).unwrap(), "precious\n");
        std::fs::remove_file(&link).unwrap();
    }
}

#[test]
fn help_shows_examples_and_exit_codes_and_a_closed_pipe_is_no_error() {
    let help = String::from_utf8(run(&["--help"]).stdout).unwrap();
    assert!(help.contains("Examples:") && help.contains("Exit codes:") && help.contains("130  interrupted"), "{help}");
    for command in ["serve", "submit", "resume", "ps", "show", "nodes", "checkpoints", "logs", "cancel", "config"] {
        assert!(help.contains(command), "{command}");
        assert!(run(&[command, "--help"]).status.success(), "{command}");
    }
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = coord(&["ps", "--addr", &coordinator.address]).stdout(writer).output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), b"".as_slice()));
}
