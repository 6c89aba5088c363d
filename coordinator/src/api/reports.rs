//! Streams the report blocks of a run to a client.

use lockstep_common::RunId;
use lockstep_rpc::StoredBlock;
use tokio::sync::mpsc;
use tonic::Status;

use crate::node::{CallError, Handle};
use crate::store::{BlockReader, Page, StoreError};

/// Sends the stored blocks of `run`, each with the step at which a rollback cuts it. With `follow`, also sends new blocks until the run
/// has ended. After a later rollback, the steps of new blocks start at a smaller number again.
pub(super) async fn stream(
    handle: Handle,
    reader: BlockReader,
    run: RunId,
    follow: bool,
    to: mpsc::Sender<Result<StoredBlock, Status>>,
) {
    if let Err(status) = send_all(&handle, &reader, &run, follow, &to).await {
        // An error means that the client is gone.
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
    // `seen`: changes after this log index were not checked yet.
    let (mut after, mut seen) = (0, handle.applied());
    loop {
        // Before the blocks are read: an ended run gets no further blocks.
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
