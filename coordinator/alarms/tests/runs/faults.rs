//! Faults that were put in are found, named, and found soon: in nearly all seeds, with the figures printed.

use crate::generate::{Chance, Curve, Fed, LAYERS, SHAPES, Shape, feed_layers, feed_phases, weight};
use lockstep_alarms::{Alarm, Kind};

const SEEDS: u64 = 40;

/// What of many seeds was found, named, and how late.
#[derive(Default)]
struct Tally {
    runs: usize,
    named: usize,
    delays: Vec<u64>,
    wrong: Vec<String>,
}

impl Tally {
    /// One run: steps from the fault to the first alarm of its kind, if there was one, and whether `right` holds for it.
    fn count(&mut self, seed: u64, delay: Option<u64>, alarms: &[Alarm], kind: Kind, right: impl Fn(&Alarm) -> bool) {
        self.runs += 1;
        let found = alarms.iter().find(|alarm| alarm.kind == kind);
        self.delays.extend(delay.filter(|_| found.is_some()));
        if found.is_some_and(right) {
            self.named += 1;
        } else {
            let said: Vec<String> =
                alarms.iter().map(|alarm| format!("{:?} {:?}: {}", alarm.kind, alarm.place, alarm.what)).collect();
            self.wrong.push(format!("seed {seed}: {}", said.join(" | ")));
        }
    }

    #[expect(clippy::print_stdout, reason = "the figures are what a change of a rule is judged by")]
    fn found_in(mut self, what: &str, least: f64) {
        self.delays.sort_unstable();
        let (found, named) = (self.delays.len() as f64 / self.runs as f64, self.named as f64 / self.runs as f64);
        let (middle, most) = (self.delays.get(self.delays.len() / 2), self.delays.last());
        println!(
            "{what}: {} runs, found {found:.3}, named {named:.3}, delay in steps {middle:?}, at most {most:?}",
            self.runs
        );
        assert!(found >= least && named >= least, "{what}:\n{}", self.wrong.join("\n"));
    }
}

/// The step at which an alarm of `kind` is first told, asked at each step.
fn first(fed: &Fed, kind: Kind, step: u64, found: &mut Option<u64>) {
    if found.is_none() && fed.alarms().iter().any(|alarm| alarm.kind == kind) {
        *found = Some(step);
    }
}

/// Where the gradients of a layer explode, and where they are no numbers.
#[derive(Default)]
struct Broken {
    explodes: Option<(u64, usize, f64)>,
    nan: Option<(u64, usize)>,
    rank: Option<u32>,
    vanishes: Option<(u64, usize)>,
    dead: Option<(u64, usize)>,
}

/// A whole run of a curve with something broken in it.
fn run(curve: &Curve, broken: &Broken, every: u64, kind: Kind, chance: &mut Chance) -> (Fed, Option<u64>) {
    let (mut fed, mut found) = (Fed::new(), None);
    for step in 1..=curve.steps {
        let now = curve.at(step, chance);
        let mut norms: Vec<f64> = (0..LAYERS).map(|layer| curve.norm_of(layer, now.common, chance)).collect();
        let mut loss = now.loss;
        if let Some((from, layer, pace)) = broken.explodes.filter(|explodes| step > explodes.0) {
            let grown = |steps: u64| pace.powf(steps as f64).min(1e12);
            norms[layer] *= grown(step - from);
            // The others follow by what reaches them: later and less.
            let after = grown((step - from).saturating_sub(30)).sqrt();
            norms.iter_mut().enumerate().filter(|(at, _)| *at != layer).for_each(|(_, norm)| *norm *= after);
            loss += (grown(step - from) / 100.0).ln().max(0.0);
        }
        if let Some((_, layer)) = broken.vanishes.filter(|vanishes| step > vanishes.0) {
            norms[layer] *= 1e-7;
        }
        let mut whole = norms.iter().map(|norm| norm * norm).sum::<f64>().sqrt();
        if let Some((_, layer)) = broken.nan.filter(|nan| step >= nan.0) {
            // Backward from it: all before it, and at the next step everything.
            let later = broken.nan.is_some_and(|nan| step > nan.0);
            norms[..=layer].fill(f64::NAN);
            (loss, whole) = (if later { f64::NAN } else { loss }, f64::NAN);
        }
        fed.point("loss", step, loss);
        fed.point("grad_norm", step, whole);
        fed.point("lr", step, now.rate);
        for rank in 0..3 {
            let only = broken.rank.is_none_or(|broken| broken == rank);
            let own = if only { whole } else { now.norm };
            fed.part("rank/grad_norm", rank, step, own * chance.factor(0.2));
        }
        if step % every == 0 {
            feed_layers(&mut fed, step, now.rate, &norms, chance);
        }
        if step % 50 == 0 {
            for layer in 0..LAYERS {
                let dead = broken.dead.is_some_and(|dead| layer >= dead.1 && step > dead.0);
                let zeros = if dead { 4090 } else { (4096.0 * chance.between(0.4, 0.9)) as u64 };
                fed.zeros(&format!("activation/l{layer}"), step, 4096, zeros);
            }
        }
        first(&fed, kind, step, &mut found);
    }
    (fed, found)
}

