//! Data files that change during a run, and states that are not finite: no checkpoint is committed with either.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::thread::sleep;
use std::time::{Duration, SystemTime};

use crate::lab::{Lab, idx, table};
use lockstep_common::{Digest, chain};
use lockstep_data::files::{self, Reading};
use lockstep_rpc::process_message::Body;
use lockstep_store::BlobStore;
use lockstep_worker::evidence::numerics;
use lockstep_worker::observe::{Message, Outbox};
use lockstep_worker::program::{BuiltIn, Setup};
use lockstep_worker::step::Trainer;
use tch::Device;

const IMAGES: &str = r#"
    name = "images"
    steps = 6
    batch = { size = 4 }
    optimizer = { kind = "sgd", lr = 0.1 }
    model = { kind = "mlp", hidden = [8], outputs = 3 }
    data = { kind = "idx", images = "images", labels = "labels" }
    checkpoint = { every_steps = 2 }
"#;

const MEMORY: Reading = Reading { in_memory: 1 << 20, by_path: false };
const MAPPED: Reading = Reading { in_memory: 0, by_path: false };
const BY_PROGRAM: Reading = Reading { in_memory: 1 << 20, by_path: true };

fn images() -> Lab {
    let images = idx(&[24, 4, 4], |at| ((at * 2_654_435_761) >> 7) as u8);
    Lab::new(IMAGES, &[], &[("images", images), ("labels", idx(&[24], |at| (at % 3) as u8))])
}

/// Trains in this process on verified files; `disturb` is called after they were opened. Returns the final state and the number of
/// shares, or the error.
fn trained(lab: &Lab, reading: Reading, disturb: impl FnOnce(&File)) -> Result<(Digest, usize), String> {
    numerics::apply(&lab.job).unwrap();
    let store = BlobStore::open(&lab.store()).unwrap();
    let located = files::locate(lab.dir.path(), &lab.data, &store, false, reading).unwrap();
    let setup = Setup::new(lab.job.clone(), located.files, Vec::new(), Device::Cpu);
    let trainer = Trainer::load(&BuiltIn, setup, None).unwrap().watching(located.watch);
    // A write in the same tick of the file system's clock would not change the file's time.
    sleep(Duration::from_millis(20));
    disturb(&File::options().read(true).write(true).open(lab.dir.path().join("images")).unwrap());
    let outbox = Outbox::default();
    let finished = trainer.run(None, Some(store), &outbox);
    outbox.close();
    let mut shares = 0;
    while let Some(message) = outbox.pop() {
        shares += usize::from(matches!(message, Message::Other(Body::Share(_))));
    }
    match finished {
        Ok(finished) => Ok((finished.state, shares)),
        Err(error) => {
            assert_eq!(shares, 0, "no checkpoint counts");
            Err(chain(&error))
        }
    }
}

/// Writes other pixels, and then the old ones again.
fn and_back(file: &File) {
    let mut pixels = vec![0; 64];
    file.read_exact_at(&mut pixels, 16).unwrap();
    file.write_all_at(&[9; 64], 16).unwrap();
    file.write_all_at(&pixels, 16).unwrap();
}

#[test]
fn a_file_in_memory_may_be_touched_and_put_back_and_one_that_is_mapped_may_not() {
    let lab = images();
    let reference = trained(&lab, MEMORY, |_| ()).unwrap();
    assert_eq!(reference.1, 3);
    assert_eq!(trained(&lab, MAPPED, |_| ()), Ok(reference), "where the bytes lie changes nothing");
    assert_eq!(trained(&lab, MEMORY, and_back), Ok(reference));
    let touch = |file: &File| file.set_modified(SystemTime::UNIX_EPOCH).unwrap();
    assert_eq!(trained(&lab, MEMORY, touch), Ok(reference));
    for reading in [MAPPED, BY_PROGRAM] {
        let refused = trained(&lab, reading, and_back).unwrap_err();
        assert!(refused.contains("images` was changed during training, and then put back"), "{refused}");
    }
    for reading in [MEMORY, MAPPED] {
        let removed = trained(&lab, reading, |_| fs::remove_file(lab.dir.path().join("images")).unwrap());
        assert_eq!(removed, Ok(reference));
        let images = idx(&[24, 4, 4], |at| ((at * 2_654_435_761) >> 7) as u8);
        fs::write(lab.dir.path().join("images"), images).unwrap();
    }
    for reading in [MEMORY, MAPPED] {
        let refused = trained(&lab, reading, |file| file.write_all_at(&[9; 64], 16).unwrap()).unwrap_err();
        assert!(refused.contains("images` changed during training: expected"), "{refused}");
        let images = idx(&[24, 4, 4], |at| ((at * 2_654_435_761) >> 7) as u8);
        fs::write(lab.dir.path().join("images"), images).unwrap();
    }
}

/// Loss and gradients of the step are finite, but the updated weights are not.
#[test]
fn weights_that_are_not_finite_are_in_no_checkpoint() {
    const MLP: &str = r#"
        name = "overflow"
        steps = 1
        batch = { size = 8 }
        optimizer = { kind = "sgd", lr = 1e30, weight_decay = 1e30 }
        model = { kind = "mlp", hidden = [16], outputs = 3 }
        data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
    "#;
    for (sets, step) in [(&["steps=1"][..], 1), (&["steps=6", "checkpoint.every_steps=1"][..], 1)] {
        let lab = Lab::new(MLP, sets, &[("table.csv", table().into_bytes())]);
        let outcome = lab.run(1, None);
        assert_eq!(outcome.codes, [1], "{}", outcome.stderr);
        let reason = &outcome.failures[0];
        assert!(reason.starts_with(&format!("the state of step {step} is ")), "{reason}");
        assert!(reason.contains(", first in the weight `layers.0.weight` ("), "{reason}");
        assert!(reason.ends_with("the run stops, its last checkpoint is kept"), "{reason}");
        assert!(outcome.manifests.is_empty() && outcome.states.is_empty());
    }
}
