//! The reports of a run. They come as they are stored, and are decoded here.

use lockstep_rpc::{ReportBlock, ReportsRequest, StoredBlock};
use tonic::{Status, Streaming};

use super::Client;

/// Blocks of reports in the order they came, rolled-back steps left out.
#[derive(Debug)]
pub(crate) struct Reports {
    run: String,
    blocks: Streaming<StoredBlock>,
}

impl Client {
    /// The reports of `run`; with `follow`, until it has ended.
    pub(crate) async fn reports(&self, run: &str, follow: bool) -> Result<Reports, Status> {
        let request = ReportsRequest { run: run.to_owned(), follow };
        let blocks = self.clone().into_control().reports(request).await?.into_inner();
        Ok(Reports { run: run.to_owned(), blocks })
    }
}

impl Reports {
    /// The next block that reports anything; `None` at the end. May be dropped while it waits.
    ///
    /// # Errors
    /// `DataLoss` for a block that is not sound: the disk is damaged, or a process has reported what cannot be.
    pub(crate) async fn next(&mut self) -> Result<Option<ReportBlock>, Status> {
        while let Some(stored) = self.blocks.message().await? {
            let block = stored.decode().map_err(|unsound| {
                let (index, process, run) = (stored.index, stored.process, &self.run);
                Status::data_loss(format!(
                    "report block {index} of run `{run}`, of process {process}, is not sound: {unsound}"
                ))
            })?;
            if !block.is_empty() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }
}
