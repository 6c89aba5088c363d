//! Errors of exports to other tools.

use std::io;
use std::path::{Path, PathBuf};

/// Why an export stopped. Run again, it continues where it stopped.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "most fields are what their names say")]
pub enum ExportError {
    /// A failed file operation.
    #[error("cannot {action} `{}`", path.display())]
    Io {
        /// The failed operation, a verb.
        action: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// A table that cannot be encoded.
    #[error("cannot write the table `{}`", path.display())]
    Table {
        path: PathBuf,
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// No answer from an MLflow server, after several attempts.
    #[error("the MLflow server does not answer `{url}`: check that it runs and that this is its address")]
    Unreachable {
        /// The requested address.
        url: String,
        #[source]
        source: reqwest::Error,
    },
    /// An error status from an MLflow server.
    #[error("the MLflow server rejected `{url}` with HTTP status {status}: {message}")]
    Refused {
        /// The requested address.
        url: String,
        /// HTTP status.
        status: u16,
        /// The server's message.
        message: String,
    },
    /// An answer that is not MLflow's.
    #[error("the answer of `{url}` is not from MLflow: check the address of the server")]
    Answer {
        /// The requested address.
        url: String,
        #[source]
        source: serde_json::Error,
    },
    /// An address that is not a URL.
    #[error("`{uri}` is not the address of an MLflow server: expected a URL that begins with `http://` or `https://`")]
    Address { uri: String },
    /// A server that does not accept artifacts itself.
    #[error(
        "the MLflow server stores artifacts at `{uri}` and does not accept them itself: start it with `--serve-artifacts`"
    )]
    NoArtifactProxy {
        /// Artifact location of the server.
        uri: String,
    },
    /// An interpreter that cannot be started.
    #[error("cannot start the interpreter `{}`", python.display())]
    NoPython {
        python: PathBuf,
        #[source]
        source: io::Error,
    },
    /// An interpreter without the package.
    #[error("`{}` has no package `wandb`: install it with `{} -m pip install wandb`", python.display(), python.display())]
    NoWandb { python: PathBuf },
    /// The package `wandb` failed.
    #[error("the package `wandb` of `{}` failed: {message}", python.display())]
    Wandb {
        python: PathBuf,
        /// The end of its output.
        message: String,
    },
}

impl ExportError {
    /// Adds the failed operation and the path to an I/O error.
    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Io { action, path: path.to_owned(), source }
    }
}
