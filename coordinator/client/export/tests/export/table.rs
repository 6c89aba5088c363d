//! CSV and Parquet, read by Python's own reader and by Arrow's.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use lockstep_common::chain;
use lockstep_common::series::{Point, SeriesKey};
use lockstep_export::{Item, Sink, Status, TableFile, TableFormat};
use serde_json::{Value, json};

use crate::fixture::{ended, loss, memory, points, run};
use crate::tools::python;

const READ_CSV: &str = r#"
import csv, json, struct, sys
bits = lambda text: struct.unpack("<Q", struct.pack("<d", float(text)))[0]
rows = csv.DictReader(open(sys.argv[1], newline=""))
print(json.dumps([[r["series"], int(r["part"]) if r["part"] else None, int(r["step"]), int(r["at_ms"]), bits(r["value"])] for r in rows]))
"#;

const READ_PARQUET: &str = r#"
import json, struct, sys
import pyarrow.parquet
bits = lambda value: struct.unpack("<Q", struct.pack("<d", value))[0]
table = pyarrow.parquet.read_table(sys.argv[1])
assert [str(field.type) for field in table.schema] == ["string", "uint32", "uint64", "timestamp[ms, tz=UTC]", "double"], table.schema
assert pyarrow.parquet.ParquetFile(sys.argv[1]).metadata.row_group(0).column(4).compression == "SNAPPY"
table = table.set_column(3, "at_ms", table["at_ms"].cast("int64"))
rows = zip(*(table[name].to_pylist() for name in ["series", "part", "step", "at_ms", "value"]))
print(json.dumps([[s, p, n, t, bits(v)] for s, p, n, t, v in rows]))
"#;

/// Rows as both print them. Python has one NaN.
fn rows(of: &[(SeriesKey, &[Point])]) -> Value {
    let row =
        |key: &SeriesKey, point: &Point| json!([key.name, key.part, point.step, point.at_ms, point.value.to_bits()]);
    of.iter().flat_map(|(key, points)| points.iter().map(move |point| row(key, point))).collect()
}

#[tokio::test]
async fn the_same_bits_come_back_sorted_and_once() {
    let dir = tempfile::tempdir().unwrap();
    let (run, points) = (run(), points(0, 30));
    let quoted = SeriesKey::whole("odd, \"name\"");
    for (format, name, read, before) in [
        (TableFormat::Csv, "a.csv", READ_CSV, "series,part,step,at_ms,value\nwhat was there before"),
        (TableFormat::Parquet, "a.parquet", READ_PARQUET, "PAR1 and what was there before"),
    ] {
        let path = dir.path().join(name);
        fs::write(&path, before).unwrap();
        let mut sink = Sink::Table(TableFile::new(&path, format));
        sink.begin(&run).await.unwrap();
        let mut wrong = points[10..25].to_vec();
        for point in &mut wrong {
            point.value = 1e9;
        }
        sink.write(&[
            Item::Points { key: &loss(), points: &points[..10] },
            Item::Points { key: &loss(), points: &wrong },
            Item::Rewind { step: 12 },
            Item::Points { key: &memory(10), points: &points[..3] },
            Item::Points { key: &memory(2), points: &points[..2] },
        ])
        .await
        .unwrap();
        // Some come again, some did not count.
        sink.write(&[
            Item::Points { key: &loss(), points: &points[5..] },
            Item::Points { key: &quoted, points: &points[..1] },
        ])
        .await
        .unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), before);
        sink.finish(&ended(&run, Status::Finished)).await.unwrap();
        let wanted =
            [(quoted.clone(), &points[..1]), (memory(2), &points[..2]), (memory(10), &points[..3]), (loss(), &*points)];
        assert_eq!(python(read, &path), rows(&wanted), "{name}");
        assert_eq!(
            fs::read_dir(dir.path())
                .unwrap()
                .filter(|entry| { entry.as_ref().unwrap().file_name().to_str().unwrap().starts_with('.') })
                .count(),
            0
        );
    }
    let csv = fs::read_to_string(dir.path().join("a.csv")).unwrap();
    let lines: Vec<&str> = csv.lines().collect();
    assert_eq!(lines[0], "series,part,step,at_ms,value");
    assert_eq!(lines[1], "\"odd, \"\"name\"\"\",,0,1700000000000,inf");
    assert!(csv.contains("train/loss,,3,1700000000750,NaN\n") && csv.contains(",-inf\n"), "{csv}");
    assert!(csv.contains("train/loss,,7,1700000001750,5e-324\n"), "{csv}");
}

