//! Errors of a mesh, in its set-up and its rounds.

use std::{io, net::SocketAddr, time::Duration};

/// Why the set-up of a mesh or a round failed.
///
/// After any error from [`Mesh::exchange`](crate::Mesh::exchange) the mesh is cut: later calls return [`MeshError::Cut`].
#[derive(Debug, thiserror::Error)]
pub enum MeshError {
    /// The listener could not be bound.
    #[error("cannot listen on `{address}`")]
    Bind {
        /// The requested address, with port 0: any free port.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// The configured process index is not in the list of addresses.
    #[error("process `{process}` is not in a mesh of `{processes}` processes")]
    NoMember {
        /// The configured index of this process.
        process: usize,
        /// Number of configured addresses.
        processes: usize,
    },
    /// Nobody listens at a peer's address. The peer is gone: its listener exists before others get its address.
    #[error("cannot connect to process `{process}` at `{address}`")]
    Connect {
        /// The peer.
        process: usize,
        /// Its configured address.
        address: SocketAddr,
        /// The system's error.
        source: io::Error,
    },
    /// Some processes did not join before the deadline.
    #[error("processes {processes:?} did not join within {after:?}")]
    Absent {
        /// Indices of the missing processes.
        processes: Vec<usize>,
        /// The configured time limit.
        after: Duration,
        /// The last connection that this listener rejected meanwhile, if any: a hint at the cause.
        #[source]
        refused: Option<Box<MeshError>>,
    },
    /// The two ends of a connection have different secrets.
    #[error("process `{process}` at `{address}` and this process have different secrets")]
    WrongSecret {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
    },
    /// The two ends belong to different generations; the end with the lower number is out of date.
    #[error("process `{process}` at `{address}` is in generation `{theirs}`, this process in `{ours}`")]
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
    /// The two ends have different lists of processes: another number of processes, or an index that is not expected at this
    /// address or is connected already.
    #[error(
        "process `{process}` at `{address}` and this process have different lists of processes, or are connected already"
    )]
    Misplaced {
        /// The process that the other end claims to be.
        process: usize,
        /// Its address.
        address: SocketAddr,
    },
    /// The other end does not speak this protocol: it is another program, or another version of Lockstep.
    #[error("`{address}` does not speak the mesh's protocol")]
    Stranger {
        /// Its address.
        address: SocketAddr,
    },
    /// A peer's connection broke: it died, left, or cut its mesh. `process` may come from another peer that noticed it first.
    #[error("process `{process}` has gone")]
    PeerGone {
        /// The peer.
        process: usize,
    },
    /// A peer neither sent nor received a byte for the whole silence limit, in a call that waits for it.
    #[error("process `{process}` was silent for {after:?}")]
    Silence {
        /// The peer.
        process: usize,
        /// The silence limit of the process that noticed it.
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
        /// Payload bytes that this process expects.
        expected: u64,
        /// Payload bytes that the peer announced.
        received: u64,
    },
    /// A peer is in another round than this process.
    #[error("process `{process}` is in round `{received}`, this process in `{expected}`")]
    OutOfStep {
        /// The peer.
        process: usize,
        /// This process's round, counted from 0, modulo 2^32.
        expected: u32,
        /// The peer's round.
        received: u32,
    },
    /// A peer that has passed the handshake broke the protocol.
    #[error("process `{process}` sent an invalid frame")]
    BadFrame {
        /// The peer.
        process: usize,
    },
    /// A system call failed that should not fail.
    #[error("cannot {operation}")]
    Io {
        /// The operation, as a verb with its object.
        operation: &'static str,
        /// The system's error.
        source: io::Error,
    },
}
