//! Why an exchange failed, by what the caller can do about it.

use std::time::Duration;

use lockstep_exchange::MeshError;
use lockstep_tch_ext::c10d;

/// Why an exchange failed. Whatever the reason, the exchange is cut then.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A peer died, left, or cut the exchange.
    #[error("process `{process}` has gone")]
    PeerGone {
        /// The peer.
        process: usize,
    },
    /// A peer is gone, and the back end does not say which.
    #[error("a process has gone: {detail}")]
    SomePeerGone {
        /// The back end's words.
        detail: String,
    },
    /// A peer did not answer in time.
    #[error("no answer from the other processes within {after:?}")]
    Silence {
        /// The limit.
        after: Duration,
    },
    /// The exchange was cut here.
    #[error("the exchange was cut")]
    Cut,
    /// The mesh failed in another way.
    #[error("the mesh failed")]
    Mesh(#[source] MeshError),
    /// c10d failed in another way.
    #[error("c10d failed")]
    Group(#[source] c10d::Error),
    /// The processes do not make the same calls, or libtorch refused a tensor.
    #[error("libtorch refused an exchange")]
    Torch(#[from] tch::TchError),
    /// A tensor's memory cannot be sent as it lies.
    #[error("a tensor's memory cannot be exchanged")]
    Memory(#[from] lockstep_tch_ext::Error),
}

impl From<MeshError> for ExchangeError {
    fn from(error: MeshError) -> Self {
        match error {
            MeshError::PeerGone { process } => Self::PeerGone { process },
            MeshError::Silence { after, .. } => Self::Silence { after },
            MeshError::Cut => Self::Cut,
            other => Self::Mesh(other),
        }
    }
}

impl From<c10d::Error> for ExchangeError {
    fn from(error: c10d::Error) -> Self {
        match error {
            c10d::Error::PeerGone(detail) => Self::SomePeerGone { detail },
            c10d::Error::Timeout(after) => Self::Silence { after },
            c10d::Error::Aborted => Self::Cut,
            other => Self::Group(other),
        }
    }
}
