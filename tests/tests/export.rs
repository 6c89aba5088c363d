//! Plain PyTorch loads an exported checkpoint and computes the run's results.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::Command;

use lockstep_support::{printed, repository, torch_python};
use lockstep_tests::{Cluster, Job, write_images};
use serde_json::Value;

/// A job on the digits as images: 1,500 for training, 297 for evaluation.
const JOB: &str = r#"
    name = "exported"
    seed = 3
    steps = 60
    ranks = 2
    batch = { size = 100 }
    data = { kind = "idx", images = "images", labels = "labels", validation_images = "more", validation_labels = "more-labels" }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9 }
    eval = { every_steps = 20, samples = 1000 }
    checkpoint = { every_steps = 30 }
"#;
const MLP: &str = "model = { kind = 'mlp', hidden = [48, 32], outputs = 10, dropout = 0.1 }";
const SCRIPT: &str = "model = { kind = 'torchscript', path = 'net.pt' }";

fn python(arguments: &[&str]) -> String {
    let script = repository().join("tests/oracle/load_export.py");
    printed(Command::new(torch_python()).arg(script).args(arguments))
}

/// Writes the job, its images and a TorchScript module into `dir`.
fn write(dir: &Path, model: &str) -> Job {
    write_images(dir, 0..1500, ["images", "labels"]);
    write_images(dir, 1500..1797, ["more", "more-labels"]);
    python(&["make", dir.join("net.pt").to_str().unwrap()]);
    Job::write(dir, &format!("{JOB}{model}\n"))
}

#[test]
fn an_exported_network_computes_in_python_what_the_run_computed() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let run = cluster.submit(write(dir.path(), MLP).argument(), &[]);
    cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run).last().unwrap().clone();
    let to = dir.path().join("export");
    let report = cluster.ask(&["export", &checkpoint, "--to", to.to_str().unwrap()]);
    assert_eq!(report["files"], serde_json::json!(["README.md", "manifest.json", "model.safetensors", "predict.py"]));

    let files = ["more", "more-labels"].map(|name| dir.path().join(name).to_str().unwrap().to_owned());
    let found: Value = serde_json::from_str(&python(&["mlp", to.to_str().unwrap(), &files[0], &files[1]])).unwrap();
    let metrics = cluster.ask(&["show", &run, "--metrics"]);
    let eval = metrics["evals"].as_array().unwrap().last().unwrap();
    assert_eq!((&eval["step"], &eval["samples"]), (&60.into(), &297.into()));
    assert_eq!(found["accuracy"], eval["accuracy"]);
    let (python, own) = (found["loss"].as_f64().unwrap(), eval["loss"].as_f64().unwrap());
    assert!((python - own).abs() < 1e-6 * own, "{python} {own}");
    assert!(eval["accuracy"].as_f64().unwrap() > 0.8, "it learned something: {eval}");
    let names =
        ["layers.0.bias", "layers.0.weight", "layers.1.bias", "layers.1.weight", "layers.2.bias", "layers.2.weight"];
    assert_eq!(found["names"], serde_json::json!(names));

    let card = fs::read_to_string(to.join("README.md")).unwrap();
    for part in [
        "# exported",
        "| `layers.0.weight` | 3072 | float | [48, 64] |",
        "5018 parameters",
        "evaluation loss | 60 |",
        "hidden = [48, 32]",
        &checkpoint,
        "cpu.model",
    ] {
        assert!(card.contains(part), "{part}: {card}");
    }
    let again = cluster.coord(&["export", &checkpoint, "--to", to.to_str().unwrap()]);
    assert_eq!(again.status.code(), Some(2), "{again:?}");

    // An empty target directory keeps its inode, because it may be somebody's current directory.
    let (empty, inode) = (dir.path().join("empty"), |path: &Path| fs::metadata(path).unwrap().ino());
    fs::create_dir(&empty).unwrap();
    let before = inode(&empty);
    cluster.run(&["export", &checkpoint, "--to", empty.to_str().unwrap()]);
    let names =
        |path: &Path| fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name()).collect::<BTreeSet<_>>();
    assert_eq!((inode(&empty), names(&empty)), (before, names(&to)));

    // With a damaged blob, the export writes nothing.
    let manifest: Value = serde_json::from_str(&cluster.run(&["manifest", &checkpoint])).unwrap();
    let tensors = manifest["tensors"].as_array().unwrap();
    let weight = tensors.iter().find(|tensor| tensor["name"] == "model/layers.1.weight").unwrap();
    let digest = weight["pieces"][0]["digest"].as_str().unwrap();
    let piece = cluster.store().join(&digest[..2]).join(digest);
    let mut bytes = fs::read(&piece).unwrap();
    bytes[9] ^= 1;
    fs::write(&piece, bytes).unwrap();
    let (other, there) = (dir.path().join("other"), dir.path().join("there"));
    fs::create_dir(&there).unwrap();
    for to in [&other, &there] {
        let refused = cluster.coord(&["export", &checkpoint, "--to", to.to_str().unwrap()]);
        let said = String::from_utf8(refused.stderr).unwrap();
        assert!(refused.status.code() == Some(8) && said.contains(digest), "{said}");
    }
    let left = names(dir.path());
    assert!(!left.iter().any(|name| name == "other" || name.to_string_lossy().starts_with(".export-")), "{left:?}");
    assert!(names(&there).is_empty());
}

#[test]
fn an_exported_module_is_torchscript_again_with_the_trained_weights() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 1);
    let submitted = cluster.coord(&["submit", write(dir.path(), SCRIPT).argument(), "--keep-data"]);
    let said = String::from_utf8(submitted.stderr).unwrap();
    assert!(said.contains("training starts with the weights in `net.pt`; `seed` does not change them"), "{said}");
    let run = String::from_utf8(submitted.stdout).unwrap().trim().to_owned();
    cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();
    // Move the module away; the store still has a copy.
    let original = dir.path().join("original.pt");
    fs::rename(dir.path().join("net.pt"), &original).unwrap();
    let to = dir.path().join("export");
    cluster.run(&["export", &checkpoint, "--to", to.to_str().unwrap()]);
    let found = python(&["script", to.to_str().unwrap(), original.to_str().unwrap()]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!((&found["equal"], &found["trained"], &found["training"]), (&true.into(), &true.into(), &false.into()));
    // A weight with two names is exported once.
    assert_eq!((found["missing"].as_array().unwrap().len(), &found["unexpected"]), (1, &serde_json::json!([])));
    assert!(fs::read_to_string(to.join("README.md")).unwrap().contains("torch.jit.load(\"model.pt\")"));
}
