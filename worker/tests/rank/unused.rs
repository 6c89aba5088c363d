//! Parameters that a step does not use do not change, on any number of processes and after a resume.

use crate::lab::{Lab, module, table};
use lockstep_common::manifest::{Manifest, TensorEntry};
use lockstep_store::BlobStore;

const JOB: &str = r#"
    name = "sometimes"
    seed = 4
    steps = 8
    ranks = 4
    batch = { size = 8 }
    optimizer = { kind = "adam", lr = 0.05, weight_decay = 0.1, decay_all = true }
    model = { kind = "torchscript", path = "net.pt" }
    data = { kind = "csv", path = "table.csv", target = "class" }
    checkpoint = { every_steps = 1 }
    report = { fingerprints_every = 2 }
"#;

fn lab(sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("net.pt", module("sometimes", "net")), ("table.csv", table().into_bytes())])
}

fn tensor<'a>(manifest: &'a Manifest, name: &str) -> Option<&'a TensorEntry> {
    manifest.tensors.iter().find(|tensor| tensor.name == name)
}

/// The number of steps of each parameter in a checkpoint, in the model's order.
fn counts(lab: &Lab, manifest: &Manifest) -> Option<Vec<i64>> {
    let entry = tensor(manifest, "optimizer/steps")?;
    let store = BlobStore::open(&lab.store()).unwrap();
    let bytes: Vec<u8> = entry.pieces.iter().flat_map(|piece| store.get(piece).unwrap()).collect();
    Some(bytes.as_chunks::<8>().0.iter().map(|bytes| i64::from_le_bytes(*bytes)).collect())
}

#[test]
fn they_stay_as_they_are_whatever_the_optimizer_and_the_number_of_processes() {
    let sgd = r#"optimizer={kind="sgd", lr=0.05, momentum=0.9, nesterov=true, weight_decay=0.1, decay_all=true}"#;
    let adamw = r#"optimizer={kind="adamw", lr=0.05, weight_decay=0.1, decay_all=true}"#;
    for set in [&[][..], &[sgd], &[adamw], &["numerics.reduction=native"]] {
        let lab = lab(set);
        let one = lab.run(1, None);
        assert_eq!(one.codes, [0], "{}", one.stderr);
        let native = set.contains(&"numerics.reduction=native");
        // Every number of processes with one optimizer; the others on one number that does not divide the ranks.
        let counts_of_processes: &[u32] = if set.is_empty() { &[2, 3, 4] } else { &[3] };
        for &processes in counts_of_processes.iter().filter(|_| !native) {
            let many = lab.run(processes, None);
            assert_eq!(many.codes, vec![0; processes as usize], "{}", many.stderr);
            assert_eq!((one.record(), one.state()), (many.record(), many.state()), "{set:?} {processes}");
            for (a, b) in one.manifests.iter().zip(&many.manifests) {
                assert_eq!((&a.tensors, &a.record), (&b.tensors, &b.record), "{set:?} {processes}, step {}", a.step);
            }
        }
        // In the model's order: weight and bias of always, left, right, never.
        let all: Vec<_> = one.manifests.iter().map(|manifest| counts(&lab, manifest).unwrap()).collect();
        let last = &all[7];
        assert_eq!((last[0], last[1], last[6], last[7]), (8, 8, 0, 0));
        assert!(last[2] < 8 || last[4] < 8, "{last:?}: one of the branches is left out at some step");
        assert!(last[2] > 0 && last[4] > 0, "{last:?}: both are used at some step");
        let names = ["always", "left", "right", "never"];
        let kept = |before: &Manifest, after: &Manifest, name: &str| {
            tensor(before, name).map(|tensor| &tensor.pieces) == tensor(after, name).map(|tensor| &tensor.pieces)
        };
        for (step, pair) in all.windows(2).enumerate() {
            for (index, name) in names.iter().enumerate() {
                let used = pair[0][index * 2] < pair[1][index * 2];
                let (before, after) = (&one.manifests[step], &one.manifests[step + 1]);
                for name in ["model", "optimizer/momentum", "optimizer/exp_avg", "optimizer/exp_avg_sq"]
                    .map(|state| format!("{state}/{name}.weight"))
                {
                    let there = tensor(after, &name).is_some();
                    assert_eq!(kept(before, after, &name), !used || !there, "{set:?}: {name} at step {}", step + 2);
                }
            }
        }
        let resumed = lab.run(if native { 1 } else { 2 }, Some(one.manifest_at(3)));
        assert_eq!((resumed.record(), resumed.state()), (one.record()[3..].to_vec(), one.state()), "{set:?}");
    }
}

/// A checkpoint of an older version, which had one number of steps for all parameters.
#[test]
fn a_checkpoint_without_counts_takes_the_runs_steps_for_all() {
    let lab = lab(&[]);
    let one = lab.run(1, None);
    let mut older = one.manifest_at(4).clone();
    older.tensors.retain(|tensor| tensor.name != "optimizer/steps");
    older.state = lockstep_common::manifest::state_digest(&older.tensors);
    let resumed = lab.run(1, Some(&older));
    assert_eq!(resumed.codes, [0], "{}", resumed.stderr);
    let counts = counts(&lab, resumed.manifest_at(8)).unwrap();
    assert_eq!((counts[0], counts[6]), (8, 4), "{counts:?}");
}