#[tokio::test]
async fn a_run_without_points_has_a_table_without_rows() {
    let dir = tempfile::tempdir().unwrap();
    for (format, name, read) in [
        (TableFormat::Csv, "a.csv", READ_CSV),
        (
            TableFormat::Parquet,
            "a.parquet",
            "import sys, pyarrow.parquet; print(pyarrow.parquet.read_table(sys.argv[1]).to_pylist())",
        ),
    ] {
        let path = dir.path().join(name);
        let mut sink = Sink::Table(TableFile::new(&path, format));
        sink.begin(&run()).await.unwrap();
        sink.finish(&run()).await.unwrap();
        assert_eq!(python(read, &path), json!([]));
    }
    let mut sink = Sink::Table(TableFile::new(dir.path().join("none/a.csv"), TableFormat::Csv));
    let said = sink.finish(&run()).await.unwrap_err().to_string();
    assert!(said.contains("none"), "{said}");
}

/// A rename would put a file in the place of a device, of a pipe or of a link.
#[tokio::test]
async fn a_link_is_followed_and_what_is_no_ordinary_file_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let (pipe, link, target) = (dir.path().join("pipe"), dir.path().join("link"), dir.path().join("target"));
    lockstep_support::printed(std::process::Command::new("mkfifo").arg(&pipe));
    for path in [&pipe, &dir.path().to_owned()] {
        let said = chain(&Sink::Table(TableFile::new(path, TableFormat::Csv)).begin(&run()).await.unwrap_err());
        assert!(said.contains(&format!("`{}`", path.display())) && said.contains("it is no ordinary file"), "{said}");
    }
    assert!(pipe.exists() && !pipe.is_file());
    std::fs::write(&target, "").unwrap();
    std::os::unix::fs::symlink(&target, &link).unwrap();
    let mut sink = Sink::Table(TableFile::new(&link, TableFormat::Csv));
    sink.begin(&run()).await.unwrap();
    sink.finish(&run()).await.unwrap();
    assert!(link.is_symlink() && std::fs::read_to_string(&target).unwrap().starts_with("series,"));
}

/// An earlier table may be for its owner alone, and a name may be mistyped.
#[tokio::test]
async fn an_earlier_table_gives_its_mode_and_another_file_is_refused_and_stays() {
    let dir = tempfile::tempdir().unwrap();
    let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    for (format, name) in [(TableFormat::Csv, "a.csv"), (TableFormat::Parquet, "a.parquet")] {
        let path = dir.path().join(name);
        let new = || Sink::Table(TableFile::new(&path, format));
        new().finish(&run()).await.unwrap();
        // As the umask says.
        let other = dir.path().join("made");
        fs::write(&other, "").unwrap();
        assert_eq!(mode(&path), mode(&other));
        let whole = fs::read(&path).unwrap();
        for (before, wanted) in [(whole, 0o600), (Vec::new(), 0o666)] {
            fs::write(&path, before).unwrap();
            fs::set_permissions(&path, Permissions::from_mode(wanted)).unwrap();
            let mut sink = new();
            sink.begin(&run()).await.unwrap();
            sink.finish(&run()).await.unwrap();
            assert_eq!((mode(&path), fs::metadata(&path).unwrap().len() > 0), (wanted, true), "{name}");
        }
        for mine in ["name = \"mine\"", "PA", "series,part\n"] {
            fs::write(&path, mine).unwrap();
            let mut sink = new();
            for said in [sink.begin(&run()).await, sink.finish(&run()).await] {
                let said = chain(&said.unwrap_err());
                assert!(
                    said.contains(&format!("`{}`", path.display())) && said.contains("name another file"),
                    "{said}"
                );
            }
            assert_eq!(fs::read_to_string(&path).unwrap(), mine);
        }
    }
}
