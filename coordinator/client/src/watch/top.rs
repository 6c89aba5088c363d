//! `coord top`: the nodes, and the newest runs with their curves.

use std::io::IsTerminal as _;
use std::time::Duration;

use lockstep_coordinator::query::documents;
use lockstep_core::view::{NodeView, RunRow};
use lockstep_rpc::CurvesQuery;
use serde_json::{Value, json};

use crate::args::TopArguments;
use crate::connection::Client;
use crate::terminal::{Exit, Failure, Output, table};
use crate::watch::plot::{curves, sparkline};
use crate::watch::row::{alarm_count, number, reason};

/// Interval between two updates.
const EVERY: Duration = Duration::from_secs(1);
/// Most runs that are shown: active ones first, then those that ended last.
const RUNS: usize = 30;
/// Bars in the curve of the loss.
const BARS: u32 = 24;

pub(crate) async fn top(arguments: TopArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let live = !arguments.once && !arguments.reader.json && std::io::stdout().is_terminal();
    loop {
        let nodes = client.nodes().await?;
        let mut runs = client.recent_runs().await?;
        runs.reverse();
        // Active runs first; both kinds with the newest first.
        runs.sort_by_key(|run| run.ended_at_ms.is_some());
        runs.truncate(RUNS);
        let mut losses = Vec::new();
        for run in &runs {
            let wanted = CurvesQuery { names: vec!["loss".to_owned()], pixels: BARS / 2, ..CurvesQuery::default() };
            let found = curves(&client, run.id.as_str(), wanted).await?;
            losses.push(found.into_iter().next().unwrap_or_default().values);
        }
        if arguments.reader.json {
            let document = |run| serde_json::from_str::<Value>(&documents::encode_row(run)).unwrap_or_default();
            let rows = runs.iter().zip(&losses);
            let runs: Vec<_> = rows.map(|(run, loss)| json!({ "run": document(run), "loss": loss })).collect();
            out.json(&json!({ "nodes": nodes, "runs": runs }));
            return Ok(Exit::Done);
        }
        if live {
            // Moves the cursor to the upper left corner, and clears the screen below.
            out.bytes(b"\x1b[H\x1b[J");
        }
        for line in screen(&nodes, &runs, &losses) {
            out.line(&line);
        }
        if !live || out.closed() {
            return Ok(Exit::Done);
        }
        tokio::time::sleep(EVERY).await;
    }
}

fn screen(nodes: &[NodeView], runs: &[RunRow], losses: &[Vec<Option<f64>>]) -> Vec<String> {
    let alive: Vec<&NodeView> = nodes.iter().filter(|node| node.alive).collect();
    let devices = || alive.iter().flat_map(|node| &node.devices);
    let busy = devices().filter(|device| device.run.is_some()).count();
    let fenced = devices().filter(|device| device.fenced.is_some()).count();
    let mut lines = vec![format!(
        "nodes {} alive, {} not alive   devices {busy} busy, {} free, {fenced} fenced",
        alive.len(),
        nodes.len() - alive.len(),
        devices().count() - busy - fenced,
    )];
    lines.push(String::new());
    let row = |(run, loss): (&RunRow, &Vec<Option<f64>>)| {
        let share = (run.step * 100).checked_div(run.steps).unwrap_or(0);
        vec![
            run.id.to_string(),
            run.name.clone(),
            run.status.to_string(),
            format!("{}/{} {share}%", run.step, run.steps),
            number(run.loss.as_ref()),
            sparkline(loss),
            run.samples_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.0}")),
            run.processes.to_string(),
            alarm_count(run),
            reason(run),
        ]
    };
    let rows: Vec<Vec<String>> = runs.iter().zip(losses).map(row).collect();
    lines.extend(table(
        &["RUN", "NAME", "STATUS", "STEP", "LOSS", "", "SAMPLES/S", "PROCESSES", "ALARMS", "REASON"],
        &rows,
    ));
    lines
}
