//! The starts of a coordinator, by which an older copy of the data directory is detected.
//!
//! Each start draws an id and appends it to the file `starts` of the data directory. Each node keeps the start id of its last connection,
//! and the log index up to which its reports were acknowledged. If the data directory lacks either, then it lacks reports that the node
//! has already dropped. Training would leave a gap in the record without any error, so the node is rejected.

use std::io;
use std::path::Path;
use std::sync::Arc;

use lockstep_host::{durable, plain};

/// Number of starts that are kept; the oldest are dropped. A node whose last connection was before them must be restarted.
const MOST: usize = 10_000;
/// Maximum length of the file `starts`, in bytes.
const MOST_BYTES: u64 = 16 << 20;

/// The start ids of this data directory, in order. The last one is the start of this process.
#[derive(Clone, Debug)]
pub struct StartHistory(Arc<Vec<String>>);

impl StartHistory {
    /// Appends a start with the id `id` to the file in `data_dir`, durably.
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

    /// The start id of this process.
    pub fn current(&self) -> &str {
        self.0.last().map_or("", String::as_str)
    }

    /// Whether a node may use this coordinator, whose state is at log index `applied`.
    ///
    /// The node's last connection was to the start `start`, and its reports were acknowledged up to log index `acknowledged`. An empty
    /// `start` means that the node never connected: it may always.
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
        assert!(!second.know("a", 5, 4), "acknowledged reports are missing");
        fs::write(dir.path().join("starts"), copy).unwrap();
        let again = begin("c");
        assert!(again.know("a", 5, 5) && !again.know("b", 5, 5), "the start `b` is missing");
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
        assert!(error.contains("not a regular file"), "{error}");
    }
}
