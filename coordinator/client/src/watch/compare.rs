//! `coord compare`: runs side by side, with their numbers and the differing keys of their jobs.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::state::StatusKind;
use lockstep_core::view::RunView;
use lockstep_rpc::tracked_query::What as Tracked;
use serde::Serialize;

use crate::args::CompareArguments;
use crate::connection::{Client, read};
use crate::evidence::diff::job;
use crate::terminal::{Exit, Failure, Output, table};
use crate::watch::plot::{Series, Summary, short};

/// The default series. A name that ends with `*` stands for all names with this beginning.
const USUAL: [&str; 5] = ["loss", "grad_norm", "eval/*", "throughput/*", "step_seconds"];

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    runs: Vec<Compared>,
    /// Keys of the job whose values differ, each with its values in the order of the runs.
    job: BTreeMap<String, Vec<Option<String>>>,
    series: Vec<Row>,
}

#[derive(Debug, Serialize)]
struct Compared {
    run: String,
    name: String,
    status: StatusKind,
    step: u64,
    commit: Option<String>,
    alarms: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Row {
    name: String,
    part: Option<u32>,
    /// In the order of the runs; `null` for a run without this series.
    runs: Vec<Option<Figures>>,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    last_step: u64,
    last: Option<f64>,
    min: Option<f64>,
    max: Option<f64>,
}

pub(crate) async fn compare(arguments: CompareArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let (mut views, mut all) = (Vec::new(), Vec::new());
    for run in &arguments.runs {
        views.push(client.run(run).await?);
        let text = client.tracked(run, Tracked::Series(0)).await?;
        let found: Series = read(&text)?;
        all.push(found.series);
    }
    let wanted: Vec<&str> = match arguments.series.as_slice() {
        [] => USUAL.to_vec(),
        named => named.iter().map(String::as_str).collect(),
    };
    let report =
        Report { runs: views.iter().map(compared).collect(), job: unlike(&views), series: rows(&all, &wanted) };
    if arguments.reader.json {
        out.json(&report);
        return Ok(Exit::Done);
    }
    for line in lines(&report) {
        out.line(&line);
    }
    Ok(Exit::Done)
}

fn compared(view: &RunView) -> Compared {
    let row = &view.row;
    Compared {
        run: row.id.to_string(),
        name: row.name.clone(),
        status: row.status,
        step: row.step,
        commit: view.code.as_ref().map(|code| code.commit.clone()),
        alarms: row.alarms,
    }
}

/// Keys of the jobs whose values differ.
fn unlike(views: &[RunView]) -> BTreeMap<String, Vec<Option<String>>> {
    let jobs: Vec<BTreeMap<String, String>> = views.iter().map(|view| job(&view.job)).collect();
    let keys: BTreeSet<&String> = jobs.iter().flat_map(BTreeMap::keys).collect();
    let values = |key: &String| jobs.iter().map(|job| job.get(key).cloned()).collect::<Vec<_>>();
    let all = keys.into_iter().map(|key| (key.clone(), values(key)));
    all.filter(|(_, values)| values.iter().any(|value| *value != values[0])).collect()
}

fn rows(all: &[Vec<Summary>], wanted: &[&str]) -> Vec<Row> {
    let meant = |name: &str| {
        wanted.iter().any(|one| match one.strip_suffix('*') {
            Some(beginning) => name.starts_with(beginning),
            None => name == *one,
        })
    };
    let mut by_series: BTreeMap<(String, Option<u32>), Vec<Option<Figures>>> = BTreeMap::new();
    for (place, series) in all.iter().enumerate() {
        for one in series.iter().filter(|one| meant(&one.name)) {
            let row = by_series.entry((one.name.clone(), one.part)).or_insert_with(|| vec![None; all.len()]);
            row[place] = Some(Figures { last_step: one.last_step, last: one.last, min: one.min, max: one.max });
        }
    }
    by_series.into_iter().map(|((name, part), runs)| Row { name, part, runs }).collect()
}

/// A table of the numbers, and a table of the differing keys of the jobs.
fn lines(report: &Report) -> Vec<String> {
    let heads = |first: &str| {
        let runs = report.runs.iter().map(|run| format!("{} ({})", run.run, run.name));
        [first.to_owned()].into_iter().chain(runs).collect::<Vec<_>>()
    };
    let figures = |one: &Option<Figures>| match one {
        Some(Figures { last, min, max, .. }) => {
            let number = |value: Option<f64>| value.map_or_else(|| "-".to_owned(), short);
            format!("{} ({} to {})", number(*last), number(*min), number(*max))
        }
        None => "-".to_owned(),
    };
    let mut rows = vec![
        line_of("status", report.runs.iter().map(|run| run.status.to_string())),
        line_of("step", report.runs.iter().map(|run| run.step.to_string())),
        line_of("alarms", report.runs.iter().map(|run| run.alarms.unwrap_or(0).to_string())),
        line_of("commit", report.runs.iter().map(|run| run.commit.clone().unwrap_or_else(|| "-".to_owned()))),
    ];
    for row in &report.series {
        let name = row.part.map_or_else(|| row.name.clone(), |part| format!("{}[{part}]", row.name));
        rows.push(line_of(&name, row.runs.iter().map(figures)));
    }
    let heads_of =
        |heads: &[String], rows: &[Vec<String>]| table(&heads.iter().map(String::as_str).collect::<Vec<_>>(), rows);
    let mut lines = heads_of(&heads("SERIES: LAST (MIN TO MAX)"), &rows);
    if !report.job.is_empty() {
        let value = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        let rows: Vec<_> = report.job.iter().map(|(key, values)| line_of(key, values.iter().map(value))).collect();
        lines.push(String::new());
        lines.extend(heads_of(&heads("JOB"), &rows));
    }
    lines
}

fn line_of(first: &str, rest: impl Iterator<Item = String>) -> Vec<String> {
    [first.to_owned()].into_iter().chain(rest).collect()
}
