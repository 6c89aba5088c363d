//! The full mesh of plain TCP connections between the rank processes of one generation of a run. Between processes on one
//! machine the bytes go through shared memory instead.
//!
//! It owns the set-up of the mesh (both ends of every pair prove that they know the generation's secret), the duplex rounds
//! over all pairs at once, and fast failure: a peer that dies, stalls, is in another round or is cut off causes a typed
//! error in all processes within milliseconds, never a hang.
//!
//! It does not know tensors, reduction, the coordinator, or where addresses and secrets come from. It has no thread of its
//! own; every call runs on the caller's thread.
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
