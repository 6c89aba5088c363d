//! A real server of `MLflow` has what was written, and its own client reads it.

use std::path::Path;

use lockstep_common::series::{Point, SeriesKey};
use lockstep_export::{Item, Mlflow, MlflowServer, Run, Sink, Status};
use serde_json::{Value, json};

use crate::fixture::{BEGIN_MS, ended, histogram, loss, memory, png, points, run, shown};
use crate::tools::{START, Server, python};

const EXPERIMENT: &str = "digits & more";

/// The run as `MLflow`'s own client has it; of numbers, their bits.
const READ: &str = r#"
import json, struct, sys
uri = open(sys.argv[1]).read()
import mlflow
mlflow.set_tracking_uri(uri)
client = mlflow.MlflowClient()
experiment = client.get_experiment_by_name("digits & more")
runs = client.search_runs([experiment.experiment_id])
run, = runs
bits = lambda value: struct.unpack("<Q", struct.pack("<d", value))[0]
history = lambda name: [[m.step, m.timestamp, bits(m.value)] for m in client.get_metric_history(run.info.run_id, name)]
inputs = client.get_run(run.info.run_id).inputs.dataset_inputs
walk = lambda path: [x for f in client.list_artifacts(run.info.run_id, path) for x in (walk(f.path) if f.is_dir else [f.path])]
print(json.dumps({
    "name": run.info.run_name, "status": run.info.status, "start": run.info.start_time, "end": run.info.end_time,
    "params": run.data.params, "tags": run.data.tags, "metrics": {name: history(name) for name in run.data.metrics},
    "datasets": [[i.dataset.name, i.dataset.digest, json.loads(i.dataset.source), json.loads(i.dataset.profile), {t.key: t.value for t in i.tags}] for i in inputs],
    "artifacts": {path: list(open(client.download_artifacts(run.info.run_id, path), "rb").read()) for path in walk(None)},
}))
"#;

fn server(dir: &Path) -> Server {
    Server::new(lockstep_support::Server::mlflow(dir, START))
}

fn sink(server: &Server) -> Sink {
    let address = MlflowServer { uri: server.url("/"), token: None };
    Sink::Mlflow(Mlflow::new(address, EXPERIMENT).unwrap())
}

/// Points as [`READ`] prints them. The server's database has neither infinities nor a negative zero.
fn stored(points: &[Point]) -> Value {
    let kept = |value: f64| match value {
        0.0 => 0.0,
        value if value.is_infinite() => f64::MAX.copysign(value),
        value => value,
    };
    points.iter().map(|point| json!([point.step, point.at_ms, kept(point.value).to_bits()])).collect()
}

