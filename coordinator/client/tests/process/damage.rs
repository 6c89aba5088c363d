//! Files of the data directory that are damaged or missing.

use std::fs;
use std::path::Path;

use lockstep_support::{Outcome, Signal};

use crate::agent::{Agent, finished};
use crate::support::{Coordinator, copy, wait_for};

/// Makes the data directory `state` with one finished run, and returns the run.
async fn ended_run(state: &Path, dir: &Path) -> String {
    let coordinator = Coordinator::start(state);
    let (mut agent, run, process) = Agent::trained(&coordinator, dir).await;
    let share = agent.share(4, 0);
    agent.tell(&process, 3, share).await;
    agent.tell(&process, 4, finished(4, 1)).await;
    wait_for("the end", || (coordinator.ask(&["show", &run])["status"] == "finished").then_some(()));
    wait_for("the numbers", || numbers(&coordinator, &run));
    drop(agent);
    assert_eq!(coordinator.terminate(), 0);
    run
}

/// The losses of `run` as they are plotted, once there are four.
fn numbers(coordinator: &Coordinator, run: &str) -> Option<String> {
    let output = coordinator.coord(&["plot", run, "loss", "--json"]);
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
        .filter(|said| output.status.success() && said.contains("1004"))
}

/// Exit code, standard output and standard error of two commands that read `run`.
fn answers(coordinator: &Coordinator, run: &str) -> [(Option<i32>, String, String); 2] {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    [vec!["show", run, "--json"], vec!["show", run, "--metrics", "--json"]].map(|words| {
        let output = coordinator.coord(&words);
        (output.status.code(), text(&output.stdout), text(&output.stderr))
    })
}

/// Size of a database page, in bytes.
const PAGE: usize = 4096;

/// Offsets in every `nth` page of `bytes`, in turn of its kind, its number of rows, and the positions of its rows.
fn places(bytes: &[u8], nth: usize) -> impl Iterator<Item = usize> {
    (0..bytes.len()).step_by(nth * PAGE).zip([0, 2, 6].into_iter().cycle()).map(|(page, within)| page + within)
}

#[tokio::test]
async fn a_flipped_byte_is_named_with_what_to_do_or_does_no_harm() {
    let dir = tempfile::tempdir().unwrap();
    let (sound, state) = (dir.path().join("sound"), dir.path().join("state"));
    let run = ended_run(&sound, dir.path()).await;
    copy(&sound, &state);
    let coordinator = Coordinator::start(&state);
    let expected = answers(&coordinator, &run);
    assert_eq!(coordinator.terminate(), 0);
    let mut refused = 0;
    for (file, nth) in [("state.redb", 2), ("reports.redb", 1)] {
        let bytes = fs::read(sound.join(file)).unwrap();
        for at in places(&bytes, nth) {
            copy(&sound, &state);
            let mut damaged = bytes.clone();
            damaged[at] ^= 0xa5;
            fs::write(state.join(file), damaged).unwrap();
            let names = |said: &str| {
                let is_named = said.contains(&format!("{file}` is damaged: ")) && said.contains("; restore all files");
                assert!(is_named && !said.contains("panicked"), "{file}, byte {at}: {said}");
            };
            let coordinator = match Coordinator::try_start(&state) {
                Ok(coordinator) => coordinator,
                Err(Outcome { code, said, .. }) => {
                    assert_eq!(code, 6, "{file}, byte {at}: {said}");
                    names(&said);
                    refused += 1;
                    continue;
                }
            };
            for (answer, expected) in answers(&coordinator, &run).iter().zip(&expected) {
                if answer != expected {
                    assert_eq!(answer.0, Some(8), "{file}, byte {at}: {answer:?}");
                    names(&answer.2);
                }
            }
            coordinator.signal(Signal::TERM);
            let Outcome { code, said, .. } = coordinator.ended();
            assert!(code == 0 && !said.contains("panicked"), "{file}, byte {at}: {code}: {said}");
        }
    }
    assert!(refused >= 10, "only {refused} were refused");
}

#[tokio::test]
async fn damaged_numbers_are_set_aside_and_missing_ones_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let run = ended_run(&state, dir.path()).await;
    let (file, aside) = (state.join("tracking.redb"), state.join("tracking.redb.damaged"));
    let bytes = fs::read(&file).unwrap();
    let mut seen = 0;
    for page in (PAGE..bytes.len()).step_by(3 * PAGE) {
        let mut damaged = bytes.clone();
        damaged[page..page + 8].iter_mut().for_each(|byte| *byte ^= 0xa5);
        fs::write(&file, &damaged).unwrap();
        let coordinator = Coordinator::start(&state);
        let made = wait_for("the numbers", || numbers(&coordinator, &run));
        coordinator.signal(Signal::TERM);
        let Outcome { code, said: log, .. } = coordinator.ended();
        assert!(code == 0 && !log.contains("panicked"), "page at {page}: {code}: {log}");
        assert!(made.contains("1004"));
        if aside.exists() {
            assert!(log.contains("tracking.redb` is damaged") && log.contains("tracking.redb.damaged"), "{log}");
            fs::remove_file(&aside).unwrap();
            seen += 1;
        }
    }
    assert!(seen >= 3, "only {seen} were seen");

    fs::remove_file(&file).unwrap();
    let coordinator = Coordinator::start(&state);
    wait_for("the numbers", || numbers(&coordinator, &run));
    assert_eq!(coordinator.terminate(), 0);
    assert!(file.exists() && !aside.exists());
}
