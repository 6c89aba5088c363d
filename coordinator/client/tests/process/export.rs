//! The export of a TorchScript run writes the weights into the module without running it.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use lockstep_common::manifest::{Share, TensorEntry};
use lockstep_rpc::process_message::Body as Said;
use lockstep_store::BlobStore;

use crate::agent::{Agent, block, ready, said};
use crate::support::{Coordinator, copy_of_coord, wait_for, write_job};

/// Name, type, shape and bytes of the tensors of a checkpoint, by name.
type Tensors = [(&'static str, &'static str, &'static [i64], usize)];

/// The tensors of `net.pt`.
const NET: &Tensors = &[
    ("buffer/high", "int16", &[4], 8),
    ("buffer/low", "int16", &[5], 10),
    ("buffer/norm.num_batches_tracked", "int64", &[], 8),
    ("buffer/norm.running_mean", "float", &[2], 8),
    ("buffer/norm.running_var", "float", &[2], 8),
    ("buffer/small", "bfloat16", &[3], 6),
    ("buffer/table", "double", &[3, 2], 48),
    ("model/first.weight", "float", &[2, 3], 24),
    ("model/norm.bias", "float", &[2], 8),
    ("model/norm.weight", "float", &[2], 8),
];

/// Starts a coordinator with a checkpoint of a run whose module is `module`, and returns the checkpoint's id. Each byte of a tensor is the
/// tensor's length.
async fn trained(dir: &Path, module: &str, tensors: &Tensors) -> (Coordinator, String) {
    let coordinator = Coordinator::start(&dir.join("state"));
    let mut agent = Agent::attach(&coordinator.address, "node-a", "1", 1).await;
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("export/tests/data").join(module);
    fs::copy(made, dir.join("net.pt")).unwrap();
    let job = write_job(dir, 1, 9);
    let text = fs::read_to_string(&job).unwrap();
    let script =
        text.replace(r#"{ kind = "mlp", hidden = [4], outputs = 2 }"#, r#"{ kind = "torchscript", path = "net.pt" }"#);
    fs::write(&job, script).unwrap();
    let run = coordinator.submit(&job);
    agent.until_desired("the process", |assigned| assigned.len() == 1).await;
    let process = (run.clone(), 1, 0);
    agent.tell(&process, 1, ready(0)).await;
    agent.tell(&process, 2, block(1..=2, 1)).await;

    let Said::Share(share) = agent.share(2, 0) else { unreachable!("it makes shares") };
    let store = BlobStore::existing(Path::new(&agent.welcome.store)).unwrap();
    let tensor = |(name, dtype, shape, bytes): &(&str, &str, &[i64], usize)| {
        let piece = store.put(&vec![*bytes as u8; *bytes]).unwrap();
        let (name, dtype, shape) = ((*name).to_owned(), (*dtype).to_owned(), shape.to_vec());
        TensorEntry { name, dtype, shape, pieces: vec![piece] }
    };
    let whole = Share::decode(&store.get(&share.blob.unwrap().try_into().unwrap()).unwrap()).unwrap();
    let other = Share { tensors: tensors.iter().map(tensor).collect(), ..whole };
    agent.tell(&process, 3, said(2, &store.put(&other.encode()).unwrap())).await;
    let checkpoint = wait_for("the checkpoint", || {
        coordinator.ask(&["show", &run])["checkpoints"][0]["id"].as_str().map(str::to_owned)
    });
    (coordinator, checkpoint)
}

/// Runs `coord export` without any other program in reach.
fn export(coordinator: &Coordinator, dir: &Path, words: &[&str]) -> Output {
    let alone = dir.join("alone");
    fs::create_dir_all(&alone).unwrap();
    let coord = alone.join("coord");
    if !coord.exists() {
        copy_of_coord(&alone);
    }
    let address = ["--addr", &coordinator.address];
    Command::new(&coord).arg("export").args(words).args(address).env("PATH", "").output().unwrap()
}

#[tokio::test]
async fn a_torchscript_module_gets_its_weights_without_another_program() {
    let dir = tempfile::tempdir().unwrap();
    let (coordinator, checkpoint) = trained(dir.path(), "net.pt", NET).await;
    let to = dir.path().join("to");
    let output = export(&coordinator, dir.path(), &[&checkpoint, "--to", to.to_str().unwrap()]);
    // Two buffers share memory, but have different values in the checkpoint.
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    assert!(said.contains("tensors `high` and `low` share memory") && !to.exists(), "{said}");

    let dir = tempfile::tempdir().unwrap();
    let without = NET.iter().copied().filter(|(name, ..)| *name != "buffer/high").collect::<Vec<_>>();
    let (coordinator, checkpoint) = trained(dir.path(), "net.pt", &without).await;
    let to = dir.path().join("to");
    let output = export(&coordinator, dir.path(), &[&checkpoint, "--to", to.to_str().unwrap()]);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let made = fs::read(to.join("model.pt")).unwrap();
    let original = fs::read(dir.path().join("net.pt")).unwrap();
    for bytes in [24, 48, 6] {
        let holds = |file: &[u8]| file.windows(bytes).any(|part| part.iter().all(|&byte| usize::from(byte) == bytes));
        assert!(holds(&made) && !holds(&original), "the tensor of {bytes} bytes");
    }
}

#[tokio::test]
async fn a_module_with_code_of_its_own_for_loading_is_refused_with_what_to_do() {
    let dir = tempfile::tempdir().unwrap();
    let tensors: &Tensors = &[("model/inner.weight", "float", &[2], 8)];
    let (coordinator, checkpoint) = trained(dir.path(), "packs.pt", tensors).await;
    let to = dir.path().join("to");
    let words = [&checkpoint, "--to", to.to_str().unwrap()];
    let output = export(&coordinator, dir.path(), &words);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(6), "{said}");
    for words in [
        "`inner` runs its own code when it is loaded (`__setstate__`",
        "pass `--without-module` to export the weights alone",
    ] {
        assert!(said.contains(words), "{said}");
    }
    assert!(!to.exists() && !said.contains("it runs") && output.stdout.is_empty());
    let output = export(&coordinator, dir.path(), &[&words[..], &["--without-module"]].concat());
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(to.join("model.safetensors").exists() && !to.join("model.pt").exists());
}
