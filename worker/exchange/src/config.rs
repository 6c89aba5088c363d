//! The configuration of a process in a mesh.

use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

/// The configuration with which a process joins a mesh. Most of it comes with the assignment.
#[derive(Clone)]
pub struct MeshConfig {
    /// This process's index, in `addresses`.
    pub process: usize,
    /// The address at which each process listens, by process index; includes this process.
    pub addresses: Vec<SocketAddr>,
    /// The secret of the generation, which each end of a connection must prove to know.
    pub secret: [u8; 32],
    /// The run's id. Processes of different runs reject each other.
    pub run: String,
    /// The run's generation. Processes of different generations reject each other.
    pub generation: u64,
    /// How long [`crate::Mesh::join`] may take.
    pub connect_deadline: Duration,
    /// How long a peer may neither send nor receive a byte while a call waits for it. Must be longer than the slowest step: a
    /// peer is silent while it computes.
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
