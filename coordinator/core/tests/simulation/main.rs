//! Seeded, single-threaded simulation of three replicas with clients that repeat their commands. Messages are lost, duplicated and
//! reordered, the network is partitioned, and crashes lose data that was not durable. It runs the same `Replica` as production.
//!
//! `LOCKSTEP_SIM_SEEDS=1000` runs more seeds. A failing seed is printed with the command that repeats it.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod blobs;
mod clients;
mod disk;
mod invariants;
mod network;
mod random;
mod world;

use world::{Faults, World};

/// Number of seeds without `LOCKSTEP_SIM_SEEDS`; they take a few seconds.
const SEEDS: u64 = 25;

/// Number of simulated ticks with faults.
const STORMY: u64 = 1200;
/// Number of simulated ticks without faults, afterwards.
const CALM: u64 = 300;

/// Prints the command that repeats the simulation, if it panics.
struct Repeat(u64);

impl Drop for Repeat {
    #[expect(clippy::print_stderr, reason = "beside the panic's own message")]
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!(
                "seed {0} failed; repeat it with: LOCKSTEP_SIM_SEED={0} cargo test --release -p lockstep-core \
                 --test simulation invariants_hold",
                self.0
            );
        }
    }
}

fn from_environment(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

fn simulate(seed: u64, faults: Faults) -> World {
    let _repeat = Repeat(seed);
    let mut world = World::new(seed, faults);
    world.run(STORMY);
    world.heal();
    world.run(CALM);
    world.check_end();
    world
}

#[test]
fn invariants_hold_whatever_fails() {
    let one = from_environment("LOCKSTEP_SIM_SEED");
    let seeds = one.map_or(0..from_environment("LOCKSTEP_SIM_SEEDS").unwrap_or(SEEDS), |seed| seed..seed + 1);
    let mut seen = world::Seen::default();
    for seed in seeds {
        seen.add(&simulate(seed, Faults::STORM).seen);
    }
    if one.is_none() {
        // If nothing happened, the invariants would hold trivially.
        assert!(seen.leaders > 40 && seen.crashes > 40 && seen.snapshots > 5, "{seen:?}");
        assert!(seen.acknowledged > 1000 && seen.indeterminate > 5 && seen.repeated > 5, "{seen:?}");
        assert!(seen.commits > 40 && seen.rewinds > 40 && seen.fenced > 20, "{seen:?}");
    }
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let trace = |seed| simulate(seed, Faults::STORM).trace();
    assert_eq!(trace(3), trace(3));
    assert_ne!(trace(3), trace(4));
}

#[test]
fn without_faults_one_leader_serves_and_nothing_is_asked_twice() {
    let world = simulate(1, Faults::NONE);
    assert_eq!((world.seen.leaders, world.seen.indeterminate, world.seen.crashes), (1, 0, 0));
    assert!(world.seen.acknowledged > 500, "{:?}", world.seen);
}
