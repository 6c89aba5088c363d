//! Points a second that a coordinator accepts with durable acknowledgement, and the time of a query of a long series.

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

/// Points of each series in one report: those of a process with a few hundred steps a second that reports four times a second.
const TOGETHER: u64 = 64;
/// Maximum number of unacknowledged reports of a process.
const OPEN: u64 = 16;
/// Number of timed queries.
const QUERIES: usize = 21;
/// Width of the query's drawing, in pixels.
const PIXELS: usize = 2000;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Path of the program `coord`.
    coord: PathBuf,
    /// Number of points to send; the long series gets a tenth as many, at most a million.
    #[arg(long, default_value_t = 4_000_000)]
    points: u64,
    #[arg(long, default_value_t = 2)]
    processes: u32,
    /// Number of series of each process.
    #[arg(long, default_value_t = 150)]
    series: u64,
}

/// Prints a line of JSON: points a second until all are acknowledged and until all can be read, the coordinator's maximum memory, and
/// the times of a query of the long series.
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

    // Memory without points, to compare the maximum with.
    let before = peak.load(Ordering::Relaxed);
    let begin = Instant::now();
    let sent = send(arguments, &mut agent, &assigned).await?;
    let acknowledged = begin.elapsed();
    let name = format!("points/{:03}", 0);
    let last = sent.steps;
    while coordinator.last_step(&run, &name)? < last {
        if begin.elapsed() > acknowledged + PATIENCE {
            return Err(format!("acknowledged points cannot be read within {PATIENCE:?}").into());
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
            return Err("the coordinator answered a query of the long series without its levels".into());
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
    /// Last step of each series.
    steps: u64,
    /// Sequence number of each process's last report.
    sequence: u64,
}

/// Lets every process report all its series, with at most [`OPEN`] unacknowledged reports.
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
            // Report 1 was `Ready`.
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

/// Reports the long series for the query, and returns its last step.
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
