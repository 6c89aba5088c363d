//! `TensorBoard` reads what was written: its library, and its server with either of its readers.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use lockstep_common::chain;
use lockstep_export::{Item, Sink, Status, TensorBoard};
use lockstep_support::{free_port, printed, tool};
use serde_json::{Value, json};

use crate::fixture::{BEGIN_MS, ended, histogram, loss, memory, png, points, run, shown};
use crate::tools::{START, Server, python};

/// All that `TensorBoard`'s own library finds: of numbers, their bits.
const READ: &str = r#"
import json, struct, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
events = EventAccumulator(sys.argv[1], size_guidance={"scalars": 0, "histograms": 0, "images": 0, "tensors": 0})
events.Reload()
tags = events.Tags()
bits = lambda value: struct.unpack("<I", struct.pack("<f", value))[0]
print(json.dumps({
    "scalars": {t: [[e.step, e.wall_time, bits(e.value)] for e in events.Scalars(t)] for t in tags["scalars"]},
    "histograms": {t: [[e.step, vars(e.histogram_value)] for e in events.Histograms(t)] for t in tags["histograms"]},
    "images": {t: [[e.step, e.width, e.height, list(e.encoded_image_string)] for e in events.Images(t)] for t in tags["images"]},
    "tensors": {t: [[e.step, [s.decode() for s in e.tensor_proto.string_val]] for e in events.Tensors(t)] for t in tags["tensors"]},
}))
"#;

fn sink(dir: &Path) -> Sink {
    Sink::TensorBoard(TensorBoard::new(dir))
}

/// Points as [`READ`] prints them.
fn bits(points: &[lockstep_common::series::Point]) -> Value {
    points.iter().map(|p| json!([p.step, p.at_ms as f64 / 1e3, (p.value as f32).to_bits()])).collect()
}

