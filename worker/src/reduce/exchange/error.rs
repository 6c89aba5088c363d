//! The errors of an exchange, by what the caller can do about them.

use std::time::Duration;

use lockstep_exchange::MeshError;
use lockstep_tch_ext::c10d;

/// Why an exchange failed. After any error the exchange is cut.
#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    /// A peer ended, or cut the exchange.
    #[error("lost connection to process {process}: it ended, or closed the exchange")]
    PeerGone {
        /// Process index of the peer.
        process: usize,
    },
    /// A peer ended, and the back end does not say which one.
    #[error("lost connection to a process: {detail}")]
    SomePeerGone {
        /// The back end's message.
        detail: String,
    },
    /// A peer did not answer in time.
    #[error("no answer from the other processes within {after:?}")]
    Silence {
        /// The silence limit.
        after: Duration,
    },
    /// This process cut the exchange.
    #[error("the exchange was cut")]
    Cut,
    /// Any other error of the mesh.
    #[error("the mesh failed")]
    Mesh(#[source] MeshError),
    /// Any other error of c10d.
    #[error("c10d failed")]
    Group(#[source] c10d::Error),
    /// libtorch rejected a tensor, for example because the processes made different calls.
    #[error("libtorch rejected a tensor of the exchange")]
    Torch(#[from] tch::TchError),
    /// The bytes of a tensor cannot be sent in place: it is not contiguous, or not on the CPU.
    #[error("cannot exchange the bytes of a tensor")]
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
