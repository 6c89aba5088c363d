//! The two programs: `worker` does not link libtorch, and replaces itself by `worker-rank` for a rank process.
use std::path::Path;
use std::process::Command;

const WORKER: &str = env!("CARGO_BIN_EXE_worker");
const RANK: &str = env!("CARGO_BIN_EXE_worker-rank");

/// Whether the program links a library: then its file contains the name of the library.
fn needs(program: &str, library: &str) -> bool {
    let bytes = std::fs::read(program).unwrap();
    bytes.windows(library.len()).any(|window| window == library.as_bytes())
}

#[test]
fn the_agent_links_no_libtorch_and_rank_processes_do() {
    assert!(needs(RANK, "libtorch_cpu.so"));
    assert!(!needs(WORKER, "libtorch_cpu.so") && !needs(WORKER, "libc10.so"));
}

#[test]
fn worker_rank_becomes_the_program_beside_it() {
    assert_eq!(Path::new(WORKER).parent(), Path::new(RANK).parent());
    let output = Command::new(WORKER).args(["rank", "--socket", "/nowhere/s", "--run", "0123456789"]).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(2), "{said}");
    assert!(
        said.contains("--generation") && said.contains("--process"),
        "the rank program names what is missing: {said}"
    );

    let complete = ["rank", "--socket", "/nowhere/s", "--run", "0123456789", "--generation", "1", "--process", "0"];
    let output = Command::new(WORKER).args(complete).output().unwrap();
    let said = String::from_utf8(output.stderr).unwrap();
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(said.contains("cannot connect to the agent at `/nowhere/s`"), "{said}");
}

#[test]
fn help_shows_what_people_need_and_hides_what_only_the_agent_does() {
    let output = Command::new(WORKER).arg("--help").output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    for option in ["--join", "--name", "--data-dir", "--devices", "--slots", "--bind", "--config", "Exit codes"] {
        assert!(said.contains(option), "{option}: {said}");
    }
    assert!(!said.contains("Commands:"), "{said}");
    let output = Command::new(WORKER).args(["--join"]).output().unwrap();
    assert_eq!(output.status.code(), Some(2));
}
