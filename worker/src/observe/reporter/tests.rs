//! The contents of blocks, and when they are handed over.

use super::*;
use crate::observe::Message;

fn blocks(outbox: &Outbox) -> Vec<ReportBlock> {
    outbox.close();
    std::iter::from_fn(|| outbox.pop())
        .map(|message| match message {
            Message::Block(block) => block,
            Message::Other(body) => panic!("{body:?}"),
        })
        .collect()
}

fn evidence(numbers: &StepNumbers) -> Evidence {
    let [loss, grad_norm, lr] = [numbers.loss, numbers.grad_norm, numbers.lr].map(f64::to_bits);
    let StepNumbers { step, positions, contents, .. } = *numbers;
    Evidence { step, loss, grad_norm, lr, positions, fingerprint: 0, contents }
}

#[test]
fn process_0_records_every_step_in_order_and_chains_it() {
    let outbox = Outbox::default();
    let mut reporter = Reporter::new(outbox.clone(), 0, 8, Device::Cpu, None);
    let mut digest = chain_start();
    for step in 1..=2500 {
        let loss = 1.0 / step as f64;
        let numbers = StepNumbers { step, loss, grad_norm: 2.0, lr: 0.1, positions: step * 7, contents: step % 2 };
        reporter.step(&numbers, None);
        digest = evidence(&numbers).chain(&digest);
    }
    assert_eq!(*reporter.record(), RecordPosition { steps: 2500, digest });
    reporter.finish(2500);
    let blocks = blocks(&outbox);
    assert!(blocks.len() >= 3, "no block waits for more than {BLOCK_STEPS} steps");
    let steps: Vec<u64> = blocks.iter().flat_map(|block| &block.steps).map(|step| step.step).collect();
    assert_eq!(steps, (1..=2500).collect::<Vec<_>>());
    for pair in blocks.windows(2).filter(|pair| !pair[1].steps.is_empty()) {
        assert_eq!(pair[1].record_before.len(), 32);
        assert_ne!(pair[0].record_before, pair[1].record_before, "each block names what it follows");
    }
    assert_eq!(blocks[0].record_before, chain_start().as_bytes());
    let system = blocks.iter().flat_map(|block| &block.systems).last().unwrap();
    assert!(system.step == 2500 && system.rss_bytes > 0 && system.phase_micros.len() == PHASES.len());
}

#[test]
fn a_block_of_many_names_is_handed_over_before_it_is_too_large() {
    let outbox = Outbox::default();
    let mut reporter = Reporter::new(outbox.clone(), 0, 8, Device::Cpu, None);
    let names: Vec<String> = (0..10_000).map(|index| format!("model/layer.{index}.weight")).collect();
    for step in 1..=100 {
        reporter.layers(step, names.clone(), vec![1.0; names.len()]);
        reporter.updates(step, names.clone(), vec![1.0; names.len()], vec![1.0; names.len()]);
        let numbers = StepNumbers { step, loss: 1.0, grad_norm: 1.0, lr: 1.0, positions: 0, contents: 0 };
        let fingerprints = Fingerprints { names: names.clone(), sums: vec![step; names.len()] };
        reporter.step(&numbers, Some(fingerprints));
    }
    reporter.finish(100);
    let blocks = blocks(&outbox);
    let largest = blocks.iter().map(prost::Message::encoded_len).max().unwrap();
    assert!(largest < 2 * BLOCK_BYTES, "{largest} bytes");
    assert_eq!(blocks.iter().map(|block| block.fingerprints.len()).sum::<usize>(), 100, "and nothing is left out");
}

#[test]
fn other_processes_say_only_telemetry() {
    let outbox = Outbox::default();
    let mut reporter = Reporter::new(outbox.clone(), 1, 8, Device::Cpu, None);
    reporter.spent(Phase::Data);
    reporter.step(&StepNumbers { step: 1, loss: 1.0, grad_norm: 1.0, lr: 1.0, positions: 0, contents: 0 }, None);
    reporter.finish(1);
    let blocks = blocks(&outbox);
    assert!(blocks.iter().all(|block| block.process == 1 && block.steps.is_empty()));
    assert_eq!(blocks.iter().map(|block| block.systems.len()).sum::<usize>(), 1);
}

#[test]
fn a_program_takes_no_name_that_lockstep_tracks_under() {
    let context = lockstep_models::Context { step: 0, rank: 0, training: true, root: 0 };
    let mut reporter = Reporter::new(Outbox::default(), 0, 8, Device::Cpu, None);
    let mut logged = |source| reporter.logged(1, source).map_err(|error| error.to_string());
    for name in ["loss", "lr", "grad_norm", "step_seconds", "eval/loss", "grad_norm/a", "throughput/samples"] {
        for source in [LogSource::Rank(None), LogSource::Rank(Some(1)), LogSource::Evaluation] {
            context.log(name, 1.0);
            let error = logged(source).unwrap_err();
            assert!(error.contains(&format!("logs `{name}`")), "{error}");
        }
    }
    context.histogram("weight/a", &tch::Tensor::from_slice(&[1.0_f32]));
    assert!(logged(LogSource::Rank(None)).unwrap_err().contains("`weight/a`"));
    context.histogram("loss", &tch::Tensor::from_slice(&[1.0_f32]));
    for name in ["own/loss", "loss/a", "losses", "weight/a"] {
        context.log(name, 1.0);
    }
    logged(LogSource::Rank(None)).unwrap();
}

#[test]
fn samples_of_tokens_have_a_rate_of_tokens() {
    let outbox = Outbox::default();
    let mut reporter = Reporter::new(outbox.clone(), 0, 8, Device::Cpu, None);
    let targets = lockstep_data::Targets::Tokens;
    reporter.samples_are(&SampleShape { input: vec![64], kind: InputKind::Tokens, targets });
    reporter.step(&StepNumbers { step: 1, loss: 1.0, grad_norm: 1.0, lr: 1.0, positions: 0, contents: 0 }, None);
    reporter.finish(1);
    let series: Vec<Series> = blocks(&outbox).into_iter().flat_map(|block| block.series).collect();
    let rate = |name: &str| series.iter().find(|series| series.name == name).unwrap().values[0];
    assert_eq!(rate("throughput/tokens"), rate("throughput/steps") * 512.0);
}

#[test]
fn a_resumed_record_goes_on_where_it_stood() {
    let record = RecordPosition { steps: 7, digest: chain_start() };
    let mut reporter = Reporter::new(Outbox::default(), 0, 8, Device::Cpu, Some(record.clone()));
    let numbers = StepNumbers { step: 8, loss: 0.0, grad_norm: 0.0, lr: 0.0, positions: 0, contents: 0 };
    reporter.step(&numbers, None);
    assert_eq!(*reporter.record(), RecordPosition { steps: 8, digest: evidence(&numbers).chain(&record.digest) });
}
