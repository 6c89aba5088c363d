//! The commands that only look: `ps`, `show`, `nodes`, `checkpoints`, `logs`, `config`.

use lockstep_coordinator::documents::{self, DocumentError};
use lockstep_coordinator::{mismatch, saves};
use lockstep_core::state::Fence;
use lockstep_core::view::{CheckpointView, NodeView, Number, RunRow, RunView};
use lockstep_rpc::query_request::What;
use lockstep_rpc::tracked_query::What as Tracked;
use lockstep_rpc::{Empty, LogsRequest, ReportsRequest};
use lockstep_tracking::Alarm;
use serde_json::Value;

use crate::args::{CheckpointsArguments, LogsArguments, ManifestArguments, PsArguments, Reader, ShowArguments};
use crate::connection::client::Client;
use crate::evidence::diff::unlike_checkpoint;
use crate::terminal::error::Failure;
use crate::terminal::exit::Exit;
use crate::terminal::output::{Output, table};
use crate::terminal::time::{ago, lasted};
use crate::watch::metrics::Metrics;
use crate::watch::plot::ask;
use crate::watch::select::{Known, Selection};

pub(crate) async fn ps(arguments: PsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let PsArguments { commit, data, conditions, reader } = arguments;
    let client = Client::connect(&reader.address.addr).await?;
    let mut text = client.query(What::Runs(Empty {})).await?;
    let selection = Selection { commit, data, conditions };
    if !selection.is_empty() {
        let (mut rows, mut known) = (Vec::new(), Known::default());
        let all = documents::decode_rows(&text).map_err(|error| unreadable(&error))?;
        let any = !all.is_empty();
        for row in all {
            let view = client.query(What::Run(row.id.to_string())).await?;
            if selection.takes(&documents::decode_run(&view).map_err(|error| unreadable(&error))?, &mut known) {
                rows.push(row);
            }
        }
        if let Some(unknown) = selection.unknown(&known).filter(|_| any) {
            return Err(Failure::new(Exit::NotFound, unknown));
        }
        text = documents::encode_rows(&rows);
    }
    if reader.json {
        return print_json(&text, out);
    }
    let rows: Vec<Vec<String>> =
        documents::decode_rows(&text).map_err(|error| unreadable(&error))?.iter().map(run_row).collect();
    print(&["RUN", "NAME", "STATUS", "STEP", "LOSS", "SAMPLES/S", "PROCESSES", "AGE", "ALARMS", "REASON"], &rows, out);
    Ok(Exit::Done)
}

pub(crate) async fn nodes(arguments: Reader, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let text = client.query(What::Nodes(Empty {})).await?;
    if arguments.json {
        return print_json(&text, out);
    }
    let nodes: Vec<NodeView> = documents::decode(&text).map_err(|error| unreadable(&error))?;
    let mut rows = Vec::new();
    for node in nodes {
        for device in &node.devices {
            let busy = match (&device.run, device.process) {
                (Some(run), Some(process)) => format!("{run} process {process}"),
                _ => "free".to_owned(),
            };
            let busy = device.fenced.as_ref().map_or(busy, fenced);
            rows.push(vec![
                node.id.to_string(),
                node.state.clone(),
                node.host.clone(),
                device.name.clone(),
                device.model.clone(),
                busy,
                ago(node.changed_at_ms),
            ]);
        }
        if node.devices.is_empty() {
            let none = "-".to_owned();
            let row = [node.id.to_string(), node.state.clone(), node.host.clone(), none.clone(), none.clone(), none];
            rows.push(row.into_iter().chain([ago(node.changed_at_ms)]).collect());
        }
    }
    print(&["NODE", "STATE", "HOST", "DEVICE", "MODEL", "RUNS", "SINCE"], &rows, out);
    Ok(Exit::Done)
}

pub(crate) async fn checkpoints(arguments: CheckpointsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let text = client.query(What::Checkpoints(arguments.run.unwrap_or_default())).await?;
    if arguments.reader.json {
        return print_json(&text, out);
    }
    let views: Vec<CheckpointView> = documents::decode(&text).map_err(|error| unreadable(&error))?;
    print_checkpoints(&views, out);
    Ok(Exit::Done)
}

