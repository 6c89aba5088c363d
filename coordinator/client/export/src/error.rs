//! What can go wrong with an export.

use std::io;
use std::path::{Path, PathBuf};

/// An export that did not come to its end. Begun anew, it goes on where it stopped.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// A file.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// What was tried.
        action: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// A table that cannot be encoded.
    #[error("cannot write the table `{}`", path.display())]
    Table {
        /// The file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer from a server of MLflow, after some tries.
    #[error("the server of MLflow does not answer `{url}`: is it running, and is this its address?")]
    Unreachable {
        /// What was asked.
        url: String,
        /// Why not.
        #[source]
        source: reqwest::Error,
    },
    /// A server of MLflow says no.
    #[error("the server of MLflow refuses `{url}` with status {status}: {message}")]
    Refused {
        /// What was asked.
        url: String,
        /// Of HTTP.
        status: u16,
        /// In its words.
        message: String,
    },
    /// Something answers, in other words than MLflow's.
    #[error("the answer of `{url}` is not MLflow's: is this the address of its server?")]
    Answer {
        /// What was asked.
        url: String,
        /// What is missing.
        #[source]
        source: serde_json::Error,
    },
    /// An address that is none.
    #[error("`{uri}` is not the address of a server of MLflow: it begins with `http://` or `https://`")]
    Address {
        /// As it was given.
        uri: String,
    },
    /// Artifacts that only the store behind the server takes.
    #[error("`{uri}` is where artifacts go, and the server does not pass them on: start it with `--serve-artifacts`")]
    NoArtifactProxy {
        /// As the server says.
        uri: String,
    },
    /// An interpreter that cannot be started.
    #[error("cannot start the interpreter `{}`", python.display())]
    NoPython {
        /// As it was given.
        python: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// An interpreter without the package.
    #[error("`{}` has no package `wandb`: install it with `{} -m pip install wandb`", python.display(), python.display())]
    NoWandb {
        /// As it was given.
        python: PathBuf,
    },
    /// The package did not take the run.
    #[error("the package `wandb` of `{}` did not take the run: {message}", python.display())]
    Wandb {
        /// The interpreter.
        python: PathBuf,
        /// The end of what it said.
        message: String,
    },
}

impl ExportError {
    /// Puts `action` and `path` to the error of a file.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
