//! Numbers of a run as people see them: in the page's API, in other tools, in the terminal.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::process::Command;

use lockstep_support::{Process, Signal, binary, printed, signal, tool};
use lockstep_tests::{Cluster, DEADLINE, digits, wait_for};
use serde_json::{Value, json};

fn curve(cluster: &Cluster, run: &str, name: &str) -> Value {
    let found = cluster.document(&format!("/api/runs/{run}/points?name={name}&pixels=20000"));
    let series = found["series"].as_array().unwrap();
    assert_eq!(series.len(), 1, "{name}: {found}");
    assert_eq!(series[0]["exact"], true);
    series[0].clone()
}

fn numbers(values: &Value) -> Vec<f64> {
    values.as_array().unwrap().iter().map(|value| value.as_f64().unwrap()).collect()
}

fn names(cluster: &Cluster, run: &str) -> Vec<String> {
    let series = cluster.document(&format!("/api/runs/{run}/series"));
    let name = |one: &Value| match &one["part"] {
        Value::Null => one["name"].as_str().unwrap().to_owned(),
        part => format!("{}[{part}]", one["name"].as_str().unwrap()),
    };
    series["series"].as_array().unwrap().iter().map(name).collect()
}

#[test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
fn every_series_of_a_run_is_there_with_every_bit_and_other_tools_read_the_same() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "report.histograms_every=10", "--set", "world.processes=2"]);
    cluster.finished(&run);
    // A thread of its own stores the numbers, so they may appear later than the end of the run.
    wait_for("the last step's numbers", || {
        let series = cluster.document(&format!("/api/runs/{run}/series"));
        let loss = series["series"].as_array()?.iter().find(|one| one["name"] == "loss")?.clone();
        (loss["last_step"] == 90).then_some(())
    });

    let record = cluster.ask(&["show", &run, "--metrics"]);
    for (name, key) in [("loss", "loss"), ("grad_norm", "grad_norm"), ("lr", "lr")] {
        let drawn = numbers(&curve(&cluster, &run, name)["values"]);
        let recorded: Vec<f64> =
            record["steps"].as_array().unwrap().iter().map(|step| step[key].as_f64().unwrap()).collect();
        assert_eq!(drawn, recorded, "{name}");
    }
    let found = names(&cluster, &run);
    for name in [
        "eval/loss",
        "eval/accuracy",
        "throughput/samples",
        "step_seconds",
        "grad_norm/layers.0.weight",
        "weight_norm/layers.0.weight",
        "update_ratio/layers.1.bias",
        "rank/grad_norm[0]",
        "rank/grad_norm[3]",
        "phase/forward[0]",
        "phase/reduction[1]",
        "process/rss_bytes[1]",
        "process/minor_faults[0]",
    ] {
        assert!(found.iter().any(|own| own == name), "`{name}` is not among {found:?}");
    }
    // An optimizer step changes weights by a small ratio.
    let ratio = numbers(&curve(&cluster, &run, "update_ratio/layers.0.weight")["values"]);
    assert!(ratio.len() == 9 && ratio[..8].iter().all(|ratio| (1e-6..1.0).contains(ratio)), "{ratio:?}");
    assert_eq!(ratio[8], 0.0, "the schedule ends at nothing");

    let histograms = cluster.document(&format!("/api/runs/{run}/histograms"));
    let histogram_names: Vec<&str> =
        histograms["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    for name in ["activation/001.relu", "grad/layers.0.weight", "weight/layers.2.bias"] {
        assert!(histogram_names.contains(&name), "{histogram_names:?}");
    }
    let weight = cluster.document(&format!("/api/runs/{run}/histograms?name=weight/layers.0.weight"));
    let items = weight["items"].as_array().unwrap();
    assert_eq!(items.len(), 9);
    for item in items {
        let counted: f64 = numbers(&item["counts"]).iter().sum();
        assert_eq!((item["count"].as_f64().unwrap(), counted), (48.0 * 64.0, 48.0 * 64.0));
    }
    let model = cluster.document(&format!("/api/runs/{run}/model"));
    assert_eq!(
        (&model["kind"], &model["parameters"]),
        (&json!("mlp"), &json!(64 * 48 + 48 + 48 * 32 + 32 + 32 * 10 + 10))
    );
    assert_eq!(cluster.document(&format!("/api/runs/{run}/alarms")), json!([]), "nothing is wrong with it");
    let jobs = cluster.document("/api/jobs");
    assert!(jobs[&run].as_str().unwrap().contains("\"digits"), "{jobs}");
    assert_eq!(jobs[&run], cluster.document(&format!("/api/runs/{run}"))["job"]);

    // Compare with the CSV table and the terminal.
    let csv = dir.path().join("points.csv");
    cluster.run(&["mirror", &run, "--csv", csv.to_str().unwrap()]);
    let table = std::fs::read_to_string(&csv).unwrap();
    let losses: Vec<f64> = table
        .lines()
        .filter_map(|line| line.strip_prefix("loss,"))
        // Parsed with the same reader as the API's numbers, so that both round alike.
        .map(|line| serde_json::from_str(line.rsplit(',').next().unwrap()).unwrap())
        .collect();
    assert_eq!(losses, numbers(&curve(&cluster, &run, "loss")["values"]));
    let drawn = cluster.run(&["plot", &run, "loss"]);
    assert!(drawn.starts_with("loss  last ") && drawn.contains('•'), "{drawn}");
    let missing = cluster.coord(&["plot", &run, "lost"]);
    assert_eq!(missing.status.code(), Some(4), "{missing:?}");
    let short = cluster.submit(job.argument(), &["--set", "steps=20", "--set", "optimizer.lr=0.01"]);
    cluster.finished(&short);
    let side_by_side = wait_for("the other run's numbers", || {
        let found = cluster.ask(&["compare", &run, &short]);
        let loss = found["series"].as_array()?.iter().find(|series| series["name"] == "loss")?.clone();
        (loss["runs"][1]["last_step"] == 20).then_some((found, loss))
    });
    assert_eq!(side_by_side.1["runs"][0]["last"], curve(&cluster, &run, "loss")["values"][89]);
    assert_eq!(side_by_side.0["job"]["optimizer.lr"], json!(["0.1", "0.01"]));
    assert!(side_by_side.0["job"]["seed"].is_null(), "what is the same is left out");
    let top = cluster.ask(&["top"]);
    assert_eq!(top["runs"][1]["run"]["run"], json!(run));
    read_by_tensorboard(&cluster, &run, dir.path());
}

