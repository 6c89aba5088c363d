//! Golden files: frozen outputs of the pure functions that determine a run's bits.
//!
//! A changed byte here is a format change: every earlier run would train on other samples, with other seeds or in
//! another order. Such a change needs a new version in the domain string and in `manifest::FORMAT`. With
//! `UPDATE_GOLDEN=1` the test overwrites the files.

#![expect(
    clippy::unwrap_used,
    clippy::disallowed_methods,
    reason = "golden files are read here, and a failure in a helper fails the test"
)]

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use lockstep_common::contents::Contents;
use lockstep_common::manifest::{
    self, CodeVersion, DataFile, FORMAT, Manifest, Override, Piece, RankState, RecordPosition, TensorEntry,
};
use lockstep_common::permutation::Permutation;
use lockstep_common::record::{Evidence, chain_start};
use lockstep_common::sampler::{LastBatch, Sampler};
use lockstep_common::seed::{Stream, derive};
use lockstep_common::{Domain, job, reduction};

const EVIDENCE: Evidence =
    Evidence { step: 1, loss: 2, grad_norm: 3, lr: 4, positions: 5, fingerprint: 6, contents: 0 };

fn golden(name: &str, actual: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name);
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let frozen = std::fs::read_to_string(&path).unwrap();
    assert_eq!(frozen, actual, "{} changed: this breaks every earlier run", path.display());
}

#[test]
fn contents() {
    let bytes: Vec<u8> = (0..100_u8).map(|byte| byte.wrapping_mul(37)).collect();
    let mut text = String::from("# array row length: word(hex)\n");
    for (array, row, length) in [(0, 0, 0), (0, 0, 1), (0, 1, 1), (1, 1, 1), (0, 3, 31), (0, 3, 32), (2, u64::MAX, 100)]
    {
        let mut contents = Contents::default();
        contents.add(array, row, &bytes[..length]);
        writeln!(text, "{array} {row} {length}: {:016x}", contents.word()).unwrap();
    }
    let chained = Evidence { contents: 7, ..EVIDENCE }.chain(&chain_start());
    writeln!(text, "# a record of one step: without such a word, with one").unwrap();
    writeln!(text, "{}\n{chained}", EVIDENCE.chain(&chain_start())).unwrap();
    golden("contents.txt", &text);
}

#[test]
fn seeds() {
    let mut text = String::from("# stream counter rank seed(hex), root 1234\n");
    for stream in
        [Stream::Init, Stream::Order, Stream::Forward, Stream::Augment, Stream::User, Stream::Split, Stream::Eval]
    {
        for (counter, rank) in [(0, 0), (0, 1), (1, 0), (1_000_000_007, 65_535)] {
            writeln!(text, "{stream:?} {counter} {rank} {:016x}", derive(1234, stream, counter, rank)).unwrap();
        }
    }
    golden("seeds.txt", &text);
}

#[test]
fn permutation() {
    let mut text = String::from("# n seed: the first positions\n");
    for (n, seed) in [(1, 0), (2, 0), (10, 0), (10, 1), (1000, 7), (1_000_000_000_000, 7)] {
        let permutation = Permutation::new(n, seed);
        let first: Vec<u64> = (0..n.min(10)).map(|i| permutation.at(i)).collect();
        writeln!(text, "{n} {seed}: {first:?}").unwrap();
    }
    golden("permutation.txt", &text);
}

#[test]
fn sampler() {
    let mut text = String::from("# 22 samples, batch 8, seed 5: last step rank: epoch positions\n");
    for last in [LastBatch::Drop, LastBatch::Pad] {
        let sampler = Sampler::new(22, 8, 4, 5, true, last).unwrap();
        for step in 0..7 {
            for rank in 0..4 {
                let positions = sampler.positions(step, rank);
                writeln!(text, "{last:?} {step} {rank}: {} {positions:?}", sampler.epoch(step)).unwrap();
            }
        }
    }
    golden("sampler.txt", &text);
}

#[test]
fn reduction() {
    let mut text = String::new();
    for ranks in 1..=17 {
        let leaves: Vec<String> = (0..ranks).map(|rank| rank.to_string()).collect();
        writeln!(text, "{ranks}: {}", reduction::reference(&leaves, &|a, b| format!("({a}+{b})"))).unwrap();
    }
    golden("reduction.txt", &text);
}

