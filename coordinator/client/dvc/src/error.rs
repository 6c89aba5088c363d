//! Errors of data that DVC tracks.

use std::io;
use std::path::PathBuf;

use crate::hash::Md5;

/// Why data that DVC tracks cannot be identified or fetched.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most fields are what their names say")]
pub enum DvcError {
    /// A `.dvc` file, a `dvc.lock` or a `dvc.yaml` that DVC could not have written.
    #[error("`{}` is not a valid DVC file", path.display())]
    BadRecord {
        path: PathBuf,
        /// The parser's error, with line and column.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// An output without an MD5.
    #[error("`{}` has no md5 of `{output}`: run `dvc commit`, or `dvc update` for an import, to record it", file.display())]
    NotRecorded {
        file: PathBuf,
        /// The output as written in the file.
        output: String,
    },
    /// A record with a feature of DVC that this crate does not support.
    #[error("`{}` records `{output}` with {what}, which Lockstep cannot fetch: run `dvc pull`", file.display())]
    UnsupportedRecord {
        file: PathBuf,
        /// The output as written in the file.
        output: String,
        /// The unsupported key, in words.
        what: String,
    },
    /// A configuration file of DVC that cannot be parsed.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadConfig {
        path: PathBuf,
        /// Line number, from 1.
        line: usize,
        reason: &'static str,
    },
    /// No default remote is configured.
    #[error(
        "the repository `{}` has no default remote ({}): set one with `dvc remote default NAME`; for imported data (`dvc import`), \
         run `dvc pull`", root.display(),
        if names.is_empty() { "it has no remotes".to_owned() } else {
            format!("its remotes: {}", names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", "))
        }
    )]
    NoRemote {
        /// The directory that holds `.dvc`.
        root: PathBuf,
        /// Names of all configured remotes.
        names: Vec<String>,
    },
    /// A remote that is named but not configured.
    #[error("the repository `{}` has no remote `{name}` with a `url`: choose one of `dvc remote list`", root.display())]
    UnknownRemote {
        /// The directory that holds `.dvc`.
        root: PathBuf,
        name: String,
    },
    /// A remote of a kind that this crate does not support.
    #[error("remote `{name}` is at `{url}`, and Lockstep cannot read {what}: get the data with `dvc pull`")]
    UnsupportedRemote {
        name: String,
        url: String,
        /// The scheme of its URL, or the unsupported key.
        what: String,
    },
    /// An output that would be written through a link.
    #[error(
        "cannot write `{}`: `{}` in its path is a symbolic link, and DVC does not track files behind links; replace the link by a directory, \
         or copy the data to its target yourself",
        path.display(), link.display()
    )]
    BehindLink {
        /// The file or directory of the output.
        path: PathBuf,
        /// The link, below the directory that holds `.dvc`.
        link: PathBuf,
    },
    /// A remote without the object.
    #[error(
        "`{}` with md5 `{md5}` is not in remote `{remote}` (`{object}`): run `dvc push` on a machine that has it, or `dvc pull` \
         for imported data", path.display()
    )]
    MissingObject {
        /// The tracked file or directory.
        path: PathBuf,
        md5: Md5,
        remote: String,
        /// URL of the object.
        object: String,
    },
    /// A remote whose object has the wrong contents.
    #[error(
        "remote `{remote}` has wrong contents for `{}`: expected md5 `{md5}`, found `{found}` (`{object}`)", path.display()
    )]
    CorruptObject {
        /// The tracked file or directory.
        path: PathBuf,
        md5: Md5,
        found: Md5,
        remote: String,
        /// URL of the object.
        object: String,
    },
    /// A corrupt file in DVC's cache that cannot be fetched again.
    #[error(
        "the cache file `{}` is corrupt (its contents have md5 `{found}`), and it cannot be fetched \
         again", path.display()
    )]
    CorruptCache {
        /// The file.
        path: PathBuf,
        found: Md5,
        /// The error of the fetch.
        #[source]
        source: Box<DvcError>,
    },
    /// A failed request to a remote.
    #[error("cannot read `{object}` from remote `{remote}`")]
    Remote {
        remote: String,
        /// URL of the object.
        object: String,
        #[source]
        source: Box<object_store::Error>,
    },
    /// A file of the work tree that differs from DVC's record.
    #[error(
        "`{}` differs from the version that DVC recorded, and was not changed: expected md5 `{expected}`, found `{found}`; \
         run `dvc commit` to record it, or delete it to fetch the recorded version", path.display()
    )]
    Changed { path: PathBuf, expected: Md5, found: Md5 },
    /// A directory in place of a tracked file, or the reverse.
    #[error("cannot write `{}`: DVC recorded {expected} there, and something else exists; move it away", path.display())]
    Occupied {
        path: PathBuf,
        /// `a file`, `a directory`.
        expected: &'static str,
    },
    /// A directory listing (`.dir` object) that is not valid.
    #[error("the DVC listing `{md5}.dir` of `{}` is not valid: {reason}", path.display())]
    BadListing { path: PathBuf, md5: Md5, reason: String },
    /// A path in a tracked directory that is not in DVC's listing.
    #[error("`{}` is not one of the files that DVC recorded in `{}`", path.display(), output.display())]
    NotInListing {
        path: PathBuf,
        /// The tracked directory.
        output: PathBuf,
    },
    /// A Git revision that cannot be read.
    #[error("cannot read revision `{revision}` of the repository of `{}`", path.display())]
    Git {
        /// The requested path.
        path: PathBuf,
        revision: String,
        #[source]
        source: git2::Error,
    },
    /// A failed file operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The failed operation, a verb.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: adds the failed operation and the file.
pub(crate) fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> DvcError {
    move |source| DvcError::Io { action, path: path.to_owned(), source }
}