pub(crate) async fn show(arguments: ShowArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    if arguments.metrics {
        let metrics = reports(&mut client, arguments.run).await?;
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
    let view = documents::decode_run(&text).map_err(|error| unreadable(&error))?;
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

/// `coord manifest`.
pub(crate) async fn manifest(arguments: ManifestArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    out.line(&client.query(What::Manifest(arguments.checkpoint)).await?);
    Ok(Exit::Done)
}

/// All reports of `run`.
pub(crate) async fn reports(client: &mut Client, run: String) -> Result<Metrics, Failure> {
    let mut metrics = Metrics::default();
    let stream = client.control().reports(ReportsRequest { run, follow: false }).await;
    let mut stream = stream.map_err(|status| client.failure(status))?.into_inner();
    while let Some(block) = stream.message().await.map_err(|status| client.failure(status))? {
        metrics.push(block);
    }
    Ok(metrics)
}

pub(crate) async fn logs(arguments: LogsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.address.addr).await?;
    let request = LogsRequest { run: arguments.run, process: arguments.process, follow: arguments.follow };
    let stream = client.control().logs(request).await;
    let mut stream = stream.map_err(|status| client.failure(status))?.into_inner();
    let mut lines = Lines::new(arguments.process.is_none());
    while let Some(chunk) = stream.message().await.map_err(|status| client.failure(status))? {
        out.raw(&lines.push(chunk.process, &chunk.text));
        if out.closed() {
            return Ok(Exit::Done);
        }
    }
    out.raw(&lines.finish());
    Ok(Exit::Done)
}

/// Cuts the output of several processes at line ends, so that their lines do not mix, and names the process.
struct Lines {
    named: bool,
    open: std::collections::BTreeMap<u32, Vec<u8>>,
}

impl Lines {
    fn new(named: bool) -> Self {
        Self { named, open: std::collections::BTreeMap::new() }
    }

    /// Takes in `text` of `process`; what can be printed now.
    fn push(&mut self, process: u32, text: &[u8]) -> Vec<u8> {
        if !self.named {
            return text.to_vec();
        }
        let open = self.open.entry(process).or_default();
        open.extend_from_slice(text);
        let Some(end) = open.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
        let rest = open.split_off(end + 1);
        let whole = std::mem::replace(open, rest);
        name_lines(process, &whole)
    }

    /// Lines that were never ended.
    fn finish(self) -> Vec<u8> {
        let rest = self.open.into_iter().filter(|(_, text)| !text.is_empty());
        rest.flat_map(|(process, text)| name_lines(process, &[text.as_slice(), b"\n"].concat())).collect()
    }
}

fn name_lines(process: u32, text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.flat_map(|line| [format!("[{process}] ").as_bytes(), line].concat()).collect()
}

/// What a run runs on, then what is known to change its bits.
fn print_environment(view: &RunView, out: &mut Output) {
    for (kind, map) in [("environment", &view.environment), ("numerics", &view.numerics)] {
        for (key, value) in map {
            out.line(&format!("{kind}.{key}  {}", value.replace('\n', "\n    ")));
        }
    }
}

/// What stands against a run, the newest last.
async fn print_alarms(client: &Client, view: &RunView, out: &mut Output) -> Result<(), Failure> {
    let text = ask(client, view.row.id.as_str(), Tracked::Alarms(Empty {})).await?;
    let alarms: Vec<Alarm> = documents::decode(&text).map_err(|error| unreadable(&error))?;
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
        line("trained for", lasted(std::time::Duration::from_millis(end.saturating_sub(start))));
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
        let how = exit.ending.as_ref().map_or_else(|| format!("ended with {}", exit.code), ToString::to_string);
        line(
            "last ending",
            format!("process {} of generation {} on {} {how}", exit.process, exit.generation, exit.node),
        );
        let since = format!("{} crashed, {} gave up for a reason that may pass", view.crashes, view.transients);
        line("retries", format!("since the last checkpoint: {since}"));
        for text in exit.output.lines().rev().take(10).collect::<Vec<_>>().into_iter().rev() {
            line("", text.to_owned());
        }
    }
    if !view.placement.is_empty() {
        out.line("");
        let rows: Vec<Vec<String>> = view
            .placement
            .iter()
            .map(|p| vec![p.process.to_string(), p.node.to_string(), p.device.clone(), p.phase.clone()])
            .collect();
        print(&["PROCESS", "NODE", "DEVICE", "PHASE"], &rows, out);
    }
    if !view.checkpoints.is_empty() {
        out.line("");
        print_checkpoints(&view.checkpoints, out);
    }
    for corruption in &view.corruptions {
        out.line(&mismatch::words(corruption));
    }
    for line in saves::listed(view) {
        out.line(&line);
    }
}