fn example_manifest() -> Manifest {
    let toml = r#"
        name = "golden"
        steps = 10
        ranks = 1
        batch = { size = 8 }
        model = { kind = "mlp", hidden = [8], outputs = 2 }
        data = { kind = "csv", path = "x.csv", target = "y" }
        optimizer = { kind = "adamw", lr = 0.1 }
        schedule = { kind = "cosine", warmup_steps = 2 }
        report = { fingerprints_every = 100 }
    "#;
    let job = job::parse_toml(toml, &[]).unwrap();
    let piece = |bytes: &[u8]| Piece { digest: Domain::Blob.digest(bytes), bytes: bytes.len() as u64 };
    let tensors = vec![TensorEntry {
        name: "model/0.weight".into(),
        dtype: "float".into(),
        shape: vec![1, 1],
        pieces: vec![piece(&1.5_f32.to_le_bytes())],
    }];
    Manifest {
        format: FORMAT,
        run: "0123456789".parse().unwrap(),
        step: 5,
        epoch: 1,
        parent: None,
        job: job.digest(),
        job_text: String::from_utf8(job.canonical()).unwrap(),
        base_dir: "/data".into(),
        code: Some(CodeVersion {
            commit: "c0ffee".into(),
            branch: Some("main".into()),
            remote: None,
            dirty: false,
            tags: vec!["v1".into()],
            directory: "jobs".into(),
            tree: Some(piece(b"tree")),
            source: None,
        }),
        data: vec![DataFile { path: "x.csv".into(), bytes: 3, digest: Domain::Blob.digest(b"abc") }],
        preprocessing: None,
        environment: BTreeMap::from([("os".into(), "linux".into())]),
        numerics: BTreeMap::from([("threads".into(), "1".into())]),
        overrides: vec![Override { key: "data.x.csv".into(), was: "a".into(), now: "b".into() }],
        state: manifest::state_digest(&tensors),
        tensors,
        ranks: vec![RankState {
            rank: 0,
            seeds: BTreeMap::from([("forward".into(), derive(0, Stream::Forward, 5, 0))]),
            epoch: 1,
            consumed: 40,
            next_position: 3,
            generators: BTreeMap::from([("cpu".into(), piece(b"state"))]),
        }],
        record: RecordPosition { steps: 5, digest: EVIDENCE.chain(&chain_start()) },
    }
}

#[test]
fn manifest() {
    let bytes = example_manifest().encode();
    golden("manifest.json", std::str::from_utf8(&bytes).unwrap());
    golden("manifest.id", &Manifest::id(&bytes).to_hex());
    assert_eq!(Manifest::decode(&bytes).unwrap(), example_manifest());
}

/// Manifests of version 0.1.0 can be read, and keep their bytes and ids.
#[test]
fn a_manifest_of_format_4() {
    let (bytes, id) = (include_bytes!("../golden/manifest-4.json"), include_str!("../golden/manifest-4.id"));
    let manifest = Manifest::decode(bytes).unwrap();
    assert_eq!((manifest.format, manifest.encode().as_slice()), (4, bytes.as_slice()));
    assert_eq!(Manifest::id(bytes).to_hex(), id);
    assert_eq!(Manifest { format: FORMAT, ..manifest }, example_manifest());
}

#[test]
fn an_edited_manifest_is_refused() {
    let text = String::from_utf8(example_manifest().encode()).unwrap();
    for (from, to) in [
        ("\"format\":5", "\"format\":3"),
        ("\"format\":5", "\"format\":6"),
        ("\"steps\\\":10", "\\\"steps\\\":11"),
        ("[1,1]", "[1,2]"),
        ("\"rank\":0", "\"rank\":1"),
        ("\"step\":5", "\"step\": 5"),
        ("\"step\":5", "\"stop\":5"),
        ("{\"format\"", "{{\"format\""),
    ] {
        assert!(text.contains(from), "{from}");
        assert!(Manifest::decode(text.replace(from, to).as_bytes()).is_err(), "{from} -> {to}");
    }
    for cut in [0, 1, text.len() / 2, text.len() - 1] {
        assert!(Manifest::decode(&text.as_bytes()[..cut]).is_err());
    }
}
