//! Loss and gradient norm that are read a step later, as on a GPU: the bits are the same, and so is the error if they are not finite.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Barrier, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use lockstep_common::Digest;
use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_worker::checkpoint::State;
use lockstep_worker::evidence::numerics;
use lockstep_worker::observe::{Message, Outbox};
use lockstep_worker::program::{BuiltIn, Setup};
use lockstep_worker::reduce::{Exchange, MeshExchange};
use lockstep_worker::step::{StepHook, Trainer};
use tch::{Device, Tensor};

use crate::lab::{Lab, idx, table};

const MLP: &str = r#"
    name = "mlp"
    steps = 11
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.2, momentum = 0.9, clip_norm = 0.5 }
    model = { kind = "mlp", hidden = [16, 16], outputs = 3 }
    data = { kind = "csv", path = "table.csv", target = "class", validation = 0.2 }
"#;

/// Batch norm: every forward pass in training mode changes its buffers.
const RESNET: &str = r#"
    name = "resnet"
    steps = 6
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "adamw", lr = 0.01, clip_norm = 1.0 }
    model = { kind = "resnet", blocks = 1, width = 4, outputs = 4 }
    data = { kind = "idx", images = "images", labels = "labels" }
"#;

/// torch has one generator per device, so only one training runs at a time.
static TORCH: Mutex<()> = Mutex::new(());

/// The result of a process, and for each step the number and the bits of loss, gradient norm, learning rate, positions and contents.
type Trained = (Result<Digest, String>, Vec<[u64; 6]>);

fn mlp(sets: &[&str]) -> Lab {
    Lab::new(MLP, sets, &[("table.csv", table().into_bytes())])
}

fn resnet(sets: &[&str]) -> Lab {
    let images = idx(&[24, 8, 8], |at| ((at * 2_654_435_761) >> 7) as u8);
    Lab::new(RESNET, sets, &[("images", images), ("labels", idx(&[24], |at| (at % 4) as u8))])
}

/// Fails in this step.
struct FailsAt(u64);

impl StepHook for FailsAt {
    fn gradient(&mut self, step: u64, _: u32, _: &Tensor) -> Result<(), String> {
        if step == self.0 { Err("it was asked to".to_owned()) } else { Ok(()) }
    }

    fn stepped(&mut self, _: &State) -> Result<(), String> {
        Ok(())
    }
}

/// Trains on `processes` processes, which are threads of this one; returns the result of process 0.
fn train(lab: &Lab, processes: usize, later: bool, fails_at: Option<u64>) -> Trained {
    let _alone = TORCH.lock().unwrap_or_else(PoisonError::into_inner);
    numerics::apply(&lab.job).unwrap();
    let listeners: Vec<Listener> =
        (0..processes).map(|_| Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()).collect();
    let addresses: Vec<SocketAddr> = listeners.iter().map(Listener::local_addr).collect();
    // The processes draw their weights one after another, and none of them seeds the generator again before all have their weights.
    let (drawing, drawn) = (Mutex::new(()), Barrier::new(processes));
    let load = &|setup| {
        let one = drawing.lock().unwrap_or_else(PoisonError::into_inner);
        let trainer = Trainer::load(&BuiltIn, setup, None).unwrap();
        drop(one);
        drawn.wait();
        trainer
    };
    thread::scope(|scope| {
        let running: Vec<_> = listeners
            .into_iter()
            .enumerate()
            .map(|(process, listener)| {
                let addresses = addresses.clone();
                scope.spawn(move || process_of(lab, (process, listener, addresses), load, later, fails_at))
            })
            .collect();
        let mut trained: Vec<Trained> = running.into_iter().map(|thread| thread.join().unwrap()).collect();
        // A process that ends by its own error does not exchange its finding with others.
        assert!(fails_at.is_some() || trained.iter().all(|one| one.0 == trained[0].0), "{trained:?}");
        trained.swap_remove(0)
    })
}

fn process_of(
    lab: &Lab,
    (process, listener, addresses): (usize, Listener, Vec<SocketAddr>),
    load: &(impl Fn(Setup) -> Trainer + Sync),
    later: bool,
    fails_at: Option<u64>,
) -> Trained {
    let exchange = (addresses.len() > 1).then(|| {
        let config = MeshConfig {
            process,
            addresses,
            secret: [7; 32],
            run: "later".into(),
            generation: 1,
            connect_deadline: Duration::from_secs(20),
            silence_limit: Duration::from_secs(20),
            shared_memory: true,
        };
        Box::new(MeshExchange::new(Mesh::join(listener, &config).unwrap())) as Box<dyn Exchange>
    });
    let setup = Setup::new(lab.job.clone(), lab.dir.path().into(), Vec::new(), Device::Cpu);
    let mut trainer = load(setup);
    if later {
        trainer = trainer.reading_later();
    }
    if let Some(step) = fails_at {
        trainer = trainer.with_hook(FailsAt(step));
    }
    let outbox = Outbox::default();
    let finished = trainer.run(exchange, None, &outbox);
    outbox.close();
    let mut steps = Vec::new();
    while let Some(message) = outbox.pop() {
        if let Message::Block(block) = message {
            let words = |step: &lockstep_rpc::StepReport| {
                [step.step, step.loss, step.grad_norm, step.lr, step.positions, step.contents]
            };
            steps.extend(block.steps.iter().map(words));
        }
    }
    (finished.map(|finished| finished.state).map_err(|error| error.to_string()), steps)
}

fn both(lab: &Lab, processes: usize, fails_at: Option<u64>) -> Trained {
    let at_once = train(lab, processes, false, fails_at);
    assert!(train(lab, processes, true, fails_at) == at_once, "{}, {processes} processes", lab.job.name);
    at_once
}

#[test]
fn the_bits_are_the_same() {
    let sets = ["eval.every_steps=4", "report.fingerprints_every=5", "report.layer_norms_every=3"];
    for (lab, processes) in
        [(mlp(&sets), 1), (mlp(&sets), 2), (mlp(&["model.dropout=0.4"]), 1), (resnet(&[]), 1), (resnet(&[]), 2)]
    {
        let (state, steps) = both(&lab, processes, None);
        assert!(state.is_ok(), "{state:?}");
        assert_eq!(steps.iter().map(|step| step[0]).collect::<Vec<_>>(), (1..=lab.job.steps).collect::<Vec<_>>());
    }
}

#[test]
fn a_run_whose_numbers_are_none_ends_at_the_same_step_with_the_same_words() {
    for (lab, processes) in [
        (mlp(&["optimizer.lr=1e18"]), 1),
        (mlp(&["optimizer.lr=1e18"]), 2),
        (mlp(&["optimizer.lr=1e30", "optimizer.kind=\"adam\"", "optimizer.momentum=0.0"]), 2),
        (resnet(&["optimizer.lr=1e36"]), 1),
    ] {
        let (ended, steps) = both(&lab, processes, None);
        let words = ended.unwrap_err();
        let failed = steps.len() as u64 + 1;
        assert!(failed > 1 && failed < lab.job.steps, "the first step is sound, the last is read at once: {words}");
        assert!(words.contains(&format!("of step {failed} is ")) && words.contains(", first in "), "{words}");
        // The update is skipped, so all parameters are finite.
        assert!(!words.contains("first in the weight"), "{words}");
        // An error in the step that has begun already does not replace the first error.
        assert!(both(&lab, processes, Some(failed + 1)).0 == Err(words));
    }
}
