//! The file of the database as a whole: how it is made, how damage in it is caught, and where it goes then.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use lockstep_host::quiet::quietly_or;
use tracing::debug;

use crate::error::TrackingError;

/// What `read` finds in the database at `path`. Pages that are damaged panic in redb: that is an error, too.
pub(crate) fn guarded<T>(path: &Path, read: impl FnOnce() -> Result<T, TrackingError>) -> Result<T, TrackingError> {
    let own = path.to_owned();
    quietly_or(move || last_words(&own), read).unwrap_or_else(|panic| {
        debug!(panic, path = %path.display(), "a database cannot be read");
        let detail = "its pages are not as they were written".to_owned();
        Err(TrackingError::Damaged { path: path.to_owned(), detail })
    })
}

/// The program cannot go on with the database at `path`; the next start makes it anew.
fn last_words(path: &Path) -> String {
    let next = match set_aside(path) {
        Ok(()) => format!("it is kept as `{}`: start again, and it is made from the reports", aside(path).display()),
        Err(error) => format!("remove it, and start again: {error}"),
    };
    format!("`{}` is damaged: its pages are not as they were written; {next}", path.display())
}

/// Moves the file at `path` out of the way, to where [`aside`] says. One that is there already is replaced.
pub(crate) fn set_aside(path: &Path) -> Result<(), TrackingError> {
    let moved = fs::rename(path, aside(path));
    moved.map_err(|error| TrackingError::database("set aside", path, redb::StorageError::Io(error)))
}

/// Where a damaged database of `path` is kept: beside it, with `.damaged` at the end of its name.
pub(crate) fn aside(path: &Path) -> PathBuf {
    let mut name = OsString::from(path);
    name.push(".damaged");
    name.into()
}

/// Whether the file at `path` has not got the mark of a database yet, which is written last.
pub(crate) fn is_unborn(path: &Path) -> io::Result<bool> {
    let mut mark = [0; 9];
    match File::open(path).and_then(|mut file| file.read_exact(&mut mark)) {
        Ok(()) => Ok(mark == [0; 9]),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::UnexpectedEof) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Makes the file at `path`, if it is not there: for its owner alone, whatever umask says.
pub(crate) fn private(path: &Path) -> io::Result<File> {
    File::options().create(true).truncate(false).write(true).mode(0o600).open(path)
}

#[cfg(test)]
mod tests {
    use crate::database::Database;

    use super::*;

    #[test]
    fn a_file_that_a_killed_start_left_is_made_anew() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("tracking.redb");
        std::fs::write(&path, [0; 4096]).unwrap();
        Database::open(&path).unwrap();
        assert!(!is_unborn(&path).unwrap());
        std::fs::write(&path, [1; 4096]).unwrap();
        assert!(Database::open(&path).unwrap_err().is_damage());
    }
}
