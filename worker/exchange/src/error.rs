//! Everything that can go wrong with a mesh.

use std::{io, net::SocketAddr, time::Duration};

/// Why a mesh could not be set up, or why it is no longer one.
///
/// After any error from [`Mesh::exchange`](crate::Mesh::exchange) the mesh is cut: later calls return [`MeshError::Cut`].
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The listener could not be bound.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// Address asked for; the port is 0, any free one.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The configuration names a process that its own list of addresses does not have.
    #[error("process `{process}` is no member of a mesh of `{processes}` processes")]
    NoMember {
        /// The number that was given for this process.
        process: usize,
        /// How many addresses were given.
        processes: usize,
    },
    /// Nobody listens at a peer's address. The peer has gone: a listener exists before its address is told to anybody.
    #[error("cannot connect to process `{process}` at `{address}`")]
    Connect {
        /// The peer.
        process: usize,
        /// Where it should listen.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// Some processes did not join before the deadline.
    #[error("processes {processes:?} did not join within {after:?}")]
    Absent {
        /// The processes that are missing.
        processes: Vec<usize>,
        /// The deadline that was set.
        after: Duration,
        /// The last stranger or impostor that this listener refused meanwhile, if there was one.
        #[source]
        refused: Option<Box<MeshError>>,
    },
    /// The other end does not know this generation's secret, or this end does not.
    #[error("process `{process}` at `{address}` and this one do not share a secret")]
    WrongSecret {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
    },
    /// The two ends belong to different generations; the lower one is out of date.
    #[error("process `{process}` at `{address}` is of generation `{theirs}`, this one of `{ours}`")]
    OldGeneration {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
        /// This process's generation.
        ours: u64,
        /// The other end's generation.
        theirs: u64,
    },
    /// The other end belongs to another run.
    #[error("process `{process}` at `{address}` belongs to another run")]
    OtherRun {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
    },
    /// The two ends disagree about who they are: a number that is not expected there, is already connected, or a mesh of
    /// another size.
    #[error("process `{process}` at `{address}` and this one disagree about their places in the mesh")]
    Misplaced {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
    },
    /// The other end does not speak this protocol.
    #[error("`{address}` does not speak the mesh's protocol")]
    Stranger {
        /// Its address.
        address: SocketAddr,
    },
    /// A peer's connection broke: it died, left, or cut its mesh. If a neighbour told of it, this is the one it named.
    #[error("process `{process}` has gone")]
    PeerGone {
        /// The peer.
        process: usize,
    },
    /// A peer moved no byte for longer than the limit, in a call that waits for it.
    #[error("process `{process}` was silent for {after:?}")]
    Silence {
        /// The peer.
        process: usize,
        /// The limit that was set where the silence was noticed.
        after: Duration,
    },
    /// This mesh was cut: by a [`CutHandle`](crate::CutHandle) or by an earlier error.
    #[error("the mesh was cut")]
    Cut,
    /// A peer sent a payload of another length than this process expects in this round.
    #[error("process `{process}` sent `{received}` bytes where `{expected}` were expected")]
    LengthMismatch {
        /// The peer.
        process: usize,
        /// Bytes expected.
        expected: u64,
        /// Bytes announced by the peer.
        received: u64,
    },
    /// A peer is in another round than this process.
    #[error("process `{process}` is in round `{received}`, this one in `{expected}`")]
    OutOfStep {
        /// The peer.
        process: usize,
        /// This process's round, counted from 0, modulo 2^32.
        expected: u32,
        /// The peer's round.
        received: u32,
    },
    /// A peer that had proved itself sent bytes that are no frame.
    #[error("process `{process}` sent bytes that are no frame")]
    BadFrame {
        /// The peer.
        process: usize,
    },
    /// The system refused an operation that should work.
    #[error("cannot {operation}")]
    Io {
        /// What was tried.
        operation: &'static str,
        /// What the system said.
        source: io::Error,
    },
}
