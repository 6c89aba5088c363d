//! Known ways in which a resume or a restart goes wrong silently, with a test for each.
//!
//! Most tests train in this process, so that only the code under test can disturb the training. Tests that need committed checkpoints run
//! real processes.

use std::collections::BTreeSet;
use std::sync::{Mutex, PoisonError};

use crate::lab::{Lab, idx, table};
use lockstep_common::Digest;
use lockstep_common::job::JobSpec;
use lockstep_common::record;
use lockstep_common::sampler::Sampler;
use lockstep_common::seed::{Stream, derive};
use lockstep_rpc::StepReport;
use lockstep_store::BlobStore;
use lockstep_worker::evidence::numerics;
use lockstep_worker::observe::{Message, Outbox};
use lockstep_worker::program::{BuiltIn, Setup};
use lockstep_worker::step::Trainer;
use tch::{Device, Kind, Tensor};

/// Dropout, momentum, clipping; 40 training samples, five steps per epoch.
const MLP: &str = r#"
    name = "mlp"
    seed = 5
    steps = 7
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.2, momentum = 0.9, clip_norm = 0.5 }
    model = { kind = "mlp", hidden = [16, 16], outputs = 3, dropout = 0.4 }
    data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
"#;

/// Batch norm: every forward pass in training mode changes its statistics.
const RESNET: &str = r#"
    name = "resnet"
    steps = 4
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "adamw", lr = 0.01 }
    model = { kind = "resnet", blocks = 1, width = 4, outputs = 4 }
    data = { kind = "idx", images = "images", labels = "labels", validation_images = "images", validation_labels = "labels" }
"#;

/// torch has one generator per device, so only one training runs at a time.
static TORCH: Mutex<()> = Mutex::new(());

fn mlp(sets: &[&str]) -> Lab {
    Lab::new(MLP, sets, &[("table.csv", table().into_bytes())])
}

fn resnet(sets: &[&str]) -> Lab {
    let images = idx(&[24, 8, 8], |at| ((at * 2_654_435_761) >> 7) as u8);
    Lab::new(RESNET, sets, &[("images", images), ("labels", idx(&[24], |at| (at % 4) as u8))])
}

/// The final state, and for each step the bits of loss, gradient norm and learning rate, and the digest of its sample positions.
type Trained = (Digest, Vec<[u64; 4]>);

/// Trains in this process. `disturb` is called before data and model are loaded, and again before the first step.
fn train_with(lab: &Lab, disturb: impl Fn()) -> Trained {
    let _alone = TORCH.lock().unwrap_or_else(PoisonError::into_inner);
    numerics::apply(&lab.job).unwrap();
    disturb();
    let setup = Setup::new(lab.job.clone(), lab.dir.path().into(), Vec::new(), Device::Cpu);
    let trainer = Trainer::load(&BuiltIn, setup, None).unwrap();
    disturb();
    let outbox = Outbox::default();
    let store = BlobStore::open(&lab.store()).unwrap();
    let finished = trainer.run(None, Some(store), &outbox).unwrap();
    outbox.close();
    let mut steps = Vec::new();
    while let Some(message) = outbox.pop() {
        if let Message::Block(block) = message {
            steps.extend(block.steps.iter().map(|step| [step.loss, step.grad_norm, step.lr, step.positions]));
        }
    }
    assert_eq!(steps.len() as u64, lab.job.steps);
    (finished.state, steps)
}

fn train(lab: &Lab) -> Trained {
    train_with(lab, || ())
}

fn sampler(job: &JobSpec, samples: u64) -> Sampler {
    Sampler::new(samples, job.batch.size, job.ranks, job.seed, job.batch.shuffle, job.batch.last).unwrap()
}

#[test]
fn draws_before_and_while_data_and_model_are_loaded_change_nothing() {
    for lab in [mlp(&[]), resnet(&[])] {
        let plain = train_with(&lab, || tch::manual_seed(1));
        let drawn = train_with(&lab, || {
            tch::manual_seed(2);
            for size in 1..50 {
                drop(Tensor::randn([size], (Kind::Float, Device::Cpu)));
            }
        });
        assert!(plain == drawn, "{}", lab.job.name);
    }
}

/// All samples are equal, so without dropout every rank has the same loss.
#[test]
fn every_rank_draws_for_itself() {
    let job = |dropout: &str, ranks: u32| {
        let text = format!(
            "name = 'same'\nsteps = 1\nranks = {ranks}\nbatch = {{ size = {ranks} }}\n\
             model = {{ kind = 'mlp', hidden = [32], outputs = 2, dropout = {dropout} }}\n\
             data = {{ kind = 'idx', images = 'images', labels = 'labels' }}\noptimizer = {{ kind = 'sgd', lr = 0.1 }}\n"
        );
        let images = idx(&[8, 4, 4], |at| (at % 16 * 15) as u8);
        Lab::new(&text, &[], &[("images", images), ("labels", idx(&[8], |_| 1))])
    };
    let loss = |dropout: &str, ranks: u32| train(&job(dropout, ranks)).1[0][0];
    assert_eq!(loss("0.0", 1), loss("0.0", 4), "without draws four ranks have the loss of one");
    assert_ne!(loss("0.5", 1), loss("0.5", 4), "all ranks drew what rank 0 draws");
}