/// Checks that the reader of `TensorBoard` finds the same losses, as 32-bit floats.
fn read_by_tensorboard(cluster: &Cluster, run: &str, dir: &Path) {
    let logs = dir.join("runs");
    for _ in 0..2 {
        // The second call has nothing to add.
        cluster.run(&["mirror", run, "--tensorboard", logs.to_str().unwrap()]);
    }
    let script = "import sys, json\n\
        from tensorboard.backend.event_processing.event_accumulator import EventAccumulator\n\
        events = EventAccumulator(sys.argv[1], size_guidance={'scalars': 0, 'histograms': 0}); events.Reload()\n\
        print(json.dumps([[s.step for s in events.Scalars('loss')], [s.value for s in events.Scalars('loss')], events.Tags()['scalars']]))";
    let read = printed(Command::new(tool("python3")).args(["-c", script]).arg(logs.join(run)));
    let read: Value = serde_json::from_str(&read).unwrap();
    let ours = curve(cluster, run, "loss");
    assert_eq!(read[0], ours["steps"]);
    let floats = |values: &Value| numbers(values).iter().map(|value| *value as f32).collect::<Vec<_>>();
    assert_eq!(floats(&read[1]), floats(&ours["values"]));
}

#[test]
fn a_roll_back_leaves_no_saw_tooth_and_a_coordinator_that_was_killed_knows_all_numbers() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let sets = ["--set", "steps=4000", "--set", "checkpoint.every_steps=500", "--set", "world.processes=2"];
    let run = cluster.submit(job.argument(), &sets);
    let table = dir.path().join("followed.csv");
    let follow = ["mirror", &run, "--follow", "--csv", table.to_str().unwrap(), "--addr", cluster.address()];
    let mut mirror = Process::start(Command::new(binary("coord")).args(follow));
    cluster.reached(&run, 700);
    // After SIGKILL of a rank process, the run rolls back to its last checkpoint.
    signal(cluster.rank_pids(&run)[&1], Signal::KILL);
    cluster.reached(&run, 1500);
    cluster.kill_coordinator();
    cluster.restart_coordinator();
    cluster.finished(&run);
    wait_for("the last step's numbers", || {
        let series = cluster.document(&format!("/api/runs/{run}/series"));
        let loss = series["series"].as_array()?.iter().find(|one| one["name"] == "loss")?.clone();
        (loss["last_step"] == 4000).then_some(())
    });
    let loss = curve(&cluster, &run, "loss");
    assert_eq!(numbers(&loss["steps"]), (1..=4000).map(f64::from).collect::<Vec<_>>(), "each step once");
    // `mirror --follow` also has each step once, with the final values.
    let outcome = mirror.end(DEADLINE);
    assert_eq!(outcome.code, 0, "{}", outcome.said);
    let (mut steps, mut values) = (Vec::new(), Vec::new());
    for line in std::fs::read_to_string(&table).unwrap().lines().filter(|line| line.starts_with("loss,")) {
        let cells: Vec<&str> = line.split(',').collect();
        steps.push(cells[2].parse::<f64>().unwrap());
        values.push(serde_json::from_str::<f64>(cells[4]).unwrap());
    }
    assert_eq!((steps, values), (numbers(&loss["steps"]), numbers(&loss["values"])));
    let series = cluster.document(&format!("/api/runs/{run}/series"));
    let branches = series["branches"].as_array().unwrap();
    assert_eq!(branches.len(), 1, "{branches:?}");
    let (after, last) = (branches[0]["after_step"].as_u64().unwrap(), branches[0]["last_step"].as_u64().unwrap());
    assert!(after.is_multiple_of(500) && last >= 700 && after < last, "{branches:?}");
    let left = cluster.document(&format!("/api/runs/{run}/points?name=loss&branch=1&pixels=20000"));
    let left = &left["series"][0];
    assert_eq!(left["steps"][0], json!(after + 1));
    // The re-run of these steps gave the same bits.
    let again = &numbers(&loss["values"])[after as usize..];
    let before = numbers(&left["values"]);
    assert_eq!(before, again[..before.len()]);
}

