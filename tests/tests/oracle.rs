//! PyTorch as the oracle: 50 steps of SGD and of AdamW on TorchScript models end with PyTorch's own weights.

#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails the test")]

use std::path::Path;
use std::process::Command;

use lockstep_tests::{Cluster, Job, cache, repository};
use serde_json::Value;

fn python(arguments: &[&str]) -> String {
    let program = cache().join("torch-2.13.0/bin/python3");
    let script = repository().join("tests/oracle/train.py");
    let output = Command::new(program).arg(script).args(arguments).output().expect("set-up installed Python");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn job(dir: &Path, model: &str, optimizer: &str) -> Job {
    Job::write(
        dir,
        &format!(
            r#"
            name = "oracle"
            steps = 50
            ranks = 2
            batch = {{ size = 32, shuffle = false }}
            model = {{ kind = "torchscript", path = "{model}.pt" }}
            data = {{ kind = "npy", inputs = "inputs.npy", targets = "targets.npy" }}
            optimizer = {{ {optimizer} }}
            "#
        ),
    )
}

#[test]
fn fifty_steps_on_two_processes_end_with_the_bits_of_pytorchs_own_training() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_str().unwrap();
    python(&["make", path]);
    let cluster = Cluster::start(dir.path(), 2);
    for model in ["mlp", "convnet", "transformer"] {
        for (rule, keys) in [("sgd", "kind = 'sgd', lr = 0.05, momentum = 0.9"), ("adamw", "kind = 'adamw', lr = 0.01")]
        {
            let run = cluster.submit(job(dir.path(), model, keys).argument(), &[]);
            cluster.finished(&run);
            let (_, checkpoint) = cluster.checkpoints(&run).pop().unwrap();
            let manifest = dir.path().join("manifest.json");
            std::fs::write(&manifest, cluster.run(&["manifest", &checkpoint])).unwrap();
            let store = cluster.store();
            let found = python(&["compare", path, model, rule, manifest.to_str().unwrap(), store.to_str().unwrap()]);
            let found: Value = serde_json::from_str(&found).unwrap();
            for (tensor, difference) in found.as_object().unwrap() {
                assert_eq!(difference["bytes_that_differ"], 0, "{model}, {rule}, {tensor}: {difference}");
            }
        }
    }
}
