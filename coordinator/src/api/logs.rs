//! Streams the logs of a run's processes to a client. The agents read them from their disks, one piece per request.

use std::collections::BTreeMap;
use std::time::Duration;

use lockstep_common::{NodeId, RunId};
use lockstep_rpc::{LogChunk, LogRequest};
use tokio::sync::mpsc;
use tonic::Status;

use crate::node::Handle;
use crate::query::Runs;

/// Pause between two reads while a client follows the logs.
const PAUSE: Duration = Duration::from_millis(250);

/// Time limit for an agent's answer.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Generation and process index.
type Process = (u64, u32);

/// The nodes with the logs of a run's current generation.
struct Placement {
    processes: Vec<(Process, NodeId)>,
    ended: bool,
    status: String,
}

/// Sends the logs of all processes of `run`, or only of `process`, to `to`. With `follow`, continues until the run has ended.
pub(crate) async fn stream(
    handle: Handle,
    runs: Runs,
    run: RunId,
    process: Option<u32>,
    follow: bool,
    to: mpsc::Sender<Result<LogChunk, Status>>,
) {
    if let Err(status) = send_all((&handle, &runs), &run, process, follow, &to).await {
        // An error means that the client is gone.
        let _ = to.send(Err(status)).await;
    }
}

async fn send_all(
    (handle, runs): (&Handle, &Runs),
    run: &RunId,
    only: Option<u32>,
    follow: bool,
    to: &mpsc::Sender<Result<LogChunk, Status>>,
) -> Result<(), Status> {
    let mut offsets: BTreeMap<Process, u64> = BTreeMap::new();
    loop {
        let mut placement = placement(runs, run).await?;
        if let Some(only) = only {
            placement.processes.retain(|((_, process), _)| *process == only);
        }
        if placement.processes.is_empty() && !follow {
            let which = only.map_or_else(String::new, |process| format!(" {process}"));
            let words = format!("run `{run}` has no process{which} to read from: it is {}", placement.status);
            return Err(Status::failed_precondition(words));
        }
        for (process, node) in &placement.processes {
            let offset = offsets.entry(*process).or_default();
            match drain(handle, run, *process, node, offset, to).await {
                Ok(true) => {}
                Ok(false) => return Ok(()),
                // The agent may reconnect: retry at the next turn.
                Err(status) if follow && !placement.ended => {
                    tracing::debug!(%node, reason = status.message(), "cannot read a log: retrying");
                }
                Err(status) => return Err(status),
            }
        }
        if placement.ended || !follow {
            return Ok(());
        }
        tokio::select! {
            biased;
            () = to.closed() => return Ok(()),
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
}

/// Sends the log of one process from `offset` on, and advances `offset`. Returns false if the client is gone.
async fn drain(
    handle: &Handle,
    run: &RunId,
    (generation, process): Process,
    node: &NodeId,
    offset: &mut u64,
    to: &mpsc::Sender<Result<LogChunk, Status>>,
) -> Result<bool, Status> {
    loop {
        let request = LogRequest { id: 0, run: run.to_string(), process, generation, offset: *offset };
        let reply =
            tokio::time::timeout(ANSWER_TIMEOUT, handle.read_log(node.clone(), request)).await.map_err(|_| {
                Status::unavailable(format!("node `{node}` did not answer within {} s", ANSWER_TIMEOUT.as_secs()))
            })??;
        let nothing_new = reply.next_offset <= *offset;
        *offset = reply.next_offset.max(*offset);
        if !reply.text.is_empty() {
            let chunk = LogChunk { process, generation, text: reply.text };
            if to.send(Ok(chunk)).await.is_err() {
                return Ok(false);
            }
        }
        if nothing_new || reply.end {
            return Ok(true);
        }
    }
}

async fn placement(runs: &Runs, run: &RunId) -> Result<Placement, Status> {
    let placement = runs.one(run.clone(), |run| {
        let generation = run.state.generation;
        let placed = run.state.placement.iter();
        Placement {
            processes: placed.map(|(&process, placed)| ((generation, process), placed.node.clone())).collect(),
            ended: run.state.status.is_final(),
            status: run.state.status.to_string(),
        }
    });
    let unknown = || Placement { processes: Vec::new(), ended: true, status: "unknown".to_owned() };
    Ok(placement.await?.unwrap_or_else(unknown))
}
