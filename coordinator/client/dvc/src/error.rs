//! What can go wrong with data that DVC tracks.

use std::io;
use std::path::PathBuf;

use crate::hash::Md5;

/// Data that cannot be told or fetched.
#[derive(Debug, thiserror::Error)]
pub enum DvcError {
    /// A `.dvc` file, a `dvc.lock` or a `dvc.yaml` that is not what DVC writes.
    #[error("`{}` is not as DVC writes it", path.display())]
    BadRecord {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        #[source]
        source: Box<serde_saphyr::Error>,
    },
    /// An output without an MD5.
    #[error("`{}` records no md5 of `{output}`: `dvc commit` or `dvc update` writes one", file.display())]
    NotRecorded {
        /// The file that records it.
        file: PathBuf,
        /// The output, as it stands there.
        output: String,
    },
    /// A record that only DVC itself can follow.
    #[error("`{}` records `{output}` with {what}: get it with `dvc pull`", file.display())]
    UnsupportedRecord {
        /// The file that records it.
        file: PathBuf,
        /// The output, as it stands there.
        output: String,
        /// What is beyond this crate.
        what: String,
    },
    /// A file of configuration that cannot be read.
    #[error("`{}`, line {line}: {reason}", path.display())]
    BadConfig {
        /// The file.
        path: PathBuf,
        /// Counted from 1.
        line: usize,
        /// What is wrong.
        reason: &'static str,
    },
    /// Nothing says where the data is.
    #[error(
        "the repository `{}` has no default remote ({}): name one with `dvc remote default NAME`; data that was imported (`dvc import`) \
         comes with `dvc pull`", root.display(),
        if names.is_empty() { "and no other".to_owned() } else {
            names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ")
        }
    )]
    NoRemote {
        /// The directory that holds `.dvc`.
        root: PathBuf,
        /// The remotes that there are.
        names: Vec<String>,
    },
    /// A remote that is named but not configured.
    #[error("the repository `{}` has no remote `{name}` with a `url`: `dvc remote list` shows those it has", root.display())]
    UnknownRemote {
        /// The directory that holds `.dvc`.
        root: PathBuf,
        /// Its name.
        name: String,
    },
    /// A remote that only DVC itself can read.
    #[error("remote `{name}` is at `{url}`, and {what} cannot be read here: get the data with `dvc pull`")]
    UnsupportedRemote {
        /// Its name.
        name: String,
        /// Where it is.
        url: String,
        /// Its scheme, or the key that is beyond this crate.
        what: String,
    },
    /// An output that would be written through a link.
    #[error(
        "`{}` is not written: `{}` on its way is a symbolic link, and DVC tracks nothing behind one; put a directory in its place, or get \
         the data to where it leads by other means",
        path.display(), link.display()
    )]
    BehindLink {
        /// The file or directory of the output.
        path: PathBuf,
        /// The link, below the directory that holds `.dvc`.
        link: PathBuf,
    },
    /// A remote that has no such object.
    #[error(
        "`{}` with md5 `{md5}` is not in remote `{remote}` (`{object}`): `dvc push` it from where it is, or `dvc pull` it if \
         it was imported", path.display()
    )]
    MissingObject {
        /// The file or directory whose contents it has.
        path: PathBuf,
        /// The contents.
        md5: Md5,
        /// The remote's name.
        remote: String,
        /// Where it was looked for.
        object: String,
    },
    /// A remote that answers with other contents.
    #[error(
        "remote `{remote}` has other contents for `{}`: expected md5 `{md5}`, found `{found}` (`{object}`)", path.display()
    )]
    CorruptObject {
        /// The file or directory whose contents it should have.
        path: PathBuf,
        /// The contents.
        md5: Md5,
        /// What came.
        found: Md5,
        /// The remote's name.
        remote: String,
        /// Where it came from.
        object: String,
    },
    /// A file of the cache that changed, and that no remote replaces.
    #[error(
        "the cache file `{}` is corrupt, its contents have the md5 `{found}` and not that of its name, and it cannot be \
         fetched anew", path.display()
    )]
    CorruptCache {
        /// The file.
        path: PathBuf,
        /// What its contents hash to.
        found: Md5,
        /// Why it cannot be fetched.
        #[source]
        source: Box<DvcError>,
    },
    /// A remote that does not answer as it should.
    #[error("cannot read `{object}` from remote `{remote}`")]
    Remote {
        /// The remote's name.
        remote: String,
        /// What was asked for.
        object: String,
        /// Why.
        #[source]
        source: Box<object_store::Error>,
    },
    /// A file of the work tree that is not what DVC recorded.
    #[error(
        "`{}` is not what DVC recorded, and is left as it is: expected md5 `{expected}`, found `{found}`; `dvc commit` \
         records it, and without it what is recorded can be fetched", path.display()
    )]
    Changed {
        /// The file.
        path: PathBuf,
        /// What DVC recorded.
        expected: Md5,
        /// What is there.
        found: Md5,
    },
    /// Something else where a file or a directory should be.
    #[error("`{}` is in the way: DVC recorded {expected} there", path.display())]
    Occupied {
        /// The path.
        path: PathBuf,
        /// `a file`, `a directory`.
        expected: &'static str,
    },
    /// A directory's listing that makes no sense.
    #[error("the listing `{md5}.dir` of `{}` is broken: {reason}", path.display())]
    BadListing {
        /// The directory.
        path: PathBuf,
        /// Its MD5.
        md5: Md5,
        /// What is wrong.
        reason: String,
    },
    /// A path inside of a tracked directory that DVC does not know.
    #[error("`{}` is not among the files that DVC recorded of `{}`", path.display(), output.display())]
    NotInListing {
        /// The path.
        path: PathBuf,
        /// The directory.
        output: PathBuf,
    },
    /// A revision that cannot be read.
    #[error("cannot read revision `{revision}` of the repository of `{}`", path.display())]
    Git {
        /// The path asked for.
        path: PathBuf,
        /// The revision.
        revision: String,
        /// Why.
        #[source]
        source: git2::Error,
    },
    /// The disk refused.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// For `map_err`: what was tried on which file.
pub(crate) fn io_error(action: &'static str, path: &std::path::Path) -> impl FnOnce(io::Error) -> DvcError {
    move |source| DvcError::Io { action, path: path.to_owned(), source }
}
