//! The listening socket, which is bound before processes exchange their addresses.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    os::fd::{AsFd, BorrowedFd},
    sync::Arc,
};

use socket2::Socket;

use crate::{CutHandle, MeshError, cut::Lifeline};

/// A socket that listens on one address, on a port that the system chose.
///
/// Nothing is accepted before [`Mesh::join`](crate::Mesh::join), and nothing after it: joining consumes the listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    address: SocketAddr,
    lifeline: Arc<Lifeline>,
}

impl Listener {
    /// Listens on `address` only, on any free port.
    ///
    /// # Errors
    /// `Bind` if the address is not one of this machine's; `Io` if the process has no file descriptor left.
    pub fn bind(address: IpAddr) -> Result<Self, MeshError> {
        let address = SocketAddr::new(address, 0);
        let bound = || -> std::io::Result<_> {
            let socket = TcpListener::bind(address)?;
            socket.set_nonblocking(true)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bound().map_err(|source| MeshError::Bind { address, source })?;
        Ok(Self { socket, address, lifeline: Arc::new(Lifeline::new()?) })
    }

    /// The address with the port, which the peers need.
    pub fn local_addr(&self) -> SocketAddr {
        self.address
    }

    /// A handle that cuts the set-up, and later the mesh.
    pub fn cut_handle(&self) -> CutHandle {
        CutHandle::new(Arc::clone(&self.lifeline))
    }

    pub(crate) fn lifeline(&self) -> &Arc<Lifeline> {
        &self.lifeline
    }

    /// Accepts a waiting connection; `WouldBlock` if there is none.
    pub(crate) fn accept(&self) -> std::io::Result<(Socket, SocketAddr)> {
        let (stream, address) = self.socket.accept()?;
        stream.set_nonblocking(true)?;
        Ok((Socket::from(stream), address))
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
