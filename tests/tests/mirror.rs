//! `coord mirror --follow` during training: each tool's own reader finds every point of the run.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeMap;
use std::process::Command;
use std::time::Duration;

use lockstep_support::{Server, binary, printed, repository, tool};
use lockstep_tests::{Cluster, digits, wait_for};

/// Points by series; the key is `name` or `name/part`.
type Series = BTreeMap<String, Vec<(u64, f64)>>;

/// All series of a run, from the page's API.
fn tracked(cluster: &Cluster, run: &str) -> Series {
    let points = cluster.document(&format!("/api/runs/{run}/points?pixels=20000"));
    let mut all = Series::new();
    for series in points["series"].as_array().unwrap() {
        assert_eq!(series["exact"], true);
        let name = series["name"].as_str().unwrap();
        let name = if series["part"].is_null() { name.to_owned() } else { format!("{name}/{}", series["part"]) };
        let steps = series["steps"].as_array().unwrap().iter().map(|step| step.as_u64().unwrap());
        let values = series["values"].as_array().unwrap().iter().map(|value| value.as_f64().unwrap());
        all.insert(name, steps.zip(values).collect());
    }
    all
}

fn read(of: &str, place: &str, run: &str) -> Series {
    let script = repository().join("tests/mirror/read.py");
    let series = printed(Command::new(tool("python3")).arg(script).args([of, place, run]));
    serde_json::from_str(&series).unwrap_or_else(|error| panic!("{of}: {error}"))
}

#[test]
fn a_run_that_is_followed_is_whole_in_each_tool_as_that_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    // On a busy machine, MLflow's imports alone take minutes.
    let server = Server::mlflow(dir.path(), Duration::from_mins(6));
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let sets = ["--set", "report.histograms_every=10", "--set", "world.processes=2"];
    let measured = "eval.feature_importance={repeats=1, samples=50}";
    let run = cluster.submit(job.argument(), &[&sets[..], &["--set", measured]].concat());
    let at = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    let places = [
        ("tensorboard", at("events")),
        ("mlflow", server.url),
        ("wandb", at("wandb")),
        ("parquet", at("points.parquet")),
    ];
    let mut mirror = Command::new(binary("coord"));
    mirror.args(["mirror", &run, "--follow", "--addr", cluster.address(), "--python"]).arg(tool("python3"));
    for (name, place) in &places {
        mirror.args([&format!("--{name}"), place]);
    }
    printed(&mut mirror);
    cluster.finished(&run);
    let ours = wait_for("the last step's numbers", || {
        let ours = tracked(&cluster, &run);
        (ours.get("loss")?.last()?.0 == 90 && ours.contains_key("importance/gradient/p63")).then_some(ours)
    });
    assert!(ours.len() > 150, "{:?}", ours.keys());
    // A pixel that is always black has no importance; p28 has some, in spite of dropout.
    assert_eq!(ours["importance/permutation/p00"], [(90, 0.0)]);
    assert!(ours["importance/permutation/p28"][0].1.abs() > 0.0 && ours["importance/gradient/p28"][0].1 > 0.0);
    for (name, place) in &places {
        let theirs = read(name, place, &run);
        let missing: Vec<&String> = ours.keys().filter(|series| !theirs.contains_key(*series)).collect();
        assert!(missing.is_empty(), "{name} lacks {missing:?}; it has {:?}", theirs.keys());
        for (series, points) in &ours {
            let narrow = |value: f64| if *name == "tensorboard" { f64::from(value as f32) } else { value };
            let points: Vec<(u64, f64)> = points.iter().map(|&(step, value)| (step, narrow(value))).collect();
            assert_eq!(theirs[series], points, "{name}: {series}");
        }
    }
}

#[test]
fn a_scrape_is_read_by_prometheus_own_client() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 2);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=1000000", "--set", "world.processes=1"]);
    cluster.reached(&run, 5);
    let scraped = read("prometheus", &format!("http://{}/metrics", cluster.page()), &run);
    let value = |name: &str| scraped.get(name).unwrap_or_else(|| panic!("no {name}: {:?}", scraped.keys()))[0].1;
    for (name, expected) in [
        ("lockstep_runs/running", 1.0),
        ("lockstep_runs/failed", 0.0),
        ("lockstep_nodes/alive", 2.0),
        ("lockstep_devices/busy", 1.0),
        ("lockstep_devices/free", 1.0),
        ("lockstep_run_steps", 1e6),
        ("lockstep_run_processes", 1.0),
        ("lockstep_run_alarms", 0.0),
    ] {
        assert_eq!(value(name), expected, "{name}");
    }
    assert!(value("lockstep_run_step") >= 5.0 && value("lockstep_run_loss") > 0.0);
    assert!(value("lockstep_run_samples_per_second") > 0.0);
    cluster.run(&["cancel", &run]);
}
