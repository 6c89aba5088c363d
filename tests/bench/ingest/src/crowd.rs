//! A coordinator with many runs, of which all but one have ended.

use std::io::{Read, Write};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use lockstep_common::series::{Point, SeriesKey};
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{Assignment, EncodedBlock, Finished, ReportBlock, Series};

use crate::agent::Agent;
use crate::coordinator::{Coordinator, Job, submit};
use crate::failure::Failure;
use crate::words::point;
use crate::words::step_report;

/// Steps in each report.
const TOGETHER: u64 = 100;
/// Maximum number of unacknowledged reports of a run.
const OPEN: u64 = 4;
/// Interval between two steps of the live run.
const PACE: Duration = Duration::from_millis(100);
/// Number of series that the coordinator derives from each step.
const OWN: u64 = 4;

#[derive(clap::Args)]
pub(crate) struct Arguments {
    /// Path of the program `coord`.
    coord: PathBuf,
    #[arg(long, default_value_t = 500)]
    runs: u32,
    /// Number of series of each run.
    #[arg(long, default_value_t = 200)]
    series: u64,
    /// Number of points of each series.
    #[arg(long, default_value_t = 1000)]
    points: u64,
    /// Number of points of each series of the first run.
    #[arg(long, default_value_t = 100_000)]
    long: u64,
}

/// Fills a coordinator, and prints a line of JSON: address of the page, runs, number of points. Then the last run reports a step every
/// 100 ms until standard input ends.
pub(crate) async fn stand(arguments: &Arguments) -> Result<(), Failure> {
    let dir = tempfile::tempdir()?;
    let coordinator = Coordinator::start(&arguments.coord, &dir.path().join("data"))?;
    let mut agent = Agent::attach(&coordinator.address, arguments.runs).await?;
    let (coord, address, place) = (arguments.coord.clone(), coordinator.address.clone(), dir.path().to_owned());
    let steps: Vec<u64> = (0..arguments.runs).map(|index| arguments.steps(index)).collect();
    let submitting = tokio::task::spawn_blocking(move || {
        let one = |(index, &steps): (usize, &u64)| {
            let name = format!("sweep-{index:03}");
            submit(&coord, &address, &place, &Job { name: &name, ranks: 1, steps, lr: 1e-4 * (index + 1) as f64 })
        };
        steps.iter().enumerate().map(one).collect::<Result<Vec<String>, Failure>>()
    });
    let submitted = async { submitting.await? };
    let (mut assigned, runs) = tokio::try_join!(agent.assigned(arguments.runs as usize), submitted)?;
    assigned.sort_by_key(|assignment| runs.iter().position(|run| *run == assignment.run));

    let (mut points, mut last) = (0, 0);
    for (index, assignment) in (0..arguments.runs).zip(&assigned) {
        agent.ready(assignment).await?;
        let goes_on = index + 1 == arguments.runs;
        let steps = if goes_on { arguments.points } else { arguments.steps(index) };
        last = arguments.tell(&mut agent, assignment, 0..steps, 1).await?;
        if !goes_on {
            let state = vec![index as u8; 32];
            // A run without a committed last checkpoint does not become `finished`.
            agent.share(assignment, last + 1, steps).await?;
            agent.say(assignment, last + 2, Said::Finished(Finished { step: steps, state })).await?;
        }
        points += steps * arguments.series;
    }
    let (Some(first), Some(live)) = (runs.first(), runs.last()) else {
        return Err("`--runs` must be at least 1".into());
    };
    while coordinator.last_step(live, "loss")? < arguments.points {
        agent.wait().await?;
    }
    let told = serde_json::json!({
        "page": format!("http://{}", coordinator.page), "runs": runs, "long": first, "live": live, "points": points,
    });
    writeln!(std::io::stdout(), "{told}")?;

    let ended = Arc::new(AtomicBool::new(false));
    let seen = Arc::clone(&ended);
    std::thread::spawn(move || {
        // An error of standard input counts as its end.
        let _ = std::io::stdin().read_to_end(&mut Vec::new());
        seen.store(true, Ordering::Relaxed);
    });
    let mut step = arguments.points;
    while !ended.load(Ordering::Relaxed) {
        last = arguments.tell(&mut agent, &assigned[assigned.len() - 1], step..step + 1, last).await?;
        step += 1;
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

impl Arguments {
    /// Number of steps in the job of the run at `index`.
    fn steps(&self, index: u32) -> u64 {
        match index {
            0 => self.long,
            _ if index + 1 == self.runs => 100_000_000,
            _ => self.points,
        }
    }

    /// Reports `steps` of one run, in reports that are numbered from `sequence` + 1, and waits until all are acknowledged. Returns the last
    /// number.
    async fn tell(
        &self,
        agent: &mut Agent,
        of: &Assignment,
        steps: std::ops::Range<u64>,
        mut sequence: u64,
    ) -> Result<u64, Failure> {
        for from in steps.clone().step_by(TOGETHER as usize) {
            let report = from..(from + TOGETHER).min(steps.end);
            let of_series = |series: u64| {
                let name = format!("grad_norm/layers.{series:03}.weight");
                let points: Vec<Point> = report.clone().map(|step| point(step, series)).collect();
                Series::of_points(&SeriesKey::whole(name), &points)
            };
            sequence += 1;
            let block = ReportBlock {
                process: of.process,
                steps: report.clone().map(step_report).collect(),
                series: (OWN..self.series).map(of_series).collect(),
                ..ReportBlock::default()
            };
            agent.say(of, sequence, Said::Block(EncodedBlock::of(block))).await?;
            agent.acknowledged_to(std::slice::from_ref(of), sequence.saturating_sub(OPEN)).await?;
        }
        agent.acknowledged_to(std::slice::from_ref(of), sequence).await?;
        Ok(sequence)
    }
}
