//! PyTorch as oracle: 50 steps of SGD and of AdamW on TorchScript models give the same weights as PyTorch. And a comparison: Lockstep
//! resumes with the same bits where PyTorch's DDP does not.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use std::path::Path;
use std::process::Command;

use lockstep_support::{printed, repository, torch_python};
use lockstep_tests::{Cluster, Job, digits};
use serde_json::Value;

fn oracle(arguments: &[&str]) -> String {
    let script = repository().join("tests/oracle/train.py");
    python(&[&[script.to_str().unwrap()], arguments].concat())
}

fn python(arguments: &[&str]) -> String {
    printed(Command::new(torch_python()).args(arguments).env("OMP_NUM_THREADS", "1"))
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
    oracle(&["make", path]);
    let cluster = Cluster::start(dir.path(), 2);
    for model in ["mlp", "convnet", "transformer"] {
        for (rule, keys) in [("sgd", "kind = 'sgd', lr = 0.05, momentum = 0.9"), ("adamw", "kind = 'adamw', lr = 0.01")]
        {
            let run = cluster.submit(job(dir.path(), model, keys).argument(), &[]);
            cluster.finished(&run);
            let (_, checkpoint) = cluster.checkpoints(&run).pop().unwrap();
            let manifest = dir.path().join(format!("{model}-{rule}.json"));
            std::fs::write(manifest, cluster.run(&["manifest", &checkpoint])).unwrap();
        }
    }
    let found = oracle(&["compare", path, cluster.store().to_str().unwrap()]);
    let found: Value = serde_json::from_str(&found).unwrap();
    assert_eq!(found.as_object().unwrap().len(), 6);
    for (job, tensors) in found.as_object().unwrap() {
        for (tensor, difference) in tensors.as_object().unwrap() {
            assert_eq!(difference["bytes_that_differ"], 0, "{job}, {tensor}: {difference}");
        }
    }
}

/// For each number of processes: the number of bytes of DDP's final weights that differ from a first run, after a repetition and after
/// a resume.
fn ddp(processes: &[&str]) -> Vec<(u64, u64)> {
    let script = repository().join("tests/oracle/ddp_resume.py");
    let found = python(&[&[script.to_str().unwrap()], processes].concat());
    let found: Value = serde_json::from_str(&found).unwrap();
    let bytes = |one: &Value| (one["again"].as_u64().unwrap(), one["resumed"].as_u64().unwrap());
    found.as_array().unwrap().iter().map(bytes).collect()
}

#[test]
fn three_and_four_processes_resume_with_the_same_bits_where_ddp_goes_on_with_others() {
    let dir = tempfile::tempdir().unwrap();
    let cluster = Cluster::start(dir.path(), 4);
    let job = digits(dir.path());
    let found = ddp(&["2", "3", "4"]);
    assert_eq!(found[0], (0, 0), "two numbers have one sum: the script restores all that DDP needs");
    for (processes, (again, resumed)) in [("3", found[1]), ("4", found[2])] {
        assert_eq!(again, 0, "DDP on {processes} processes, not stopped, repeats itself");
        assert!(resumed > 0, "DDP on {processes} processes resumes with the same bits: say so in README");
        println!("{processes} processes: {resumed} bytes of DDP's weights differ after a resume");

        let set = format!("world={{processes={processes}, min_processes={processes}}}");
        let run = cluster.submit(job.argument(), &["--set", &set]);
        let state = cluster.finished(&run);
        for (step, checkpoint) in cluster.checkpoints(&run)[..5].iter().step_by(4) {
            let resumed = cluster.resume(checkpoint);
            assert_eq!(cluster.finished(&resumed), state, "{processes} processes, resumed from step {step}");
            assert_eq!(cluster.show(&resumed)["processes"], processes.parse::<u64>().unwrap());
        }
    }
}
