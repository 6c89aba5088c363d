//! Directories of data. A run names a directory by its path, which ends with `/`, and by the digest of its file list. The list is a
//! blob in the store, so the size of a run or a checkpoint does not depend on the number of files.
//!
//! The list is canonical JSON ([`crate::canonical`]): [`DataFile`]s with paths relative to the directory, sorted by path.

use crate::canonical::{self, DecodeError};
use crate::digest::Domain;
use crate::manifest::{DataFile, Piece};

/// Bytes that are not a valid file list of a directory.
#[derive(Debug, thiserror::Error)]
pub enum ListError {
    /// Not a list in canonical form.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// A path leads out of the directory, or the paths are not sorted, or a path occurs twice.
    #[error(
        "the file list of a data directory is damaged at `{0}`: paths must be sorted, unique and inside the directory"
    )]
    Path(String),
}

impl DataFile {
    /// The directory at `path` with its file list, as [`encode`] returns it. A trailing `/` is added if `path` has none.
    pub fn directory(path: &str, list: &[u8]) -> Self {
        let path = format!("{}/", path.trim_end_matches('/'));
        Self { path, bytes: list.len() as u64, digest: Domain::Blob.digest(list) }
    }

    /// Whether this is a directory. Its `bytes` and `digest` are then those of its file list.
    pub fn is_directory(&self) -> bool {
        self.path.ends_with('/')
    }

    /// The blob of the file's contents, or of the directory's file list.
    pub fn piece(&self) -> Piece {
        Piece { digest: self.digest, bytes: self.bytes }
    }
}

/// The file list of a directory that contains `files`: their paths are relative to the directory, in any order.
pub fn encode(files: &[DataFile]) -> Vec<u8> {
    let mut sorted: Vec<&DataFile> = files.iter().collect();
    sorted.sort_by(|a, b| a.path.cmp(&b.path));
    canonical::encode(&sorted)
}

/// The files of `directory`, from its file list `bytes`. The returned paths begin with the directory's own path.
pub fn decode(directory: &DataFile, bytes: &[u8]) -> Result<Vec<DataFile>, ListError> {
    let mut files: Vec<DataFile> = canonical::decode("list of a directory of data", bytes)?;
    let inside = |path: &str| !path.split('/').any(|part| matches!(part, "" | "." | ".."));
    if let Some(file) = files.iter().find(|file| !inside(&file.path)) {
        return Err(ListError::Path(file.path.clone()));
    }
    if let Some(pair) = files.windows(2).find(|pair| pair[0].path >= pair[1].path) {
        return Err(ListError::Path(pair[1].path.clone()));
    }
    for file in &mut files {
        file.path.insert_str(0, &directory.path);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &str) -> DataFile {
        DataFile { path: path.to_owned(), bytes: 3, digest: Domain::Blob.digest(b"abc") }
    }

    #[test]
    fn a_directory_is_named_by_its_list_whatever_the_order_of_its_files() {
        let list = encode(&[file("b"), file("a/c")]);
        assert_eq!(list, encode(&[file("a/c"), file("b")]));
        let directory = DataFile::directory("../images", &list);
        assert_eq!((directory.path.as_str(), directory.is_directory()), ("../images/", true));
        assert_eq!(DataFile::directory("../images/", &list), directory);
        assert_eq!(decode(&directory, &list).unwrap(), [file("../images/a/c"), file("../images/b")]);
        assert_eq!(directory.piece().bytes, list.len() as u64);
        assert!(!file("x").is_directory());
    }

    #[test]
    fn a_list_that_leads_elsewhere_or_is_out_of_order_is_refused() {
        for bad in ["../x", "/x", "a//b", "./a", ""] {
            let list = encode(&[file(bad)]);
            let error = decode(&DataFile::directory("d", &list), &list).unwrap_err();
            assert!(matches!(error, ListError::Path(path) if path == bad));
        }
        let twice = encode(&[file("a"), file("a")]);
        assert!(matches!(decode(&DataFile::directory("d", &twice), &twice), Err(ListError::Path(_))));
        assert!(matches!(decode(&DataFile::directory("d", b"x"), b"x"), Err(ListError::Decode(_))));
    }
}
