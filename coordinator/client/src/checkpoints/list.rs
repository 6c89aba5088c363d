//! `coord checkpoints` and `coord manifest`.

use lockstep_core::view::CheckpointView;
use lockstep_rpc::query_request::What;

use crate::args::{CheckpointsArguments, ManifestArguments};
use crate::connection::{Client, print_json, read};
use crate::terminal::{Exit, Failure, Output, ago};

pub(crate) async fn checkpoints(arguments: CheckpointsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let text = client.query(What::Checkpoints(arguments.run.unwrap_or_default())).await?;
    if arguments.reader.json {
        return print_json(&text, out);
    }
    let views: Vec<CheckpointView> = read(&text)?;
    print_checkpoints(&views, out);
    Ok(Exit::Done)
}

pub(crate) async fn manifest(arguments: ManifestArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    out.line(&client.query(What::Manifest(arguments.checkpoint)).await?);
    Ok(Exit::Done)
}

pub(crate) fn print_checkpoints(views: &[CheckpointView], out: &mut Output) {
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
    out.table(&["CHECKPOINT", "RUN", "NAME", "STEP", "EPOCH", "STATE", "AGE"], &rows);
}