#[test]
fn what_is_not_a_number_is_named_with_its_place_and_rank() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    // The first step makes all weights huge, so in the second step all ranks fail at the same matrix product.
    let sets = ["--set", "world.processes=2", "--set", "optimizer.lr=1e30", "--set", "optimizer.clip_norm=1e30"];
    let run = cluster.submit(job.argument(), &sets);
    let ended = cluster.ended(&run);
    let reason = ended["reason"].as_str().unwrap();
    let place = "the loss of step 2 is NaN, first in `activation/002.linear` of layer `layers.1` (768 of 768 elements) of rank 0";
    assert!(reason.contains(place), "{reason}");
    let alarms = wait_for("the alarm", || {
        let alarms = cluster.document(&format!("/api/runs/{run}/alarms"));
        (!alarms.as_array()?.is_empty()).then_some(alarms)
    });
    assert_eq!(alarms[0]["severity"], "error", "{alarms}");
    assert!(alarms[0]["place"].as_str().unwrap().contains("002.linear"), "{alarms}");
}

#[test]
fn tags_and_notes_are_written_by_hand_and_strangers_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 0);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &[]);
    cluster.run(&["tag", &run, "baseline", "team:vision"]);
    cluster.run(&["note", &run, "the one to beat"]);
    let seen = cluster.show(&run);
    assert_eq!((&seen["tags"], &seen["note"]), (&json!(["baseline", "team:vision"]), &json!("the one to beat")));
    let (status, _) = cluster.http("PUT", &format!("/api/runs/{run}/tags"), "[\"final\"]");
    assert_eq!(status, 204);
    assert_eq!(cluster.document("/api/runs")[0]["tags"], json!(["final"]));
    let (status, words) = cluster.http("PUT", &format!("/api/runs/{run}/tags"), "[\"two words\"]");
    assert_eq!((status, words.contains("`two words` is not a tag")), (400, true), "{words}");
    assert_eq!(cluster.coord(&["tag", &run, "<script>"]).status.code(), Some(2));
    for (path, expected) in [("/api/runs/none", 404), ("/api/nothing", 404), ("/assets/nothing", 404)] {
        assert_eq!(cluster.get(path).0, expected, "{path}");
    }
    assert_eq!(cluster.get(&format!("/api/runs/{run}/points?pixel=5")).0, 400);
    let (status, page) = cluster.get("/");
    assert!(status == 200 && page.contains("<!doctype html>"), "{page}");
}
