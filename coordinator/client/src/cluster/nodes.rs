//! `coord nodes`.

use lockstep_core::state::Fence;
use lockstep_core::view::NodeView;
use lockstep_rpc::Empty;
use lockstep_rpc::query_request::What;

use crate::args::Reader;
use crate::connection::{Client, print_json, read};
use crate::terminal::{Exit, Failure, Output, ago};

pub(crate) async fn nodes(arguments: Reader, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let text = client.query(What::Nodes(Empty {})).await?;
    if arguments.json {
        return print_json(&text, out);
    }
    let nodes: Vec<NodeView> = read(&text)?;
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
                node.state.to_string(),
                node.host.clone(),
                device.name.clone(),
                device.model.clone(),
                busy,
                ago(node.changed_at_ms),
            ]);
        }
        if node.devices.is_empty() {
            let none = "-".to_owned();
            let row =
                [node.id.to_string(), node.state.to_string(), node.host.clone(), none.clone(), none.clone(), none];
            rows.push(row.into_iter().chain([ago(node.changed_at_ms)]).collect());
        }
    }
    out.table(&["NODE", "STATE", "HOST", "DEVICE", "MODEL", "RUNS", "SINCE"], &rows);
    Ok(Exit::Done)
}

/// The text for a fenced device in the column `RUNS`.
fn fenced(fence: &Fence) -> String {
    match &fence.wrong {
        Some((run, step)) => format!("fenced: wrong at step {step} of {run}"),
        None => "fenced by hand".to_owned(),
    }
}
