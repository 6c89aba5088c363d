//! Jobs with a program of their own: it is built once, from the run's work tree in the coordinator's store.

use std::fs;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};

use lockstep_common::manifest::CodeVersion;
use lockstep_host::git;
use lockstep_rpc::Assignment;
use lockstep_rpc::process_message::Body;
use lockstep_store::BlobStore;
use lockstep_support::commit;

use crate::coordinator::{Coordinator, Key};
use crate::support::{Agent, JOB, assignment, fake_rank, key, options, parse, until};

/// A run whose work tree differed from its commit; the tree is in a store, and its directory was moved away.
struct Run {
    dir: tempfile::TempDir,
    code: CodeVersion,
    build: String,
}

impl Run {
    /// A run whose build command is `build`. In it `$FAKE` is the fake rank process, and `$DIR` a directory outside the work tree.
    fn new(build: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let tree = dir.path().join("tree");
        fs::create_dir_all(tree.join("jobs")).unwrap();
        fs::write(tree.join("committed"), "old").unwrap();
        fs::write(tree.join("Cargo.lock"), "versions").unwrap();
        commit(&tree, "x");
        fs::write(tree.join("committed"), "changed").unwrap();
        fs::write(tree.join("jobs/untracked"), "new").unwrap();
        let mut code = git::describe(&tree.join("jobs")).unwrap().unwrap().version;
        let store = BlobStore::open(&dir.path().join("store")).unwrap();
        code.tree = Some(store.put(&git::snapshot(&tree, 1000).unwrap().bytes).unwrap());
        code.source = Some(store.put(&git::source(&tree, 1000).unwrap().unwrap()).unwrap());
        // Serves as the published repository.
        fs::rename(tree, dir.path().join("published")).unwrap();
        let fake = fake_rank("").program.display().to_string();
        let build = build.replace("$FAKE", &fake).replace("$DIR", &dir.path().display().to_string());
        Self { dir, code, build }
    }

    fn assignment(&self, key: &Key) -> Assignment {
        self.assignment_built_by(key, &self.build)
    }