/// As MLflow knows `name`; the ending of an artifact stays at its end.
fn known_as(name: &str) -> String {
    let valid = name.replace(['%', '@', '[', ']', '#', '?'], "_");
    if valid == name { valid } else { format!("{valid}-{}", &blake3::hash(name.as_bytes()).to_hex()[..16]) }
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one story, told in order")]
async fn a_server_has_all_of_a_run_once() {
    let dir = tempfile::tempdir().unwrap();
    let server = server(dir.path());
    let address = dir.path().join("address");
    std::fs::write(&address, server.url("")).unwrap();
    let read = || python(READ, &address);
    let mut run: Run = run();
    run.parameters.insert("long".to_owned(), "x".repeat(6001));
    run.parameters.extend(["same[0]", "same(0)"].map(|name| (name.to_owned(), "1".to_owned())));
    run.parameters.extend((0..150).map(|index| (format!("many[{index}]"), index.to_string())));

    // Two thousand and more values: several calls; begun three times: one run, and nothing twice.
    let (png, points) = (png(), points(0, 2300));
    let artifact = dir.path().join("model.bin");
    std::fs::write(&artifact, [1, 2, 3]).unwrap();
    for to in [1500, 1500, 2301] {
        let mut sink = sink(&server);
        sink.begin(&run).await.unwrap();
        sink.write(&[
            Item::Points { key: &loss(), points: &points[..to] },
            Item::Points { key: &memory(1), points: &points[..2] },
            Item::Points { key: &SeriesKey::whole("a%b"), points: &points[..1] },
            Item::Points { key: &SeriesKey::whole("a@b"), points: &points[1..2] },
            Item::Points { key: &SeriesKey::whole("a_b"), points: &points[..2] },
            Item::Histogram { key: &loss(), histogram: &histogram(10) },
            Item::Artifact { name: "files/odd name #1?.bin", path: &artifact },
        ])
        .await
        .unwrap();
        sink.write(&shown(&png)).await.unwrap();
        // What comes again in other words: the server itself takes the same ones only once.
        let later: Vec<Point> = points[..to].iter().map(|point| Point { at_ms: point.at_ms + 1, ..*point }).collect();
        sink.write(&[Item::Points { key: &loss(), points: &later }]).await.unwrap();
    }
    let found = read();
    assert_eq!((&found["name"], &found["status"]), (&json!("digits, 2 processes"), &json!("RUNNING")));
    let metrics = found["metrics"].as_object().unwrap();
    // What MLflow does not take in a name becomes `_`, and a digest tells such names apart.
    let [percent, at, underscore] = ["a%b", "a@b", "a_b"].map(known_as);
    let mut names = vec![&*percent, &at, &underscore, "process/rss_bytes/1", "train/loss"];
    names.sort_unstable();
    assert_eq!(metrics.keys().collect::<Vec<_>>(), names);
    assert_eq!((&metrics[&percent], &metrics[&at]), (&stored(&points[..1]), &stored(&points[1..2])));
    assert_eq!((&*underscore, &metrics["a_b"]), ("a_b", &stored(&points[..2])));
    assert_eq!(metrics["process/rss_bytes/1"], stored(&points[..2]));
    let (loss, wanted) = (&metrics["train/loss"], stored(&points));
    let differ = || loss.as_array().unwrap().iter().zip(wanted.as_array().unwrap()).find(|(a, b)| a != b);
    assert!(*loss == wanted, "{} points, of which differ {:?}", loss.as_array().unwrap().len(), differ());
    let params = found["params"].as_object().unwrap();
    assert_eq!(params.len(), 5 + 1 + 2 + 150);
    assert_eq!((&params["optimizer.lr"], &params["seed"]), (&json!("0.1"), &json!("12345678901234567891")));
    assert_eq!(params[&known_as("many[149]")], "149");
    assert_eq!(params["long"].as_str().unwrap().chars().count(), 6000);
    assert!(params["long"].as_str().unwrap().ends_with("x… (cut, of 6001 characters)"));
    let digest = "ab".repeat(32);
    assert_eq!(
        found["datasets"],
        json!([[
            "data/digits.csv", digest[..36], {"path": "data/digits.csv", "digest": digest}, {"bytes": 4711},
            {"mlflow.data.context": "training"},
        ]])
    );
    assert_eq!(
        found["artifacts"],
        json!({
            (known_as("files/odd name #1?.bin").replace(".bin", "") + ".bin"): [1, 2, 3], "images/digit/first/10.png": png,
            "text/sample/10.txt": "once **upon** a time".as_bytes(),
        })
    );

    let mut sink = sink(&server);
    sink.begin(&run).await.unwrap();
    sink.finish(&ended(&run, Status::Cancelled)).await.unwrap();
    let found = read();
    assert_eq!((&found["status"], &found["start"]), (&json!("KILLED"), &json!(BEGIN_MS)));
    assert_eq!(found["end"], json!(BEGIN_MS + 60_000));
    for (tag, value) in [
        ("lockstep.run", "quiet-otter-7"),
        ("team", "vision"),
        ("mlflow.note.content", "a | b"),
        ("mlflow.source.git.commit", "0123456789abcdef0123456789abcdef01234567"),
        ("final_state", &*"cd".repeat(32)),
    ] {
        assert_eq!(found["tags"][tag], value, "{tag}");
    }
}
