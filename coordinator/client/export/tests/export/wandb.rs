//! The package `wandb` takes a run, and its own messages are in the offline file.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;

use lockstep_common::series::Point;
use lockstep_export::{ExportError, Item, Sink, Status, Wandb};
use lockstep_support::{printed, tool};
use serde_json::json;

use crate::fixture::{BEGIN_MS, ended, histogram, loss, memory, png, points, run, shown};
use crate::tools::python;

/// All records of the offline run, by kind, with JSON that is in them as it is there.
const READ: &str = concat!(
    "import sys\nsys.path.insert(0, '",
    env!("CARGO_MANIFEST_DIR"),
    r#"/../../../tests/mirror')
import glob, json, os
from read import records
from wandb.proto import wandb_internal_pb2 as pb
path, = glob.glob(os.path.join(sys.argv[1], "wandb", "offline-run-*", "run-*.wandb"))

out = {"history": [], "summary": {}, "config": {}, "artifacts": []}
load = lambda items: {item.key or "/".join(item.nested_key): item.value_json for item in items}
for data in records(open(path, "rb").read()):
    record = pb.Record()
    record.ParseFromString(data)
    kind = record.WhichOneof("record_type")
    if kind == "run":
        run = record.run
        out["run"] = [run.run_id, run.display_name, run.project, run.notes, list(run.tags)]
        out["config"].update(load(run.config.update))
    elif kind == "history":
        out["history"].append(load(record.history.item))
    elif kind == "summary":
        out["summary"].update(load(record.summary.update))
    elif kind == "exit":
        out["exit"] = record.exit.exit_code
    elif kind == "artifact":
        out["artifacts"].append([record.artifact.name, [entry.path for entry in record.artifact.manifest.contents]])
out["media"] = sorted(os.path.relpath(os.path.join(d, f), os.path.dirname(path)) for d, _, fs in os.walk(os.path.dirname(path)) for f in fs if "media" in d)
print(json.dumps(out))
"#
);

#[tokio::test]
async fn the_package_writes_the_run_and_an_earlier_export_of_it_is_replaced() {
    let dir = tempfile::tempdir().unwrap();
    let (run, png, points) = (run(), png(), points(0, 20));
    let artifact = dir.path().join("model.bin");
    fs::write(&artifact, [1, 2, 3]).unwrap();
    let wrong = [Point { value: 7.0, ..points[20] }];
    for status in [Status::Failed, Status::Finished] {
        let mut sink = Sink::Wandb(Wandb::new(tool("python3"), dir.path().join("out"), "digits"));
        sink.begin(&run).await.unwrap();
        // Not by step, and with steps that did not count.
        sink.write(&[
            Item::Points { key: &memory(1), points: &points[3..6] },
            Item::Points { key: &loss(), points: &wrong },
            Item::Rewind { step: 19 },
            Item::Points { key: &loss(), points: &points },
            Item::Histogram { key: &loss(), histogram: &histogram(10) },
            Item::Artifact { name: "files/model.bin", path: &artifact },
        ])
        .await
        .unwrap();
        sink.write(&shown(&png)).await.unwrap();
        sink.finish(&ended(&run, status)).await.unwrap();
    }
    let found = python(READ, &dir.path().join("out"));
    let tags = ["code.commit=0123456789abcdef0123456789abcdef01234567", "note=a | b", "team=vision"];
    assert_eq!(found["run"], json!(["quiet-otter-7", "digits, 2 processes", "digits", "a | b", tags]));
    assert_eq!(found["config"]["optimizer.lr"], "\"0.1\"");
    assert!(found["config"]["lockstep"].as_str().unwrap().contains(&"ab".repeat(32)));
    assert_eq!(found["exit"], 0);
    assert_eq!(found["summary"]["status"], "\"finished\"");
    assert_eq!(found["artifacts"], json!([["run-quiet-otter-7-files", ["files/model.bin"]]]));

    let history = found["history"].as_array().unwrap();
    assert_eq!(history.len(), 21);
    for (row, point) in history.iter().zip(&points) {
        // Rust's own reader of floats is exact, as that of the crate `serde_json` is not; it knows `NaN` and `Infinity` too.
        let number = |name: &str| row.get(name).map(|text| text.as_str().unwrap().parse::<f64>().unwrap());
        assert_eq!(number("_step"), Some(point.step as f64));
        assert_eq!(number("_timestamp"), Some((BEGIN_MS + 250 * point.step) as f64 / 1e3));
        assert_eq!(number("train/loss").map(f64::to_bits), Some(point.value.to_bits()), "step {}", point.step);
        assert_eq!(number("process/rss_bytes/1").is_some(), (3..6).contains(&point.step));
        if point.step == 10 {
            let counts: Vec<u64> = serde_json::from_str(row["train/loss/histogram/values"].as_str().unwrap()).unwrap();
            assert_eq!(counts.iter().sum::<u64>(), 9);
        }
    }
    let media: Vec<PathBuf> = serde_json::from_value(found["media"].clone()).unwrap();
    let with =
        |extension: &str| media.iter().filter(|path| path.extension().is_some_and(|other| other == extension)).count();
    assert_eq!((with("png"), with("html")), (1, 1), "{media:?}");
}