    fn assignment_built_by(&self, key: &Key, build: &str) -> Assignment {
        let text = JOB.split("[model]").next().unwrap().to_owned()
            + "[data]\nkind = \"files\"\npaths = [\"x\"]\n[batch]\nsize = 4\n[optimizer]\nkind = \"sgd\"\nlr = 0.1\n\
               [program]\nbin = \"out/program\"\n";
        let job = parse(&text, &[format!("program.build={build:?}")]);
        Assignment {
            job: job.canonical(),
            store: self.path("store").display().to_string(),
            code: Some((&self.code).into()),
            ..assignment(key)
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// An agent with a data directory of its own; agents of one run share the directory of programs.
    fn agent(&self, coordinator: &Coordinator, name: &str) -> Agent {
        let mut options = options(coordinator.address(), &self.path(name), fake_rank("train:5"));
        options.programs_dir = self.path("programs");
        Agent::start(options)
    }
}

fn ready(coordinator: &Coordinator, key: &Key) {
    coordinator.hear("ready", key, |body| matches!(body, Body::Ready(_)).then_some(()));
}

fn failure(coordinator: &Coordinator, key: &Key) -> String {
    coordinator.hear("failure", key, |body| match body {
        Body::Failed(failed) => Some(failed.reason),
        _ => None,
    })
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path).unwrap_or_default().lines().map(str::to_owned).collect()
}

#[test]
fn a_program_is_built_once_from_the_runs_tree_and_trains() {
    let run = Run::new(
        "sleep 0.2; cat ../committed untracked >> $DIR/count; echo >> $DIR/count; mkdir out; cp $FAKE out/program; echo compiled",
    );
    let coordinator = Coordinator::new();
    let agent = run.agent(&coordinator, "a");
    let (first, second, next) = (key(1, 0), key(1, 1), key(2, 0));
    coordinator.desire(vec![run.assignment(&first).into(), run.assignment(&second).into()]);
    ready(&coordinator, &first);
    ready(&coordinator, &second);
    assert_eq!(lines(&run.path("count")), ["changednew"]);
    let (log, _) = coordinator.read_log(&first, |text| text.contains("second line"));
    assert!(log.contains(&format!("of commit {}", run.code.commit)) && log.contains("compiled\n[built]\n"), "{log}");
    let (log, _) = coordinator.read_log(&second, |text| text.contains("second line"));
    assert!(log.starts_with("[its program is being built") && !log.contains("compiled"), "{log}");

    coordinator.desire(vec![run.assignment(&next).into()]);
    ready(&coordinator, &next);
    agent.stop().unwrap();
    let other = run.agent(&coordinator, "b");
    let again = key(3, 0);
    coordinator.desire(vec![run.assignment(&again).into()]);
    ready(&coordinator, &again);
    assert_eq!(lines(&run.path("count")).len(), 1, "neither for a new generation nor for another agent");
    other.stop().unwrap();
    let facts = fs::read_dir(run.path("programs")).unwrap().map(|entry| entry.unwrap().path().join("built.json"));
    let facts = fs::read_to_string(facts.filter(|path| path.exists()).max().unwrap()).unwrap();
    assert!(facts.contains("\"program.cargo_lock\":") && facts.contains("\"program\":\"program\""), "{facts}");
}

#[test]
fn the_tree_of_a_running_program_stays_whoever_builds_another_one() {
    let run = Run::new("mkdir out; cp $FAKE out/program");
    let tree_of = |name: &str| {
        let trees = fs::read_dir(run.path("programs")).unwrap().map(|entry| entry.unwrap().path().join("tree"));
        trees.filter(|tree| tree.join("jobs").join(name).exists()).count()
    };
    let coordinators = [Coordinator::new(), Coordinator::new()];
    // Each keeps one program, and both share their directory.
    let agents = [0, 1].map(|index| {
        let name = ["a", "b"][index];
        let mut options = options(coordinators[index].address(), &run.path(name), fake_rank("train:5"));
        (options.programs_dir, options.programs) = (run.path("programs"), NonZeroUsize::MIN);
        Agent::start(options)
    });
    let assigned = |key: &Key, name: &str| run.assignment_built_by(key, &format!("touch {name}; {}", run.build));
    let [first, second, third] = [key(1, 0), key(2, 0), key(3, 0)];
    coordinators[0].desire(vec![assigned(&first, "one").into()]);
    ready(&coordinators[0], &first);
    coordinators[1].desire(vec![assigned(&second, "two").into()]);
    ready(&coordinators[1], &second);
    until("the second build to be over", || tree_of("two") == 1);
    assert_eq!(tree_of("one"), 1, "a process runs in it");
    coordinators[0].desire(Vec::new());
    coordinators[0].hear("its end", &first, |body| matches!(body, Body::Exited(_)).then_some(()));
    coordinators[1].desire(vec![assigned(&third, "three").into()]);
    ready(&coordinators[1], &third);
    until("what is not in use to be deleted", || tree_of("one") == 0);
    for agent in agents {
        agent.stop().unwrap();
    }
}

#[test]
fn what_an_earlier_build_left_is_not_taken_for_this_ones() {
    let first = Run::new("mkdir -p $CARGO_TARGET_DIR/release; cp $FAKE $CARGO_TARGET_DIR/release/program");
    let second = Run::new("true");
    let coordinator = Coordinator::new();
    let agent = first.agent(&coordinator, "a");
    let (good, bad) = (key(1, 0), key(2, 0));
    let named = |run: &Run, key: &Key| {
        let mut assignment = run.assignment(key);
        let job = String::from_utf8(assignment.job).unwrap().replace("out/program", "program");
        assignment.job = job.into_bytes();
        assignment
    };
    coordinator.desire(vec![named(&first, &good).into()]);
    ready(&coordinator, &good);
    coordinator.desire(vec![named(&second, &bad).into()]);
    let reason = failure(&coordinator, &bad);
    assert!(reason.contains("release/program`: set `program.bin` to a binary"), "{reason}");
    agent.stop().unwrap();
}

#[test]
fn a_commit_that_was_not_kept_is_fetched_from_its_remote() {
    let mut run = Run::new("cat ../committed > $DIR/seen; mkdir out; cp $FAKE out/program");
    run.code.source = None;
    let coordinator = Coordinator::new();
    let agent = run.agent(&coordinator, "a");
    let (first, second, third) = (key(1, 0), key(2, 0), key(3, 0));
    coordinator.desire(vec![run.assignment(&first).into()]);
    let said = failure(&coordinator, &first);
    assert!(said.contains(&format!("commit `{}` of the work tree was not found", run.code.commit)), "{said}");
    run.code.remote = Some(format!("file://{}", run.path("nowhere").display()));
    coordinator.desire(vec![run.assignment(&second).into()]);
    let reason = failure(&coordinator, &second);
    assert!(reason.contains("cannot fetch commit") && reason.contains("nowhere"), "{reason}");
    run.code.remote = Some(format!("file://{}", run.path("published").display()));
    coordinator.desire(vec![run.assignment(&third).into()]);
    ready(&coordinator, &third);
    assert_eq!(lines(&run.path("seen")), ["changed"]);
    agent.stop().unwrap();
}

#[test]
fn what_cannot_be_built_fails_the_run_with_the_builders_own_words() {
    for (build, words) in [
        ("echo error: no such thing >&2; exit 3", "error: no such thing"),
        ("true", "out/program`: set `program.bin` to a binary"),
        ("mkdir out; echo no program > out/program", "cannot start `"),
    ] {
        let run = Run::new(build);
        let coordinator = Coordinator::new();
        let agent = run.agent(&coordinator, "a");
        let (first, second) = (key(1, 0), key(1, 1));
        coordinator.desire(vec![run.assignment(&first).into(), run.assignment(&second).into()]);
        for key in [&first, &second] {
            let reason = failure(&coordinator, key);
            assert!(reason.contains("node `node-a` cannot") && reason.contains(words), "{reason}");
        }
        agent.stop().unwrap();
    }
    let run = Run::new("true");
    let coordinator = Coordinator::new();
    let agent = run.agent(&coordinator, "a");
    let key = key(1, 0);
    coordinator.desire(vec![Assignment { code: None, ..run.assignment(&key) }.into()]);
    let reason = failure(&coordinator, &key);
    assert!(reason.contains("no work tree was kept"), "{reason}");
    agent.stop().unwrap();
}

#[test]
fn a_build_that_nobody_waits_for_is_stopped_with_all_it_has_started() {
    let run = Run::new("echo $$ > $DIR/pid; sleep 1000 & echo $! >> $DIR/pid; wait");
    let coordinator = Coordinator::new();
    let agent = run.agent(&coordinator, "a");
    let (first, second) = (key(1, 0), key(2, 0));
    let all_gone = || {
        let pids = lines(&run.path("pid"));
        pids.len() == 2 && pids.iter().all(|pid| !Path::new("/proc").join(pid).join("exe").exists())
    };
    coordinator.desire(vec![run.assignment(&first).into()]);
    until("the build to begin", || lines(&run.path("pid")).len() == 2);
    coordinator.desire(Vec::new());
    until("the build to stop", all_gone);

    fs::remove_file(run.path("pid")).unwrap();
    coordinator.desire(vec![run.assignment(&second).into()]);
    until("the build to begin again", || lines(&run.path("pid")).len() == 2);
    agent.stop().unwrap();
    until("the build to stop with its agent", all_gone);
    let code = coordinator.hear("its end", &second, |body| match body {
        Body::Exited(exit) => Some(exit.code),
        _ => None,
    });
    assert_eq!(code, 128 + 15);
}
