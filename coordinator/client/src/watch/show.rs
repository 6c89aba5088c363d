//! `coord show`: the state, placement, progress and checkpoints of a run.

use std::time::Duration;

use lockstep_coordinator::query::words;
use lockstep_core::view::RunView;
use lockstep_rpc::Empty;
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as Tracked;
use lockstep_tracking::Alarm;

use crate::args::ShowArguments;
use crate::checkpoints::list::print_checkpoints;
use crate::connection::{Client, print_json, read, read_run};
use crate::evidence::diff::unlike_checkpoint;
use crate::terminal::{Exit, Failure, Output, ago, lasted};
use crate::watch::metrics::Metrics;
use crate::watch::row::number;

pub(crate) async fn show(arguments: ShowArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    if arguments.metrics {
        let metrics = Metrics::of(&mut client, arguments.run).await?;
        if arguments.reader.json {
            out.json(&metrics);
        } else {
            metrics.print(out);
        }
        return Ok(Exit::Done);
    }
    let text = client.query(What::Run(arguments.run)).await?;
    if arguments.reader.json {
        return print_json(&text, out);
    }
    let view = read_run(&text)?;
    if arguments.environment {
        print_environment(&view, out);
    } else {
        print_run(&view, out);
        if view.row.alarms != Some(0) {
            print_alarms(&client, &view, out).await?;
        }
        for unlike in unlike_checkpoint(&client, &view).await? {
            Output::note(&unlike.note());
        }
    }
    Ok(Exit::Done)
}

fn print_run(view: &RunView, out: &mut Output) {
    let row = &view.row;
    let mut line = |key: &str, value: String| out.line(&format!("{key:<14}{value}"));
    line("run", format!("{} ({})", row.id, row.name));
    let reason = row.reason.as_deref().map_or_else(String::new, |reason| format!(": {reason}"));
    line("status", format!("{}{reason}", row.status));
    line("step", format!("{} of {}", row.step, row.steps));
    line("loss", number(row.loss.as_ref()));
    line("grad norm", number(row.grad_norm.as_ref()));
    line("samples/s", row.samples_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")));
    line("created", ago(row.created_at_ms));
    if let (Some(start), Some(end)) = (row.started_at_ms, row.ended_at_ms) {
        line("trained for", lasted(Duration::from_millis(end.saturating_sub(start))));
    }
    if let Some(digest) = row.final_state_digest {
        line("final state", digest.to_string());
    }
    if let Some(parent) = row.parent {
        line("resumed from", parent.to_string());
    }
    for one in &row.overrides {
        line("accepted", one.to_string());
    }
    if let Some(of) = &row.replay_of {
        line("replay of", of.to_string());
    }
    line("job", view.job_digest.to_string());
    if let Some(code) = &view.code {
        let branch = code.branch.as_deref().map_or_else(String::new, |branch| format!(" ({branch})"));
        line("code", format!("{}{branch}{}", code.commit, if code.dirty { ", with uncommitted changes" } else { "" }));
    }
    for file in &view.data {
        let what = if file.is_directory() { "directory".to_owned() } else { format!("{} bytes", file.bytes) };
        line("data", format!("{} ({what}, {})", file.path, file.digest.short()));
    }
    line("generation", format!("{} ({} restarts), {} ranks", row.generation, view.restarts, row.ranks));
    if let Some(exit) = &view.last_exit {
        let how = exit.ending.as_ref().map_or_else(|| format!("ended with code {}", exit.code), ToString::to_string);
        line(
            "last ending",
            format!("process {} of generation {} on {} {how}", exit.process, exit.generation, exit.node),
        );
        let since = format!("crashes: {}, transient failures: {}", view.crashes, view.transients);
        line("retries", format!("{since} (since the last checkpoint)"));
        for text in exit.output.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev() {
            line("", text.to_owned());
        }
    }
    if !view.placement.is_empty() {
        out.line("");
        let rows: Vec<Vec<String>> = view
            .placement
            .iter()
            .map(|p| vec![p.process.to_string(), p.node.to_string(), p.device.clone(), p.phase.to_string()])
            .collect();
        out.table(&["PROCESS", "NODE", "DEVICE", "PHASE"], &rows);
    }
    if !view.checkpoints.is_empty() {
        out.line("");
        print_checkpoints(&view.checkpoints, out);
    }
    for corruption in &view.corruptions {
        out.line(&words::corruption(corruption));
    }
    for line in words::failed_checkpoints(view) {
        out.line(&line);
    }
}

/// Prints the environment of a run, then the settings that are known to change its bits.
fn print_environment(view: &RunView, out: &mut Output) {
    for (kind, map) in [("environment", &view.environment), ("numerics", &view.numerics)] {
        for (key, value) in map {
            out.line(&format!("{kind}.{key}  {}", value.replace('\n', "\n    ")));
        }
    }
}

/// Prints the active alarms of a run, the newest last.
async fn print_alarms(client: &Client, view: &RunView, out: &mut Output) -> Result<(), Failure> {
    let text = client.tracked(view.row.id.as_str(), Tracked::Alarms(Empty {})).await?;
    let alarms: Vec<Alarm> = read(&text)?;
    for alarm in alarms.iter().filter(|alarm| alarm.until_step.is_none()) {
        let place = alarm.place.as_deref().map_or_else(String::new, |place| format!(" ({place})"));
        out.line("");
        out.line(&format!("alarm since step {}: {}{place}", alarm.since_step, alarm.title));
        out.line(&format!("  {}", alarm.what));
        for hint in &alarm.try_ {
            out.line(&format!("  try: {hint}"));
        }
    }
    Ok(())
}
