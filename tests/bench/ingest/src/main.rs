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
mod failure;
mod flood;
mod rate;
mod words;

use clap::Parser;

use failure::Failure;

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
