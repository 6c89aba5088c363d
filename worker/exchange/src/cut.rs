//! Cuts a mesh at once, from any thread.
//!
//! A listener or mesh and all its cut handles share a [`Lifeline`]. It has a flag, an event that wakes a blocked `poll`,
//! and the mesh's sockets, so that the peers notice the cut even while this process computes.

use std::{
    fmt,
    net::Shutdown,
    os::fd::{AsFd, BorrowedFd, OwnedFd},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use rustix::event::{EventfdFlags, eventfd};
use socket2::Socket;

use crate::MeshError;

/// Cuts one mesh, or its set-up. Usable from any thread; clones cut the same mesh.
#[derive(Clone)]
pub struct CutHandle(Arc<Lifeline>);

impl CutHandle {
    pub(crate) fn new(lifeline: Arc<Lifeline>) -> Self {
        Self(lifeline)
    }

    /// Shuts all connections down, permanently. Blocked and later calls on this mesh return [`MeshError::Cut`];
    /// the peers see their connection to this process break.
    pub fn cut(&self) {
        self.0.cut();
    }
}

impl fmt::Debug for CutHandle {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("CutHandle").field("cut", &self.0.is_cut()).finish()
    }
}

/// The state behind a [`CutHandle`].
#[derive(Debug)]
pub(crate) struct Lifeline {
    cut: AtomicBool,
    wake: OwnedFd,
    sockets: Mutex<Vec<Arc<Socket>>>,
}

impl Lifeline {
    pub(crate) fn new() -> Result<Self, MeshError> {
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
            .map_err(|errno| MeshError::Io { operation: "create an eventfd", source: errno.into() })?;
        Ok(Self { cut: AtomicBool::new(false), wake, sockets: Mutex::new(Vec::new()) })
    }

    /// Adds a connection that a cut shuts down. Fails if the mesh is cut already.
    pub(crate) fn adopt(&self, socket: &Arc<Socket>) -> Result<(), MeshError> {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        // Under the lock: a cut either finds this socket in the list, or is noticed here.
        if self.is_cut() {
            return Err(MeshError::Cut);
        }
        sockets.push(Arc::clone(socket));
        Ok(())
    }

    pub(crate) fn cut(&self) {
        let mut sockets = self.sockets.lock().unwrap_or_else(PoisonError::into_inner);
        self.cut.store(true, Ordering::SeqCst);
        for socket in sockets.drain(..) {
            // Fails if the peer has closed the connection, which does no harm.
            let _ = socket.shutdown(Shutdown::Both);
        }
        // Fails only if the counter is at its maximum: then the event is set already.
        let _ = rustix::io::write(&self.wake, &1_u64.to_ne_bytes());
    }

    pub(crate) fn is_cut(&self) -> bool {
        self.cut.load(Ordering::SeqCst)
    }

    /// A descriptor that becomes readable with the cut, and stays so.
    pub(crate) fn wake(&self) -> BorrowedFd<'_> {
        self.wake.as_fd()
    }
}
