//! No alarm on a healthy run: hundreds of seeds over many shapes.

use crate::generate::{Chance, Curve, Fed, LAYERS, SHAPES, feed_layers, feed_phases, weight};

const SEEDS: u64 = 30;

/// Runs that were not quiet, and what was said of them.
#[derive(Default)]
struct Cries(Vec<String>);

impl Cries {
    fn hear(&mut self, fed: &Fed, what: &str, seed: u64) {
        let said = fed.alarms();
        self.0.extend(said.iter().map(|alarm| format!("{what}, seed {seed}: {:?}, {}", alarm.kind, alarm.what)));
    }

    fn none(self) {
        assert!(self.0.is_empty(), "{} alarms:\n{}", self.0.len(), self.0.join("\n"));
    }
}

#[test]
fn losses_gradients_and_evaluations_of_every_shape() {
    let mut cries = Cries::default();
    for shape in SHAPES {
        for seed in 0..SEEDS {
            let mut chance = Chance::new(seed * 1000 + shape as u64);
            let steps = [600, 2000, 4000][seed as usize % 3];
            let curve = Curve::new(shape, steps, &mut chance);
            let (every, gap) = (if seed % 2 == 0 { 10 } else { 25 }, chance.between(1.0, 1.3));
            let evaluation_noise = chance.between(0.005, 0.06);
            let mut fed = Fed::new();
            for step in 1..=steps {
                let now = curve.at(step, &mut chance);
                fed.point("loss", step, now.loss);
                fed.point("grad_norm", step, now.norm);
                fed.point("lr", step, now.rate);
                for rank in 0..2 {
                    fed.part("rank/grad_norm", rank, step, now.norm * chance.factor(0.2));
                }
                if step % every == 0 {
                    let norms: Vec<f64> =
                        (0..LAYERS).map(|layer| curve.norm_of(layer, now.common, &mut chance)).collect();
                    feed_layers(&mut fed, step, now.rate, &norms, &mut chance);
                }
                if step % 100 == 0 {
                    fed.point(
                        "eval/loss",
                        step,
                        now.smooth * gap + now.smooth.abs() * evaluation_noise * chance.normal(),
                    );
                    for layer in 0..LAYERS {
                        let zeros = (4096.0 * chance.between(0.4, 0.95)) as u64;
                        fed.zeros(&format!("activation/relu{layer}"), step, 4096, zeros);
                        fed.zeros(&format!("grad/{}", weight(layer)), step, 4096, 4000);
                    }
                }
            }
            cries.hear(&fed, &format!("{shape:?}"), seed);
        }
    }
    cries.none();
}

#[test]
fn memory_that_warms_up_saws_and_jumps() {
    let mut cries = Cries::default();
    for seed in 0..10 * SEEDS {
        let mut chance = Chance::new(seed);
        let kind = seed % 8;
        let (noise, base) = (chance.between(0.0, 20e6), chance.between(2e8, 4e9));
        let (grows, within) = (chance.between(2e7, 8e8), chance.between(30.0, 1200.0));
        let (tooth, period) = (chance.between(5e6, 3e8), chance.between(100.0, 1000.0));
        let jumps: Vec<(f64, f64)> =
            (0..=chance.below(3)).map(|_| (chance.between(0.0, 20_000.0), chance.between(1e7, 5e8))).collect();
        let (mut fed, mut wander) = (Fed::new(), 0.0);
        for step in (20..=20_000_u64).step_by(20) {
            let at = step as f64;
            let warm = match kind {
                0 | 7 => grows * (1.0 - (-at / within).exp()),
                1 => grows * (at / within).min(1.0),
                2 => grows * (1.0 - (-(at / within).sqrt()).exp()),
                _ => 0.0,
            };
            let saw = if matches!(kind, 3 | 7) { tooth * (at % period) / period } else { 0.0 };
            let jumped: f64 = jumps.iter().filter(|jump| matches!(kind, 4 | 7) && at > jump.0).map(|jump| jump.1).sum();
            // A baseline that wanders and comes back.
            wander = 0.97 * wander + if kind == 5 { 4e6 * chance.normal() } else { 0.0 };
            let peak = if kind == 6 && step % 400 == 0 { 3e8 } else { 0.0 };
            let bytes = base + warm + saw + jumped + wander + peak + noise * chance.normal();
            fed.part("process/rss_bytes", 0, step, bytes);
            fed.part("device/allocated_bytes", 0, step, bytes);
            fed.part("device/reserved_bytes", 0, step, 1.3 * base + warm + jumped + 1.3 * tooth);
            if step % 500 == 0 {
                fed.point("eval/loss", step, 1.0);
            }
        }
        cries.hear(&fed, &format!("memory {kind}"), seed);
    }
    cries.none();
}

#[test]
fn paces_with_noise_stalls_and_moderate_imbalance() {
    let mut cries = Cries::default();
    for seed in 0..4 * SEEDS {
        let mut chance = Chance::new(seed);
        let processes = [1, 2, 3, 4][seed as usize % 4];
        let mut fed = Fed::new();
        let uneven: Vec<f64> = (0..processes).map(|_| chance.between(1.0, 1.12)).collect();
        // Up to a quarter of the step.
        let data = chance.between(1.0, 9.5);
        for step in 1..=800 {
            for process in 0..processes {
                // The first steps compile; a neighbour is busy for a moment; later ones are evaluations' too.
                let start = if step < 20 { 10.0 * f64::from(process + 1) } else { 1.0 };
                let busy = if process == 1 && (300..330).contains(&step) { 2.0 } else { 1.0 };
                let work = uneven[process as usize] * start * busy;
                feed_phases(&mut fed, step, process, data, work, &mut chance);
            }
        }
        cries.hear(&fed, "paces", seed);
    }
    cries.none();
}

#[test]
fn devices_at_their_power_limit() {
    let mut cries = Cries::default();
    for seed in 0..SEEDS {
        let mut chance = Chance::new(seed);
        let mut fed = Fed::new();
        for step in 1..=600 {
            let flicker = if chance.even() < 0.3 { 0x20 } else { 0 };
            fed.part("device/throttle_reasons", 0, step, f64::from(0x4 | flicker));
            fed.part("device/sm_clock_mhz", 0, step, if step < 10 { 300.0 } else { 1700.0 + 15.0 * chance.normal() });
            fed.part("device/utilisation", 0, step, 0.97);
        }
        cries.hear(&fed, "devices", seed);
    }
    cries.none();
}
