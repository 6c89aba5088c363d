//! How many points a second a coordinator takes, with durable acknowledgement, and how fast a long series is drawn.

use std::io::Write;
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::time::Instant;

use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{Assignment, EncodedBlock, ReportBlock, Series};

use crate::agent::Agent;
use crate::coordinator::{Coordinator, Job, submit};
use crate::failure::{Failure, PATIENCE};
use crate::words::point;

/// Points of each series in one report, as a process that makes a few hundred steps a second would gather in its quarter of a
/// second.
const TOGETHER: u64 = 64;
/// Reports of a process that may wait for their acknowledgement.
const OPEN: u64 = 16;
/// Queries that are timed.
const QUERIES: usize = 21;
/// Pixels that the long series is drawn on.
const PIXELS: usize = 2000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// The program `coord`.
    coord: PathBuf,
    /// Points to send; the longest series gets a tenth of them, at most a million.
    #[arg(long, default_value_t = 4_000_000)]
    points: u64,
    #[arg(long, default_value_t = 2)]
    processes: u32,
    /// Series of each process.
    #[arg(long, default_value_t = 150)]
    series: u64,
}

/// Prints a line of JSON: points a second acknowledged, how long until all could be read back, the coordinator's largest memory,
/// and the times of a query of the longest series.
pub(crate) async fn measure(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let coordinator = Coordinator::start(&arguments.coord, &dir.path().join("data"))?;
    let peak = coordinator.watch_memory();
    let mut agent = Agent::attach(&coordinator.address, arguments.processes).await?;
    let job = Job { name: "ingest", ranks: arguments.processes, steps: 1_000_000, lr: 0.1 };
    let run = submit(&arguments.coord, &coordinator.address, dir.path(), &job)?;
    let assigned = agent.assigned(arguments.processes as usize).await?;
    for assignment in &assigned {
        agent.ready(assignment).await?;
    }

    // Small at first: what the coordinator needs beside the points is no matter of theirs.
    let before = peak.load(Ordering::Relaxed);
    let begin = Instant::now();
    let sent = send(arguments, &mut agent, &assigned).await?;
    let acknowledged = begin.elapsed();
    let name = format!("points/{:03}", 0);
    let last = sent.steps;
    while coordinator.last_step(&run, &name)? < last {
        if begin.elapsed() > acknowledged + PATIENCE {
            return Err("what was acknowledged cannot be read".into());
        }
        agent.wait().await?;
    }
    let readable = begin.elapsed();

    let long = grow_long_series(arguments, &mut agent, &assigned[0], sent.sequence).await?;
    while coordinator.last_step(&run, "long")? < long {
        agent.wait().await?;
    }
    let mut times = Vec::new();
    for _ in 0..QUERIES {
        let begin = Instant::now();
        let answer = coordinator.get(&format!("/api/runs/{run}/points?name=long&pixels={PIXELS}"))?;
        times.push(begin.elapsed().as_secs_f64() * 1e3);
        if !answer.contains("\"exact\":false") {
            return Err("the long series is not drawn from its levels".into());
        }
    }
    times.sort_by(f64::total_cmp);
    let result = serde_json::json!({
        "points": sent.points,
        "points_per_second": sent.points as f64 / acknowledged.as_secs_f64(),
        "readable_per_second": sent.points as f64 / readable.as_secs_f64(),
        "memory_before_mb": before >> 20,
        "memory_peak_mb": peak.load(Ordering::Relaxed) >> 20,
        "long_series_points": long,
        "query_ms": { "median": times[QUERIES / 2], "min": times[0], "max": times[QUERIES - 1] },
    });
    writeln!(std::io::stdout(), "{result}")?;
    Ok(())
}

struct Sent {
    points: u64,
    /// The last step of each series.
    steps: u64,
    /// The last report of each process.
    sequence: u64,
}

/// Every process reports all its series, [`OPEN`] reports ahead of what is acknowledged.
async fn send(arguments: &Arguments, agent: &mut Agent, assigned: &[Assignment]) -> Result<Sent, Failure> {
    let each = TOGETHER * arguments.series;
    let reports = arguments.points.div_ceil(each * u64::from(arguments.processes));
    for report in 0..reports {
        for assignment in assigned {
            let series = (0..arguments.series).map(|series| {
                let key = SeriesKey::part(format!("points/{series:03}"), assignment.process);
                Series::of_points(&key, &points(report * TOGETHER, series))
            });
            let block = ReportBlock { process: assignment.process, series: series.collect(), ..ReportBlock::default() };
            // The first said that it is ready.
            agent.say(assignment, report + 2, Said::Block(EncodedBlock::of(block))).await?;
        }
        agent.acknowledged_to(assigned, (report + 2).saturating_sub(OPEN)).await?;
    }
    agent.acknowledged_to(assigned, reports + 1).await?;
    Ok(Sent {
        points: reports * each * u64::from(arguments.processes),
        steps: reports * TOGETHER,
        sequence: reports + 1,
    })
}

/// One series with many points, for the query; its last step.
async fn grow_long_series(
    arguments: &Arguments,
    agent: &mut Agent,
    assignment: &Assignment,
    mut sequence: u64,
) -> Result<u64, Failure> {
    const BLOCK: u64 = 10_000;
    let blocks = (arguments.points / 10).clamp(BLOCK, 1_000_000) / BLOCK;
    for block in 0..blocks {
        sequence += 1;
        let points: Vec<Point> = (block * BLOCK..(block + 1) * BLOCK).map(|step| point(step, 7)).collect();
        let series = vec![Series::of_points(&SeriesKey::whole("long"), &points)];
        let block = ReportBlock { process: assignment.process, series, ..ReportBlock::default() };
        agent.say(assignment, sequence, Said::Block(EncodedBlock::of(block))).await?;
        agent.acknowledged_to(std::slice::from_ref(assignment), sequence.saturating_sub(OPEN)).await?;
    }
    Ok(blocks * BLOCK)
}

fn points(after: u64, series: u64) -> Vec<Point> {
    (after..after + TOGETHER).map(|step| point(step, series)).collect()
}
