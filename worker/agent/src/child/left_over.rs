//! Spools that earlier agents left in the data directory; their processes are gone.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use lockstep_rpc::process_message::Body;
use lockstep_rpc::{ExitCause, Exited};
use tracing::{error, warn};

use super::key::ProcessKey;
use crate::error::AgentError;
use crate::process::Process;
use crate::spool::{Recovered, Spool, SpoolError};

/// Exit code of a process that SIGKILL ended.
const KILLED: i32 = 128 + 9;

/// Directory of the spool of process `key`.
pub(crate) fn process_dir(spool_dir: &Path, key: &ProcessKey) -> PathBuf {
    spool_dir.join(key.run.as_str()).join(format!("{}-{}", key.generation, key.process))
}

/// Reads all spools that earlier agents left. Their processes ended with them: a process whose spool has no end gets one.
pub(crate) fn left_over(spool_dir: &Path, spool_bytes: u64) -> Result<BTreeMap<ProcessKey, Process>, AgentError> {
    let path_error = |path: &Path, source: io::Error| AgentError::Path { path: path.to_owned(), source };
    let list = |dir: &Path| -> Result<Vec<PathBuf>, AgentError> {
        let entries = fs::read_dir(dir).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
        entries.map_err(|source| path_error(dir, source))
    };
    let mut processes = BTreeMap::new();
    for run_dir in list(spool_dir)? {
        let dirs = list(&run_dir)?;
        if dirs.is_empty() {
            fs::remove_dir(&run_dir).map_err(|source| path_error(&run_dir, source))?;
        }
        for dir in dirs {
            let Some(key) = key_of(&dir) else {
                warn!("ignoring `{}`: not the spool of a process", dir.display());
                continue;
            };
            let recovered = Spool::recover(dir.clone(), key.clone()).map_err(|error| match error {
                SpoolError::Io { path, source } => AgentError::Path { path, source },
                damaged @ SpoolError::Corrupt { .. } => path_error(&dir, io::Error::other(damaged)),
            })?;
            let Recovered { spool, lost, last } = recovered;
            for lost in &lost {
                error!("reports of {key} are lost: {lost}");
            }
            let is_ended = last.is_some_and(|last| matches!(last.body, Some(Body::Exited(_) | Body::Failed(_))));
            let mut output = "its agent ended, and the process with it".to_owned();
            for lost in &lost {
                let _ = write!(output, "; reports are lost: {lost}");
            }
            let cause = ExitCause::NodeLeaving.into();
            let end = (!is_ended).then_some(Exited { code: KILLED, output, cause, ..Exited::default() });
            processes.insert(key.clone(), Process::left_over(key, spool.bounded(spool_bytes), end));
        }
    }
    Ok(processes)
}

fn key_of(dir: &Path) -> Option<ProcessKey> {
    let name = |path: &Path| Some(path.file_name()?.to_str()?.to_owned());
    let (process, run) = (name(dir)?, name(dir.parent()?)?);
    let (generation, process) = process.split_once('-')?;
    ProcessKey::new(&run, generation.parse().ok()?, process.parse().ok()?).ok()
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::{EncodedBlock, ProcessMessage};

    use super::*;

    #[test]
    fn what_is_lost_is_said_with_the_end_of_its_process() {
        let dir = tempfile::tempdir().unwrap();
        let key = ProcessKey::new("0123456789", 3, 1).unwrap();
        let mut spool = Spool::create(process_dir(dir.path(), &key), key.clone()).unwrap();
        for _ in 0..3 {
            spool.append(ProcessMessage { body: Some(Body::Block(EncodedBlock::default())) }).unwrap();
        }
        let segment = process_dir(dir.path(), &key).join("00000000000000000001.segment");
        let mut bytes = fs::read(&segment).unwrap();
        let middle = bytes.len() / 2;
        bytes[middle] ^= 1;
        fs::write(&segment, bytes).unwrap();
        let mut found = left_over(dir.path(), u64::MAX).unwrap();
        let process = found.get_mut(&key).unwrap();
        let told: Vec<_> = std::iter::from_fn(|| process.next_report()).collect();
        let Some(Body::Exited(end)) = told[1].message.clone().unwrap().body else { panic!("{told:?}") };
        assert_eq!((told.len(), told[1].sequence, end.code), (2, 2, KILLED));
        let words = format!(" bytes of `{}`: report 2 is incomplete or damaged", segment.display());
        assert!(
            end.output.contains("; reports are lost: dropped the last ") && end.output.contains(&words),
            "{}",
            end.output
        );
    }
}
