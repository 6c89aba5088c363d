//! The stream of a run's reports.

use lockstep_common::RunId;
use lockstep_rpc::StoredBlock;
use tokio::sync::mpsc;
use tonic::Status;

use crate::node::{CallError, Handle};
use crate::store::{BlockReader, Page, StoreError};

/// Sends the reports of `run` into `to` as they are stored, with the step that each was rolled back to; with `follow`, until the
/// run has ended. A roll-back that comes later shows as steps that begin again at a smaller number.
pub(super) async fn stream(
    handle: Handle,
    reader: BlockReader,
    run: RunId,
    follow: bool,
    to: mpsc::Sender<Result<StoredBlock, Status>>,
) {
    if let Err(status) = send_all(&handle, &reader, &run, follow, &to).await {
        // The client may be gone.
        let _ = to.send(Err(status)).await;
    }
}

async fn send_all(
    handle: &Handle,
    reader: &BlockReader,
    run: &RunId,
    follow: bool,
    to: &mpsc::Sender<Result<StoredBlock, Status>>,
) -> Result<(), Status> {
    let mut changes = handle.changes();
    // What changed behind it was not looked at.
    let (mut after, mut seen) = (0, handle.applied());
    loop {
        // Whether it has ended is looked up before the blocks are read: none comes after.
        let ended = ended(handle, run).await?;
        loop {
            let page = page(reader, run, after).await?;
            for stored in page.blocks {
                after = stored.index;
                if to.send(Ok(stored)).await.is_err() {
                    return Ok(());
                }
            }
            if !page.more {
                break;
            }
        }
        if ended || !follow {
            return Ok(());
        }
        loop {
            tokio::select! {
                biased;
                () = to.closed() => return Ok(()),
                changed = changes.next() => changed?,
            }
            let changed = handle.changes_since(seen).await?;
            seen = changed.index;
            if changed.runs.contains(run) {
                break;
            }
        }
    }
}

async fn ended(handle: &Handle, run: &RunId) -> Result<bool, CallError> {
    let run = run.clone();
    handle.read(move |state| state.run(&run).is_none_or(|run| run.state.status.is_final())).await
}

async fn page(reader: &BlockReader, run: &RunId, after: u64) -> Result<Page, Status> {
    let (reader, run) = (reader.clone(), run.clone());
    tokio::task::spawn_blocking(move || reader.page(&run, after))
        .await
        .map_err(|_| Status::from(StoreError::Stopped))?
        .map_err(Status::from)
}