#[test]
fn an_exploding_layer_is_named() {
    for every in [1, 10] {
        let mut tally = Tally::default();
        for seed in 0..SEEDS {
            let mut chance = Chance::new(seed);
            let mut shape = SHAPES[seed as usize % SHAPES.len()];
            if shape == Shape::NormRises {
                shape = Shape::Exponential;
            }
            let curve = Curve::new(shape, 1600, &mut chance);
            let (from, layer) = (600 + chance.below(600), chance.below(LAYERS as u64) as usize);
            let broken = Broken { explodes: Some((from, layer, chance.between(1.05, 1.5))), ..Broken::default() };
            let (fed, found) = run(&curve, &broken, every, Kind::Divergence, &mut chance);
            // Its weight or its bias: both explode.
            let place = format!("layer `l{layer}.");
            tally.count(seed, found.map(|at| at.saturating_sub(from)), &fed.alarms(), Kind::Divergence, |alarm| {
                alarm.place.as_ref().is_some_and(|named| named.starts_with(&place))
            });
        }
        tally.found_in(&format!("exploding layer, layers each {every} steps"), 0.95);
    }
}

#[test]
fn a_nan_in_one_rank_is_named() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let curve = Curve::new(SHAPES[seed as usize % SHAPES.len()], 800, &mut chance);
        let (at, layer, rank) =
            (10 * (1 + chance.below(70)), chance.below(LAYERS as u64) as usize, chance.below(3) as u32);
        let broken = Broken { nan: Some((at, layer)), rank: Some(rank), ..Broken::default() };
        let (fed, found) = run(&curve, &broken, 10, Kind::NotFinite, &mut chance);
        // The gradient of its bias is computed after that of its weight, or before.
        let place = [format!("layer `{}`, rank {rank}", weight(layer)), format!("layer `l{layer}.bias`, rank {rank}")];
        tally.count(seed, found.map(|found| found - at), &fed.alarms(), Kind::NotFinite, |alarm| {
            alarm.place.as_ref().is_some_and(|named| place.contains(named))
                && alarm.since_step == at
                && alarm.until_step.is_none()
        });
    }
    tally.found_in("NaN in one rank", 1.0);
}

#[test]
fn a_layer_whose_gradient_vanishes_and_one_that_dies_are_named() {
    let (mut vanishing, mut dead) = (Tally::default(), Tally::default());
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let curve = Curve::new(SHAPES[seed as usize % SHAPES.len()], 2400, &mut chance);
        let (from, layer) = (chance.below(1000), chance.below(LAYERS as u64) as usize);
        let broken = Broken { vanishes: Some((from, layer)), ..Broken::default() };
        let (fed, found) = run(&curve, &broken, 10, Kind::Vanishing, &mut chance);
        let place = Some(format!("layer `{}`", weight(layer)));
        let delay = found.map(|found| found.saturating_sub(from));
        vanishing.count(seed, delay, &fed.alarms(), Kind::Vanishing, |alarm| alarm.place == place);
        let broken = Broken { dead: Some((from, layer)), ..Broken::default() };
        let (fed, found) = run(&curve, &broken, 10, Kind::DeadUnits, &mut chance);
        let place = Some(format!("layer `l{layer}`"));
        let delay = found.map(|found| found.saturating_sub(from));
        dead.count(seed, delay, &fed.alarms(), Kind::DeadUnits, |alarm| alarm.place == place);
    }
    vanishing.found_in("vanishing gradient", 1.0);
    dead.found_in("dead layer", 1.0);
}

