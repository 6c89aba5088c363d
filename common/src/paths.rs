//! Locations of a job's files on this machine.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Translates paths in a job to paths on this machine. Most are relative to the job's directory; some files were moved elsewhere.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct JobPaths {
    base_dir: PathBuf,
    elsewhere: BTreeMap<String, PathBuf>,
}

impl JobPaths {
    /// Paths relative to `base_dir`. `moved` gives the locations of moved files, by their paths in the job.
    pub fn new(base_dir: &Path, moved: BTreeMap<String, PathBuf>) -> Self {
        Self { base_dir: base_dir.to_owned(), elsewhere: moved }
    }

    /// The location of the file that the job calls `path`.
    pub fn at(&self, path: &str) -> PathBuf {
        self.elsewhere.get(path).cloned().unwrap_or_else(|| self.base_dir.join(path))
    }
}

impl From<&Path> for JobPaths {
    fn from(base_dir: &Path) -> Self {
        Self::new(base_dir, BTreeMap::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_moved_is_found_where_it_is() {
        let moved = BTreeMap::from([("../a".to_owned(), PathBuf::from("/store/x"))]);
        let paths = JobPaths::new(Path::new("/job"), moved);
        assert_eq!((paths.at("../a"), paths.at("b")), ("/store/x".into(), "/job/b".into()));
        assert_eq!(JobPaths::from(Path::new("/job")).at("/c"), Path::new("/c"));
    }
}