/// The event files, oldest first.
fn files(dir: &Path) -> Vec<std::path::PathBuf> {
    let mut files: Vec<_> = fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

#[tokio::test]
async fn the_library_reads_what_was_written() {
    let dir = tempfile::tempdir().unwrap();
    let (run, png, points, histogram) = (run(), png(), points(0, 20), histogram(10));
    let mut sink = sink(dir.path());
    sink.begin(&run).await.unwrap();
    sink.write(&[
        Item::Points { key: &loss(), points: &points },
        Item::Points { key: &memory(1), points: &points[..4] },
        Item::Histogram { key: &loss(), histogram: &histogram },
    ])
    .await
    .unwrap();
    sink.write(&shown(&png)).await.unwrap();
    sink.finish(&ended(&run, Status::Finished)).await.unwrap();

    let read = python(READ, dir.path());
    assert_eq!(read["scalars"], json!({"train/loss": bits(&points), "process/rss_bytes/1": bits(&points[..4])}));
    let (edges, counts) = histogram.bars(120);
    let as_floats: Vec<f64> = counts.iter().map(|&count| count as f64).collect();
    assert_eq!(
        read["histograms"],
        json!({"train/loss/histogram": [[10, {
            "min": -3.0, "max": 900.0, "num": 9.0, "sum": 900.0, "sum_squares": 9.0 * (100.0 * 100.0 + 280.0 * 280.0),
            "bucket_limit": edges[1..], "bucket": as_floats,
        }]]})
    );
    assert_eq!(read["images"], json!({"digit/first": [[10, 1, 1, png]]}));
    assert_eq!(read["tensors"]["sample"], json!([[10, ["once **upon** a time"]]]));
    let about = &read["tensors"]["lockstep/run"];
    assert_eq!((&about[0][0], &about[1][0]), (&json!(0), &json!(20)));
    let text = about[1][1][0].as_str().unwrap();
    assert!(text.contains(r"| note | a \| b |") && text.contains(&"cd".repeat(32)) && text.contains("4711"), "{text}");
}

#[tokio::test]
async fn a_run_goes_on_after_a_crash_and_after_going_back_and_no_point_is_there_twice() {
    let dir = tempfile::tempdir().unwrap();
    let (run, points) = (run(), points(0, 30));
    let write = async |to: usize| {
        let mut sink = sink(dir.path());
        sink.begin(&run).await.unwrap();
        sink.write(&[Item::Points { key: &loss(), points: &points[..to] }]).await.unwrap();
    };
    write(10).await;
    // A crash tears the last event, of step 9.
    let first = files(dir.path()).remove(0);
    let whole = fs::read(&first).unwrap();
    fs::write(&first, &whole[..whole.len() - 5]).unwrap();
    // A file of someone else's is left alone.
    let other = dir.path().join("events.out.tfevents.1000000000.elsewhere");
    fs::write(&other, "torn").unwrap();
    write(20).await;
    write(20).await;
    assert_eq!(fs::read(&other).unwrap(), b"torn");
    fs::remove_file(&other).unwrap();
    assert_eq!(files(dir.path()).len(), 2, "a file is begun only if there is something to write");
    assert_eq!(python(READ, dir.path())["scalars"]["train/loss"], bits(&points[..20]));

    // It goes back from step 19 to step 12, and does worse from there.
    let mut worse = points[13..=16].to_vec();
    for point in &mut worse {
        point.value += 1.0;
    }
    let mut again = sink(dir.path());
    again.begin(&run).await.unwrap();
    let went_back = [Item::Rewind { step: 12 }, Item::Points { key: &loss(), points: &worse }];
    again.write(&went_back).await.unwrap();
    // What is read back knows of it.
    let mut more = sink(dir.path());
    more.begin(&run).await.unwrap();
    more.write(&[Item::Points { key: &loss(), points: &points[..=18] }]).await.unwrap();
    let wanted = [&points[..=12], &worse, &points[17..=18]].concat();
    assert_eq!(python(READ, dir.path())["scalars"]["train/loss"], bits(&wanted));
}

#[tokio::test]
async fn the_server_shows_a_run_while_it_runs() {
    for fast in ["true", "false"] {
        let dir = tempfile::tempdir().unwrap();
        let logs = dir.path().join("logs");
        let (run, png, points, histogram) = (run(), png(), points(0, 20), histogram(10));
        let mut sink = sink(&logs.join("quiet-otter-7"));
        sink.begin(&run).await.unwrap();
        sink.write(&[Item::Points { key: &loss(), points: &points[..10] }]).await.unwrap();

        let port = free_port();
        let mut command = Command::new(tool("tensorboard"));
        command.args(["--host=127.0.0.1", "--reload_interval=1", &format!("--load_fast={fast}")]);
        command.arg(format!("--port={port}")).arg("--logdir").arg(&logs);
        let server = Server::new(lockstep_support::Server::start(&mut command, port, "/data/runs", START));
        let scalars = "/data/plugin/scalars/scalars?run=quiet-otter-7&tag=train%2Floss";
        until(&server, scalars, 10).await;

        sink.write(&[
            Item::Points { key: &loss(), points: &points[10..] },
            Item::Histogram { key: &loss(), histogram: &histogram },
        ])
        .await
        .unwrap();
        sink.write(&shown(&png)).await.unwrap();
        sink.finish(&ended(&run, Status::Failed)).await.unwrap();
        let shown = until(&server, scalars, 21).await;
        assert_eq!(shown[10], json!([BEGIN_MS as f64 / 1e3 + 2.5, 10, f64::from(0.1_f32)]), "--load_fast={fast}");

        let bars =
            until(&server, "/data/plugin/histograms/histograms?run=quiet-otter-7&tag=train%2Floss%2Fhistogram", 1)
                .await;
        let counted: f64 = bars[0][2].as_array().unwrap().iter().map(|bar| bar[2].as_f64().unwrap()).sum();
        assert!((counted - 9.0).abs() < 0.01, "{bars}");
        let images = until(&server, "/data/plugin/images/images?run=quiet-otter-7&tag=digit%2Ffirst&sample=0", 1).await;
        let query = images[0]["query"].as_str().unwrap();
        assert_eq!(server.bytes(&format!("/data/plugin/images/individualImage?{query}")).await, png);
        let texts = until(&server, "/data/plugin/text/text?run=quiet-otter-7&tag=sample", 1).await;
        assert_eq!(texts[0]["text"], "<p>once <strong>upon</strong> a time</p>");

        let statuses = ["STATUS_SUCCESS", "STATUS_FAILURE", "STATUS_RUNNING", "STATUS_UNKNOWN"];
        let asked = json!({"allowedStatuses": statuses, "startIndex": 0, "sliceSize": 9});
        let groups = server.post("/data/plugin/hparams/session_groups", &asked).await;
        let group = &groups["sessionGroups"][0];
        assert_eq!(
            group["hparams"],
            json!({
                "optimizer.lr": 0.1, "optimizer.name": "adamw", "seed": "12345678901234567891", "shuffle": true,
                "steps": 20.0,
            })
        );
        let session = &group["sessions"][0];
        assert_eq!(session["status"], "STATUS_FAILURE");
        assert_eq!(session["endTimeSecs"], BEGIN_MS as f64 / 1e3 + 60.0);
        let metric = json!({"group": "", "tag": "train/loss"});
        let metrics = session["metricValues"].as_array().unwrap();
        assert!(metrics.iter().any(|value| value["name"] == metric && value["value"] == 0.05_f32), "{metrics:?}");
    }
}

#[tokio::test]
async fn a_run_that_ended_and_goes_on_ends_anew() {
    let dir = tempfile::tempdir().unwrap();
    let run = run();
    for status in [Status::Failed, Status::Finished] {
        let mut sink = sink(dir.path());
        sink.begin(&run).await.unwrap();
        sink.write(&[Item::Points { key: &loss(), points: &points(0, 9) }]).await.unwrap();
        sink.finish(&ended(&run, status)).await.unwrap();
    }
    let read = r"
import json, sys
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata
events = EventAccumulator(sys.argv[1])
events.Reload()
content = events.SummaryMetadata(metadata.SESSION_END_INFO_TAG).plugin_data.content
print(metadata.parse_session_end_info_plugin_data(content).status)
";
    assert_eq!(python(read, dir.path()), 1, "1 is that of success");
}

/// Whoever else can write there may have put it there.
#[tokio::test]
async fn what_is_no_event_file_of_ours_is_neither_followed_nor_cut_nor_waited_for() {
    let place = tempfile::tempdir().unwrap();
    let (dir, mine) = (place.path().join("run"), place.path().join("mine"));
    fs::create_dir(&dir).unwrap();
    fs::write(&mine, "precious").unwrap();
    let run = run();
    let refused = async |at: &Path, words: &str| {
        let said = chain(&sink(&dir).begin(&run).await.unwrap_err());
        assert!(said.contains(&format!("`{}`", at.display())) && said.contains(words), "{said}");
    };
    let name = |number: &str| dir.join(format!("events.out.tfevents.{number}.lockstep"));
    let first = name("0000000001");
    symlink(&mine, &first).unwrap();
    refused(&first, "a symbolic link, not a regular file").await;
    fs::remove_file(&first).unwrap();
    printed(Command::new("mkfifo").arg(&first));
    refused(&first, "not a regular file").await;
    fs::remove_file(&first).unwrap();
    for number in ["18446744073709551615", "99999999999999999999999", "9999999999", "00000000001"] {
        fs::write(name(number), "").unwrap();
        refused(&name(number), "greater than 9999999998").await;
        fs::remove_file(name(number)).unwrap();
    }
    fs::write(&first, "precious").unwrap();
    fs::write(name("1"), "precious").unwrap();
    sink(&dir).begin(&run).await.unwrap();
    for other in [&mine, &first, &name("1")] {
        assert_eq!(fs::read_to_string(other).unwrap(), "precious");
    }
    // The last number after which there is one.
    fs::write(name("9999999998"), "").unwrap();
    let mut last = sink(&dir);
    last.begin(&run).await.unwrap();
    last.write(&[Item::Points { key: &loss(), points: &points(0, 1) }]).await.unwrap();
    assert!(name("9999999999").is_file(), "{:?}", files(&dir));

    // The directory of the run itself.
    let elsewhere = place.path().join("elsewhere");
    fs::rename(&dir, &elsewhere).unwrap();
    symlink(&elsewhere, &dir).unwrap();
    refused(&dir, "a symbolic link, not a directory").await;
}

/// The answer of `path` once it has `length` elements: the server looks every second.
async fn until(server: &Server, path: &str, length: usize) -> Value {
    let deadline = Instant::now() + Duration::from_mins(1);
    loop {
        let answer = server.try_get(path).await;
        if answer.as_ref().and_then(Value::as_array).is_some_and(|answer| answer.len() == length) {
            return answer.unwrap();
        }
        assert!(Instant::now() < deadline, "{path} is {answer:?}, not {length} long");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