#[test]
fn a_loss_that_stands_still_and_one_that_overfits() {
    let (mut plateau, mut overfitting) = (Tally::default(), Tally::default());
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let curve = Curve::new(Shape::Exponential, 5000, &mut chance);
        let (stuck, low, pace) = (chance.below(1000), 1000 + chance.below(1500), chance.between(0.05, 0.6));
        let (mut still, mut fit, mut found) = (Fed::new(), Fed::new(), [None, None]);
        let level = curve.at(1, &mut chance).smooth * chance.between(0.6, 1.0);
        for step in 1..=curve.steps {
            let now = curve.at(step, &mut chance);
            let noise = now.loss / now.smooth;
            still.point("loss", step, if step < stuck { now.smooth.max(level) } else { level } * noise);
            still.point("lr", step, 1e-3);
            fit.point("loss", step, now.loss);
            if step % 100 == 0 {
                // From its minimum it gives back, within a thousand steps, such a share of all that it had descended.
                let risen = step.saturating_sub(low) as f64 / 1000.0 * pace * curve.at(1, &mut chance).smooth;
                fit.point("eval/loss", step, now.smooth * 1.1 * chance.factor(0.02) + risen);
            }
            first(&still, Kind::Plateau, step, &mut found[0]);
            first(&fit, Kind::Overfitting, step, &mut found[1]);
        }
        let delay = |found: Option<u64>, from: u64| found.map(|found| found.saturating_sub(from));
        plateau.count(seed, delay(found[0], stuck), &still.alarms(), Kind::Plateau, |_| true);
        overfitting.count(seed, delay(found[1], low), &fit.alarms(), Kind::Overfitting, |_| true);
    }
    plateau.found_in("plateau", 0.95);
    overfitting.found_in("overfitting", 0.9);
}

#[test]
fn a_leak_of_a_megabyte_in_a_hundred_steps() {
    for (what, gaussian, late) in [("even noise", false, 0), ("normal noise", true, 0), ("late", false, 6000)] {
        let mut tally = Tally::default();
        for seed in 0..SEEDS {
            let mut chance = Chance::new(seed);
            let (mut fed, mut found) = (Fed::new(), None);
            let warm = chance.between(0.0, 3e8);
            let from = late + if late > 0 { chance.below(3000) } else { 0 };
            for step in (20..=30_000_u64).step_by(20) {
                let noise = 20e6 * if gaussian { chance.normal() } else { chance.between(-1.0, 1.0) };
                let start = warm * (1.0 - (-(step as f64) / 60.0).exp());
                let leaked = 1e4 * step.saturating_sub(from) as f64;
                fed.part("process/rss_bytes", 2, step, 4e8 + start + leaked + noise);
                first(&fed, Kind::MemoryGrowth, step, &mut found);
            }
            tally.count(
                seed,
                found.map(|found| found.saturating_sub(from)),
                &fed.alarms(),
                Kind::MemoryGrowth,
                |alarm| {
                    let near = alarm.since_step.abs_diff(from) < 3500;
                    near && alarm.place.as_deref() == Some("process 2") && alarm.until_step.is_none()
                },
            );
        }
        tally.found_in(&format!("leak, {what}"), 0.95);
    }
}

