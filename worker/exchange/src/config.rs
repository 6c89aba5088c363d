//! What a process must know to join a mesh.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// What a process must know to join a mesh. It comes with the assignment.
#[derive(Clone)]
pub struct MeshConfig {
    /// This process's number, an index into `addresses`.
    pub process: usize,
    /// Where each process listens, by process number, this one included.
    pub addresses: Vec<SocketAddr>,
    /// The generation's secret.
    pub secret: [u8; 32],
    /// The run's id.
    pub run: String,
    /// The generation of the run's placement.
    pub generation: u64,
    /// How long [`crate::Mesh::join`] may take.
    pub connect_deadline: Duration,
    /// How long a peer may move no byte while a call waits for it. Longer than the slowest step: a peer that still
    /// computes is silent.
    pub silence_limit: Duration,
    /// Whether bytes between processes on one machine may go through shared memory, where the system allows it.
    pub shared_memory: bool,
}

impl fmt::Debug for MeshConfig {
    /// Without the secret.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("MeshConfig")
            .field("process", &self.process)
            .field("addresses", &self.addresses)
            .field("run", &self.run)
            .field("generation", &self.generation)
            .field("connect_deadline", &self.connect_deadline)
            .field("silence_limit", &self.silence_limit)
            .field("shared_memory", &self.shared_memory)
            .finish_non_exhaustive()
    }
}
