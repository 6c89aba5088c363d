//! Load tests of a coordinator: starts the given `coord`, and connects to it as the agents of simulated nodes and processes.
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
mod failure;
mod flood;
mod rate;
mod words;

use clap::Parser;

use failure::Failure;

#[derive(Parser)]
enum Command {
    /// Measure how many points a second the coordinator accepts, and how fast it answers a query of a long series.
    Rate(rate::Arguments),
    /// Fill a coordinator with runs for measurements of its page; one run trains until standard input ends.
    Crowd(crowd::Arguments),
    /// Flood a coordinator with hostile clients; measure its memory and the waiting time of another client.
    Flood(flood::Arguments),
    /// Measure the cost of a placement and of a report, by number of processes.
    Cost(cost::Arguments),
    /// Let many runs end; measure the coordinator's memory, start and answers.
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