#[test]
fn seeds_and_generators_of_all_ranks_streams_and_steps_differ_pairwise() {
    let lab = mlp(&["ranks=8", "checkpoint.every_steps=1"]);
    let (mut seeds, mut generators) = (BTreeSet::new(), BTreeSet::new());
    let run = lab.run(1, None);
    for manifest in &run.manifests {
        for rank in &manifest.ranks {
            assert_eq!(rank.seeds.keys().collect::<Vec<_>>(), ["forward", "init", "order", "python", "user"]);
            assert_eq!(rank.seeds["python"], derive(lab.job.seed, Stream::User, 0, 0) >> 32);
            let forward = rank.seeds["forward"];
            assert!(seeds.insert(forward), "step {}, rank {}: {forward} is another's", manifest.step, rank.rank);
            assert_eq!(rank.seeds["user"], derive(lab.job.seed, Stream::User, manifest.step, rank.rank));
            let generator = rank.generators["cpu"].digest;
            assert!(generators.insert(generator), "step {}, rank {}: another's state", manifest.step, rank.rank);
            // These seeds are the same for all ranks.
            let all = [("init", Stream::Init, 0), ("order", Stream::Order, manifest.epoch)];
            for (name, stream, counter) in all {
                assert_eq!(rank.seeds[name], derive(lab.job.seed, stream, counter, 0), "{name}");
            }
        }
    }
    assert_eq!(seeds.len(), 7 * 8);
    for stream in [Stream::Init, Stream::Order, Stream::Split, Stream::Eval, Stream::Augment, Stream::User] {
        for (counter, rank) in (0..8).flat_map(|counter| (0..8).map(move |rank| (counter, rank))) {
            assert!(seeds.insert(derive(lab.job.seed, stream, counter, rank)), "{stream:?}, {counter}, {rank}");
        }
    }
}

#[test]
fn an_evaluation_after_every_step_moves_neither_generators_nor_statistics() {
    for (plain, evaluated) in [(mlp(&[]), mlp(&["eval.every_steps=1"])), (resnet(&[]), resnet(&["eval.every_steps=1"]))]
    {
        assert!(train(&plain) == train(&evaluated), "{}", plain.job.name);
    }
}

#[test]
fn how_often_checkpoints_are_made_and_numbers_recorded_changes_nothing() {
    let none = ["checkpoint.every_steps=0", "report={layer_norms_every=0, fingerprints_every=0}"];
    for make in [mlp, resnet] {
        let plain = train(&make(&none));
        for sets in [
            ["checkpoint.every_steps=1", none[1]],
            ["checkpoint.every_steps=3", none[1]],
            [none[0], "report={layer_norms_every=1, fingerprints_every=0}"],
            [none[0], "report={layer_norms_every=0, fingerprints_every=1}"],
            ["checkpoint.every_steps=2", "report={layer_norms_every=3, fingerprints_every=2}"],
        ] {
            assert!(train(&make(&sets)) == plain, "{sets:?}");
        }
    }
}

/// 50 samples, 12 per step: `drop` has four steps per epoch and leaves out two samples; `pad` has five steps and reads the first ten
/// samples of the epoch again.
#[test]
fn an_epoch_reads_each_sample_once_whatever_is_left_at_its_end() {
    for (last, steps_per_epoch) in [("drop", 4), ("pad", 5)] {
        for shuffle in [false, true] {
            let sets = [
                "data.validation=0.0",
                "batch.size=12",
                "steps=11",
                &format!("batch.last={last}"),
                &format!("batch.shuffle={shuffle}"),
            ];
            let lab = mlp(&sets);
            let sampler = sampler(&lab.job, 50);
            assert_eq!(sampler.steps_per_epoch(), steps_per_epoch);
            let (_, steps) = train(&lab);
            let mut orders = Vec::new();
            for epoch in 0..2 {
                let mut read = Vec::new();
                for step in epoch * steps_per_epoch..(epoch + 1) * steps_per_epoch {
                    let batch: Vec<u64> = (0..2).flat_map(|rank| sampler.positions(step, rank)).collect();
                    assert_eq!(steps[step as usize][3], record::positions(&batch), "{last}, step {step}");
                    read.extend(batch);
                }
                let once: BTreeSet<u64> = read.iter().take(50).copied().collect();
                assert_eq!(once.len(), read.len().min(50), "{last}, epoch {epoch}: each once");
                assert!(once.iter().all(|position| *position < 50));
                assert_eq!(read.get(50..).unwrap_or_default(), &read[..read.len().saturating_sub(50)], "{last}");
                orders.push(read);
            }
            assert_eq!(orders[0] == orders[1], !shuffle, "each epoch has its own order");
            if !shuffle {
                assert!(orders[0].iter().zip(0..).all(|(position, at)| *position == at % 50));
            }
        }
    }
}

/// Prefetched samples do not count as consumed, and the last step of an epoch is not the first one of the next.
#[test]
fn a_resume_before_at_and_after_an_epochs_end_reads_on_where_the_run_stood() {
    for (last, steps_per_epoch) in [("drop", 4), ("pad", 5)] {
        let sets = ["data.validation=0.0", "batch.size=12", "checkpoint.every_steps=1", &format!("batch.last={last}")];
        let lab = mlp(&sets);
        let sampler = sampler(&lab.job, 50);
        let whole = lab.run(2, None);
        let read = |steps: &[StepReport]| steps.iter().map(|step| step.positions).collect::<Vec<_>>();
        for step in steps_per_epoch - 1..=steps_per_epoch + 1 {
            let manifest = whole.manifest_at(step);
            for rank in &manifest.ranks {
                let next = sampler.positions(step, rank.rank)[0];
                assert_eq!(
                    (rank.consumed, rank.epoch, rank.next_position),
                    (step * 6, step / steps_per_epoch, next),
                    "{last}, step {step}"
                );
            }
            let resumed = lab.run(1, Some(manifest));
            let after = &whole.steps[step as usize..];
            assert_eq!(read(&resumed.steps), read(after), "{last}, from step {step}");
            assert_eq!(resumed.record(), whole.record()[step as usize..], "{last}, from step {step}");
            assert_eq!(resumed.state(), whole.state(), "{last}, from step {step}");
        }
    }
}
