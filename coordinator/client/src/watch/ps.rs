//! `coord ps`.

use lockstep_coordinator::query::documents;
use lockstep_core::view::RunRow;
use lockstep_rpc::RunsQuery;
use lockstep_rpc::query_request::What;

use crate::args::PsArguments;
use crate::connection::{Client, print_json, read_runs};
use crate::terminal::{Exit, Failure, Output, ago};
use crate::watch::row::{alarm_count, number, reason};
use crate::watch::select::{Known, Selection};

pub(crate) async fn ps(arguments: PsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let PsArguments { commit, data, conditions, reader } = arguments;
    let client = Client::connect(&reader.address.addr).await?;
    let mut text = client.query(What::Runs(RunsQuery { recent: false })).await?;
    let selection = Selection { commit, data, conditions };
    if !selection.is_empty() {
        let (mut rows, mut known) = (Vec::new(), Known::default());
        let all = read_runs(&text)?;
        let any = !all.is_empty();
        for row in all {
            if selection.takes(&client.run(row.id.as_str()).await?, &mut known) {
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
    let rows: Vec<Vec<String>> = read_runs(&text)?.iter().map(run_row).collect();
    out.table(&["RUN", "NAME", "STATUS", "STEP", "LOSS", "SAMPLES/S", "PROCESSES", "AGE", "ALARMS", "REASON"], &rows);
    Ok(Exit::Done)
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