#[tokio::test]
async fn an_interpreter_without_the_package_is_told_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let bare = dir.path().join("bare");
    printed(Command::new(tool("python3")).args(["-m", "venv", "--without-pip"]).arg(&bare));
    let mut sink = Sink::Wandb(Wandb::new(bare.join("bin/python3"), dir.path(), "p"));
    let error = sink.begin(&run()).await.unwrap_err();
    assert!(matches!(error, ExportError::NoWandb { .. }) && error.to_string().contains("pip install wandb"), "{error}");
    let mut sink = Sink::Wandb(Wandb::new(dir.path().join("none"), dir.path(), "p"));
    assert!(matches!(sink.begin(&run()).await, Err(ExportError::NoPython { .. })));
}

#[tokio::test]
async fn what_the_package_says_no_to_is_told_in_its_words() {
    let dir = tempfile::tempdir().unwrap();
    let mut run = run();
    run.id = "no/such:id".to_owned();
    let mut sink = Sink::Wandb(Wandb::new(tool("python3"), dir.path(), "p"));
    sink.begin(&run).await.unwrap();
    let said = sink.finish(&run).await.unwrap_err().to_string();
    assert!(said.contains("Run ID cannot contain") && !said.contains("Traceback"), "{said}");
    // It would write, and remove an earlier export, wherever that leads.
    let elsewhere = dir.path().join("elsewhere");
    fs::create_dir(&elsewhere).unwrap();
    let out = dir.path().join("out");
    fs::create_dir(&out).unwrap();
    std::os::unix::fs::symlink(&elsewhere, out.join("wandb")).unwrap();
    let said = Sink::Wandb(Wandb::new(tool("python3"), &out, "p")).finish(&self::run()).await.unwrap_err().to_string();
    assert!(said.contains("out/wandb` is a symbolic link") && !said.contains("Traceback"), "{said}");
    assert_eq!(fs::read_dir(&elsewhere).unwrap().count(), 0);
}

/// A run's work tree may hold anything, also files that are named as modules.
#[tokio::test]
async fn python_runs_nothing_that_lies_in_the_current_directory() {
    let dir = tempfile::tempdir().unwrap();
    let (here, ran) = (dir.path().join("here"), dir.path().join("ran"));
    fs::create_dir_all(here.join("wandb")).unwrap();
    for module in ["wandb/__init__.py", "json.py", "base64.py", "importlib.py", "glob.py"] {
        fs::write(here.join(module), format!("open({:?}, 'a').write({module:?})", ran.display())).unwrap();
    }
    // The second one does not know the variable, as Python before 3.11.
    for (name, variables) in [("new", ""), ("old", "-u PYTHONSAFEPATH")] {
        let python = dir.path().join(name);
        let (here, tool) = (here.display(), tool("python3"));
        let script = format!("#!/bin/sh\ncd '{here}' && exec env {variables} '{}' -S \"$@\"\n", tool.display());
        fs::write(&python, script).unwrap();
        fs::set_permissions(&python, Permissions::from_mode(0o700)).unwrap();
        let mut sink = Sink::Wandb(Wandb::new(&python, dir.path(), "p"));
        assert!(matches!(sink.begin(&run()).await, Err(ExportError::NoWandb { .. })), "{name}");
        let said = sink.finish(&run()).await.unwrap_err().to_string();
        assert!(said.contains("No module named 'wandb'"), "{name}: {said}");
        assert_eq!(fs::read_to_string(&ran).unwrap_or_default(), "", "{name}");
    }
}
