//! Watching a run until it ends: one live line for a person at a terminal, plain lines at intervals otherwise.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use lockstep_common::job::JobSpec;
use lockstep_coordinator::query::words;
use lockstep_core::state::StatusKind;
use lockstep_core::view::{RunRow, RunView};
use lockstep_rpc::FollowRequest;
use tokio::time::Instant;

use crate::connection::{Client, Patience, lost, read_run};
use crate::terminal::{Exit, Failure, Output, clock};
use crate::watch::row::number;

/// Least time between two plain lines about a run whose status stays the same.
const LINE_INTERVAL: Duration = Duration::from_secs(2);

/// Watches `run` until it has ended, and returns its last state. A lost connection is opened again.
pub(crate) async fn follow(client: &mut Client, run: &str) -> Result<RunView, Failure> {
    let mut display = Display::new();
    let mut patience = Patience::default();
    let mut last: Option<RunView> = None;
    loop {
        let request = FollowRequest { run: run.to_owned() };
        let status = match client.control().follow(request).await {
            Err(status) => status,
            Ok(stream) => {
                let mut stream = stream.into_inner();
                loop {
                    match stream.message().await {
                        Ok(Some(reply)) => {
                            patience.reset();
                            let view = read_run(&reply.json)?;
                            display.show(&view);
                            last = Some(view);
                        }
                        Ok(None) => match last.take_if(|view| is_final(&view.row)) {
                            Some(view) => return Ok(view),
                            None => break tonic::Status::unavailable("the stream ended before the run"),
                        },
                        Err(status) => break status,
                    }
                }
            }
        };
        if !lost(&status) || !patience.more(client.address(), &status).await {
            return Err(client
                .failure(status)
                .hint(format!("look at run `{run}` with `coord show {run}`: it continues without this command")));
        }
    }
}

/// The lines for a run that has ended: status, step, final state, last checkpoint, failures.
pub(crate) fn summary(view: &RunView) -> Vec<String> {
    let row = &view.row;
    let reason = row.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    let mut lines = vec![format!("run {} ({}) {}{reason}", row.id, row.name, row.status)];
    let mut facts = vec![format!("step {} of {}", row.step, row.steps)];
    if let (Some(start), Some(end)) = (row.started_at_ms, row.ended_at_ms) {
        facts.push(format!("{:.1} s", end.saturating_sub(start) as f64 / 1e3));
    }
    if row.loss.is_some() {
        facts.push(format!("loss {}", number(row.loss.as_ref())));
    }
    if view.restarts > 0 {
        facts.push(format!("{} restarts", view.restarts));
    }
    lines.push(format!("  {}", facts.join(", ")));
    if let Some(digest) = row.final_state_digest {
        lines.push(format!("  final state      {digest}"));
    }
    if let Some(checkpoint) = view.checkpoints.last() {
        lines.push(format!("  last checkpoint  {} (step {})", checkpoint.id, checkpoint.step));
    }
    lines.extend(view.corruptions.iter().map(|found| format!("  {}", words::corruption(found))));
    lines.extend(words::failed_checkpoints(view).map(|line| format!("  {line}")));
    if row.status == StatusKind::Failed
        && let Some(exit) = &view.last_exit
    {
        lines.push(format!("  process {} on {} ended with code {}:", exit.process, exit.node, exit.code));
        lines.extend(exit.output.lines().map(|line| format!("    {line}")));
    }
    lines
}

/// The exit code of a command that followed the run to its end.
pub(crate) fn exit(row: &RunRow) -> Exit {
    match row.status {
        StatusKind::Finished => Exit::Done,
        StatusKind::Unsaved => Exit::Unsaved,
        _ => Exit::RunFailed,
    }
}

fn is_final(row: &RunRow) -> bool {
    row.status.is_final()
}

/// The display of a run that is followed, on standard error.
struct Display {
    bar: Option<ProgressBar>,
    said: Option<(String, Instant)>,
    batch: Option<u64>,
    /// Whether the job has a `[program]`, which a node may have to build first.
    builds: bool,
    /// Time of the last failed checkpoint that was shown, in milliseconds since the Unix epoch.
    failed_at_ms: Option<u64>,
}

