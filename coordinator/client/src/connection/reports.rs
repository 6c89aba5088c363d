//! Reads the reports of a run. The coordinator sends them as they are stored; they are decoded here.

use lockstep_rpc::{ReportBlock, ReportsRequest, StoredBlock};
use tonic::{Status, Streaming};

use super::Client;

/// Blocks of reports in the order in which the coordinator received them, without rolled-back steps.
#[derive(Debug)]
pub(crate) struct Reports {
    run: String,
    blocks: Streaming<StoredBlock>,
}

impl Client {
    /// The reports of `run` so far; with `follow`, until the run has ended.
    pub(crate) async fn reports(&self, run: &str, follow: bool) -> Result<Reports, Status> {
        let request = ReportsRequest { run: run.to_owned(), follow };
        let blocks = self.clone().into_control().reports(request).await?.into_inner();
        Ok(Reports { run: run.to_owned(), blocks })
    }
}

impl Reports {
    /// The next block that is not empty; `None` at the end. Dropping the future loses no block.
    ///
    /// # Errors
    /// `DataLoss` for an invalid block: the coordinator's disk is damaged, or a process sent an invalid report.
    pub(crate) async fn next(&mut self) -> Result<Option<ReportBlock>, Status> {
        while let Some(stored) = self.blocks.message().await? {
            let block = stored.decode().map_err(|unsound| {
                let (index, process, run) = (stored.index, stored.process, &self.run);
                Status::data_loss(format!(
                    "report block {index} of process {process} of run `{run}` is invalid: {unsound}"
                ))
            })?;
            if !block.is_empty() {
                return Ok(Some(block));
            }
        }
        Ok(None)
    }
}
