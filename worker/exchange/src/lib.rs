//! The full mesh of plain TCP connections between the rank processes of one generation of a run; between processes on one
//! machine the bytes go through shared memory beside it.
//!
//! What it owns: setting the mesh up (both ends of every pair prove that they know the generation's secret), one
//! duplex round after another over all pairs at once, and failing fast: a peer that dies, stalls, leaves the common
//! rhythm or is cut off becomes a typed error on everybody within milliseconds, never a hang.
//!
//! What it does not know: tensors, reduction, the coordinator, where addresses and secrets come from. It has no thread
//! of its own; every call runs on the caller's.
//!
//! ```text
//!   Listener::bind ──> Mesh::join ──> exchange, exchange, ... ──> drop, CutHandle::cut or an error
//!                      (join, handshake,   (mesh, link, frame, ring)  (cut: every pair is shut down)
//!                       lane, offer, window)
//! ```

mod config;
mod cut;
mod error;
mod frame;
mod handshake;
mod join;
mod lane;
mod link;
mod listener;
mod mesh;
mod offer;
mod poll;
mod ring;
mod window;

pub use config::MeshConfig;
pub use cut::CutHandle;
pub use error::MeshError;
pub use listener::Listener;
pub use mesh::Mesh;
pub use window::Window;