impl Display {
    fn new() -> Self {
        let bar = Output::watched().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            // Everything up to the ETA fits into 80 columns.
            let style = ProgressStyle::with_template("{bar:6} {wide_msg}");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
            bar
        });
        Self { bar, said: None, batch: None, builds: false, failed_at_ms: None }
    }

    fn show(&mut self, view: &RunView) {
        let row = &view.row;
        if self.batch.is_none() {
            let job = JobSpec::from_canonical(view.job.as_bytes()).ok();
            self.builds = job.as_ref().is_some_and(|job| job.program.is_some());
            self.batch = job.map(|job| job.batch.size);
        }
        self.show_failures(view);
        let state = format!("{} {}", row.status, row.generation);
        let news = self.said.as_ref().is_none_or(|(said, _)| *said != state);
        if let Some(bar) = &self.bar {
            bar.set_length(row.steps);
            bar.set_position(row.step);
            bar.set_message(self.line(view));
            if is_final(row) {
                bar.finish_and_clear();
            }
        } else if news || self.said.as_ref().is_some_and(|(_, at)| at.elapsed() >= LINE_INTERVAL) {
            Output::note(&self.line(view));
        } else {
            return;
        }
        self.said = Some((state, Instant::now()));
    }

    /// Shows checkpoints that failed since the last call. The first call shows only a failure that no later checkpoint has ended.
    fn show_failures(&mut self, view: &RunView) {
        let standing = view.row.checkpoint_failed.as_ref().map_or(u64::MAX, |failed| failed.at_ms);
        let told = *self.failed_at_ms.get_or_insert(standing.saturating_sub(1));
        for failed in view.failed_checkpoints.iter().filter(|failed| failed.at_ms > told) {
            let say = || Output::note(&words::failed_checkpoint(failed));
            self.bar.as_ref().map_or_else(say, |bar| bar.suspend(say));
        }
        let last = view.failed_checkpoints.iter().map(|failed| failed.at_ms).max();
        self.failed_at_ms = Some(last.unwrap_or(0));
    }

    fn line(&self, view: &RunView) -> String {
        let row = &view.row;
        let mut parts = vec![format!("step {}/{}", row.step, row.steps)];
        if row.status != StatusKind::Running {
            let reason = row.reason.as_deref().map_or_else(String::new, |reason| format!(" ({reason})"));
            parts.insert(0, format!("{}{reason}", row.status));
        }
        if row.status == StatusKind::Starting && self.builds {
            parts.push(format!("nodes build the program if it is new to them: `coord logs {} --follow`", row.id));
        }
        if row.status == StatusKind::Running && row.step == row.steps && row.replay_of.is_none() {
            let fails = row.checkpoint_failed.is_some();
            let words = if fails {
                "retrying the last checkpoint until the store accepts it"
            } else {
                "saving the last checkpoint"
            };
            parts.push(words.to_owned());
        }
        if row.loss.is_some() {
            parts.push(format!("loss {}", number(row.loss.as_ref())));
        }
        if let Some(rate) = row.samples_per_second {
            let decimals = usize::from(rate < 100.0);
            parts.push(format!("{rate:.decimals$} samples/s"));
        }
        if row.grad_norm.is_some() {
            parts.push(format!("grad norm {}", number(row.grad_norm.as_ref())));
        }
        if let Some(left) = remaining(row, self.batch).filter(|_| row.status == StatusKind::Running) {
            parts.push(format!("ETA {}", clock(left)));
        }
        parts.join("  ")
    }
}

/// Time to the last step at the current rate. `None` without a rate.
fn remaining(row: &RunRow, batch: Option<u64>) -> Option<Duration> {
    let samples = row.steps.saturating_sub(row.step).checked_mul(batch?)?;
    Duration::try_from_secs_f64(samples as f64 / row.samples_per_second?).ok()
}
