//! The starts of a coordinator: how a node finds that a coordinator was started on an older copy of its data directory.
//!
//! Each start draws an id and adds it to the file `starts` of the data directory. A node remembers the id that it was last
//! welcomed with, and the log index up to which its reports were acknowledged. A data directory that does not hold both has
//! forgotten reports which the node has dropped since: training on would leave a gap in the record, and nobody would be told.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lockstep_host::{durable, plain};

/// Starts that are remembered, the newest: a node that was away for longer must be restarted.
const MOST: usize = 10_000;
/// Longest file of them that is read.
const MOST_BYTES: u64 = 16 << 20;

/// The starts of this data directory; the last one is this process.
#[derive(Clone, Debug)]
pub struct StartHistory(Arc<Vec<String>>);

impl StartHistory {
    /// Adds a start, called `id`, to those of `data_dir`, durably.
    pub fn begin(data_dir: &Path, id: String) -> io::Result<Self> {
        let path = data_dir.join("starts");
        let text = match plain::read(&path, MOST_BYTES) {
            Ok(bytes) => String::from_utf8_lossy(&bytes).into_owned(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let mut starts: Vec<String> = text.lines().map(str::to_owned).chain([id]).collect();
        starts.drain(..starts.len().saturating_sub(MOST));
        durable::write_atomic(&path, (starts.join("\n") + "\n").as_bytes())?;
        Ok(Self(Arc::new(starts)))
    }

    /// The id of this process's start.
    pub fn current(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Whether a node that was welcomed at `start`, and whose reports were acknowledged up to log index `acknowledged`, may
    /// go on with a state at log index `applied`. A node that was never welcomed may.
    pub fn know(&self, start: &str, acknowledged: u64, applied: u64) -> bool {
        start.is_empty() || (acknowledged <= applied && self.0.iter().any(|known| known == start))
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn an_older_copy_does_not_know_the_starts_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let begin = |id: &str| StartHistory::begin(dir.path(), id.to_owned()).unwrap();
        assert_eq!(begin("a").current(), "a");
        let copy = fs::read(dir.path().join("starts")).unwrap();
        let second = begin("b");
        assert!(second.know("a", 5, 5) && second.know("b", 5, 9) && second.know("", 0, 0));
        assert!(!second.know("a", 5, 4), "what was acknowledged is not there");
        fs::write(dir.path().join("starts"), copy).unwrap();
        let again = begin("c");
        assert!(again.know("a", 5, 5) && !again.know("b", 5, 5), "the start `b` is forgotten");
    }

    #[test]
    fn the_newest_starts_are_kept() {
        let dir = tempfile::tempdir().unwrap();
        let many: Vec<String> = (0..2 * MOST).map(|number| number.to_string()).collect();
        fs::write(dir.path().join("starts"), many.join("\n")).unwrap();
        let starts = StartHistory::begin(dir.path(), "now".to_owned()).unwrap();
        assert_eq!((starts.0.len(), starts.current()), (MOST, "now"));
        assert!(starts.know(&(2 * MOST - 1).to_string(), 0, 0) && !starts.know("1", 0, 0));
    }

    #[test]
    fn no_pipe_in_their_place_is_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("starts");
        assert!(std::process::Command::new("mkfifo").arg(path).status().unwrap().success());
        let error = StartHistory::begin(dir.path(), "a".to_owned()).unwrap_err().to_string();
        assert!(error.contains("no regular file"), "{error}");
    }
}
