//! What a coordinator bears: starts the `coord` that it is given, and speaks to it as the agents of nodes whose processes it plays.
//!
//! ```text
//! ingest rate COORD [--points N] [--processes P] [--series S]
//! ingest crowd COORD [--runs N] [--series S] [--points N] [--long N]
//! ingest flood COORD [--seconds N] [--only NAME]
//! ingest cost COORD [--processes N,..] [--manifests PROCESSES:BYTES,..] [--dir DIR]
//! ingest ended COORD [--runs N] [--dir DIR]
//! ```

mod agent;
mod control;
mod coordinator;
mod cost;
mod crew;
mod crowd;
mod desires;
mod ended;
mod flood;
mod rate;
mod words;

use std::time::Duration;

use clap::Parser;
use lockstep_common::series::Point;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For all that has to happen at all.
const PATIENCE: Duration = Duration::from_mins(2);

#[derive(Parser)]
enum Command {
    /// Measures how many points a second it takes, and how fast a long series is drawn.
    Rate(rate::Arguments),
    /// Fills it with runs, and lets one go on until standard input ends: for whoever measures its page.
    Crowd(crowd::Arguments),
    /// Floods it with clients that take all they can get, and measures its memory and how long others wait.
    Flood(flood::Arguments),
    /// Measures what a placement and a report cost it, by processes.
    Cost(cost::Arguments),
    /// Ends many runs, and measures its memory, its start and its answers.
    Ended(ended::Arguments),
}

fn main() -> Result<(), Failure> {
    let command = Command::parse();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        match &command {
            Command::Rate(arguments) => rate::measure(arguments).await,
            Command::Crowd(arguments) => crowd::stand(arguments).await,
            Command::Flood(arguments) => flood::measure(arguments).await,
            Command::Cost(arguments) => cost::measure(arguments).await,
            Command::Ended(arguments) => ended::measure(arguments).await,
        }
    })
}

/// A falling, noisy curve.
fn point(step: u64, series: u64) -> Point {
    let noise = (step.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ series) >> 40;
    let value = 2.0 / (1.0 + step as f64 * 1e-4) + noise as f64 * 1e-9;
    Point { step: step + 1, at_ms: 1_795_000_000_000 + step * 4, value }
}
