//! `coord ps`.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_coordinator::query::documents;
use lockstep_coordinator::query::page::MOST_ROWS;
use lockstep_core::view::RunRow;

use crate::args::PsArguments;
use crate::connection::{Client, print_json};
use crate::terminal::{Exit, Failure, Output, ago};
use crate::watch::row::{alarm_count, number, reason};
use crate::watch::select::{Known, Selection};

/// Default number of runs in the table, beside active ones.
const SHOWN: usize = 100;

pub(crate) async fn ps(arguments: PsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let PsArguments { commit, data, conditions, limit, all, reader } = arguments;
    let most = match limit {
        Some(limit) => limit as usize,
        None if all || reader.json => usize::MAX,
        None => SHOWN,
    };
    let client = Client::connect(&reader.address.addr).await?;
    let selection = Selection { commit, data, conditions };
    let (rows, left) = if selection.is_empty() {
        client.newest_runs(most).await?
    } else {
        selected(&client, &selection, most).await?
    };
    if reader.json {
        return print_json(&documents::encode_rows(&rows), out);
    }
    let table: Vec<Vec<String>> = rows.iter().map(run_row).collect();
    out.table(&["RUN", "NAME", "STATUS", "STEP", "LOSS", "SAMPLES/S", "PROCESSES", "AGE", "ALARMS", "REASON"], &table);
    if left > 0 {
        let older = if left == 1 { "older run is" } else { "older runs are" };
        Output::note(&if selection.is_empty() {
            format!("{left} {older} not shown: `--limit N` shows the newest N runs, `--all` shows all")
        } else {
            format!("{left} {older} not searched: `--limit N` shows the newest N that fit, `--all` searches all")
        });
    }
    Ok(Exit::Done)
}

/// The newest `most` runs that match `selection`, and all active runs that match it, oldest first, and the number of runs that were not
/// searched. It reads pages until there are enough.
async fn selected(client: &Client, selection: &Selection, most: usize) -> Result<(Vec<RunRow>, u64), Failure> {
    let (mut taken, mut seen, mut known) = (BTreeMap::new(), BTreeSet::new(), Known::default());
    let (mut total, mut before) = (0, None);
    loop {
        let page = client.run_page(before, MOST_ROWS).await?;
        if before.is_none() {
            total = page.older + page.runs.iter().filter(|row| row.number >= page.before).count() as u64;
        }
        for row in page.runs.into_iter().rev() {
            let is_enough = taken.len() >= most && row.ended_at_ms.is_some();
            // An active run is on the first page, and again on the page of its number.
            if is_enough || !seen.insert(row.number) {
                continue;
            }
            if selection.takes(&client.run(row.id.as_str()).await?, &mut known) {
                taken.insert(row.number, row);
            }
        }
        if page.older == 0 || taken.len() >= most {
            break;
        }
        before = Some(page.before);
    }
    let left = total.saturating_sub(seen.len() as u64);
    if let Some(unknown) = selection.unknown(&known).filter(|_| total > 0 && left == 0) {
        return Err(Failure::new(Exit::NotFound, unknown));
    }
    Ok((taken.into_values().collect(), left))
}

fn run_row(row: &RunRow) -> Vec<String> {
    vec![
        row.id.to_string(),
        row.name.clone(),
        row.status.to_string(),
        format!("{}/{}", row.step, row.steps),
        number(row.loss.as_ref()),
        row.samples_per_second.map_or_else(|| "-".to_owned(), |rate| format!("{rate:.1}")),
        row.processes.to_string(),
        ago(row.created_at_ms),
        alarm_count(row),
        reason(row),
    ]
}