#[test]
fn an_evaluation_that_leaks_is_said_to() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let (mut fed, mut found) = (Fed::new(), None);
        for step in (20..=10_000_u64).step_by(20) {
            if step % 500 == 0 {
                fed.point("eval/loss", step, 1.0);
            }
            let leaked = 2e7 * (step / 500) as f64;
            fed.part("process/rss_bytes", 0, step, 4e8 + leaked + 1e6 * chance.normal());
            first(&fed, Kind::MemoryGrowth, step, &mut found);
        }
        tally.count(seed, found, &fed.alarms(), Kind::MemoryGrowth, |alarm| alarm.what.contains("evaluation"));
    }
    tally.found_in("leak in evaluation", 0.95);
}

#[test]
fn what_is_reserved_and_not_used() {
    let mut tally = Tally::default();
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let (mut fed, mut found) = (Fed::new(), None);
        let pace = chance.between(2e4, 3e5);
        for step in (20..=12_000_u64).step_by(20) {
            let allocated = 3e9 + 2e7 * chance.normal();
            // The allocator takes segments of 2 MB.
            let reserved = 4e9 + (pace * step as f64 / 2e6).floor() * 2e6;
            fed.part("device/allocated_bytes", 1, step, allocated);
            fed.part("device/reserved_bytes", 1, step, reserved);
            first(&fed, Kind::Fragmentation, step, &mut found);
        }
        tally.count(seed, found, &fed.alarms(), Kind::Fragmentation, |alarm| {
            alarm.place.as_deref() == Some("process 1")
        });
    }
    tally.found_in("fragmentation", 0.95);
}

#[test]
fn a_slow_process_and_a_slow_loader() {
    let (mut slow, mut starved) = (Tally::default(), Tally::default());
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let processes = [2, 3, 4][seed as usize % 3];
        let (from, bad, factor) = (200 + chance.below(100), chance.below(processes) as u32, chance.between(1.5, 3.0));
        let (mut one, mut all, mut found) = (Fed::new(), Fed::new(), [None, None]);
        let phase = if seed % 2 == 0 { "data" } else { "backward" };
        for step in 1..=600 {
            for process in 0..processes as u32 {
                let is = process == bad && step >= from;
                let (data, work) = match (is, phase) {
                    (true, "data") => (10.0 * factor, 1.0),
                    (true, _) => (1.0, factor),
                    _ => (1.0, 1.0),
                };
                feed_phases(&mut one, step, process, data, work, &mut chance);
                feed_phases(&mut all, step, process, if step >= from { 15.0 * factor } else { 1.0 }, 1.0, &mut chance);
            }
            first(&one, Kind::Straggler, step, &mut found[0]);
            first(&all, Kind::DataStarvation, step, &mut found[1]);
        }
        let place = format!("process {bad}, phase {phase}");
        let delay = |found: Option<u64>| found.map(|found| found.saturating_sub(from));
        assert!(!one.alarms().iter().any(|alarm| alarm.kind == Kind::DataStarvation), "one is not all");
        slow.count(seed, delay(found[0]), &one.alarms(), Kind::Straggler, |alarm| alarm.place.as_ref() == Some(&place));
        starved.count(seed, delay(found[1]), &all.alarms(), Kind::DataStarvation, |alarm| {
            alarm.since_step.abs_diff(from) < 20
        });
    }
    slow.found_in("slow process", 1.0);
    starved.found_in("slow loader", 1.0);
}

#[test]
fn a_device_that_is_hot_and_one_whose_clock_falls() {
    let mut fed = Fed::new();
    let mut chance = Chance::new(1);
    for step in 1..=400 {
        let hot = step > 200;
        fed.part("device/throttle_reasons", 0, step, if hot && chance.even() < 0.95 { 64.0 } else { 0.0 });
        for process in [0, 1] {
            fed.part("device/utilisation", process, step, 0.97);
            let clock = if hot { 1100.0 } else { 1700.0 } + 10.0 * chance.normal();
            fed.part("device/sm_clock_mhz", process, step, clock);
        }
    }
    let said: Vec<_> = fed.alarms().into_iter().map(|alarm| (alarm.kind, alarm.place, alarm.severity)).collect();
    let of = |process: u32, severity| (Kind::Throttling, Some(format!("device of process {process}")), severity);
    assert_eq!(said, [of(0, lockstep_alarms::Severity::Error), of(1, lockstep_alarms::Severity::Warning)]);
}