/// What a list of devices says of a fenced one.
fn fenced(fence: &Fence) -> String {
    match &fence.wrong {
        Some((run, step)) => format!("fenced: wrong at step {step} of {run}"),
        None => "fenced by hand".to_owned(),
    }
}

fn print_checkpoints(views: &[CheckpointView], out: &mut Output) {
    let rows: Vec<Vec<String>> = views
        .iter()
        .map(|view| {
            vec![
                view.id.short(),
                view.run.to_string(),
                view.name.clone(),
                view.step.to_string(),
                view.epoch.to_string(),
                view.state_digest.short(),
                ago(view.committed_at_ms),
            ]
        })
        .collect();
    print(&["CHECKPOINT", "RUN", "NAME", "STEP", "EPOCH", "STATE", "AGE"], &rows, out);
}

fn run_row(row: &RunRow) -> Vec<String> {
    vec![
        row.id.to_string(),
        row.name.clone(),
        row.status.clone(),
        format!("{}/{}", row.step, row.steps),
        number(row.loss.as_ref()),
        row.samples_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
        row.processes.to_string(),
        ago(row.created_at_ms),
        alarm_count(row),
        reason(row),
    ]
}

/// Why it waits or has failed, or that its checkpoints fail: a line.
pub(crate) fn reason(row: &RunRow) -> String {
    let reason = row.reason.clone().or_else(|| row.checkpoint_failed.as_ref().map(saves::words));
    reason.unwrap_or_default().lines().next().unwrap_or_default().to_owned()
}

/// How many alarms stand, if any.
pub(crate) fn alarm_count(row: &RunRow) -> String {
    row.alarms.filter(|count| *count > 0).map_or_else(|| "-".to_owned(), |count| count.to_string())
}

/// A number for people.
pub(crate) fn number(number: Option<&Number>) -> String {
    match number {
        None => "-".to_owned(),
        Some(Number { value: None, .. }) => "not finite".to_owned(),
        Some(Number { value: Some(value), .. }) if *value != 0.0 && value.abs() < 1e-3 => format!("{value:.3e}"),
        Some(Number { value: Some(value), .. }) => format!("{value:.4}"),
    }
}

fn print(head: &[&str], rows: &[Vec<String>], out: &mut Output) {
    for line in table(head, rows) {
        out.line(&line);
    }
}

pub(crate) fn print_json(text: &str, out: &mut Output) -> Result<Exit, Failure> {
    let value: Value = documents::decode(text).map_err(|error| unreadable(&error))?;
    out.json(&value);
    Ok(Exit::Done)
}

/// Another version's answer.
pub(crate) fn unreadable(error: &DocumentError) -> Failure {
    Failure::caused(Exit::Unreachable, error).hint("coordinator and `coord` must be of the same version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_processes_do_not_mix_and_carry_their_number() {
        let mut lines = Lines::new(true);
        assert_eq!(lines.push(0, b"he"), b"");
        assert_eq!(lines.push(1, b"one\ntwo\nth"), b"[1] one\n[1] two\n");
        assert_eq!(lines.push(0, b"llo\n"), b"[0] hello\n");
        assert_eq!(lines.finish(), b"[1] th\n");
        assert_eq!(Lines::new(false).push(3, b"raw"), b"raw");
    }
}
