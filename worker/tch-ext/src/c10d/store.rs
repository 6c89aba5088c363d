//! The store, through which the members of a group exchange their addresses.

use std::ffi::c_char;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::time::Duration;

use super::error::{Error, c_string, check, milliseconds};

/// A key-value store over TCP, for one group.
///
/// c10d's stores have no authentication and no encryption: bind it to loopback or a private interface. If the process that serves it ends,
/// the group ends, too.
#[derive(Debug)]
pub struct Store {
    raw: *mut CStore,
    address: SocketAddr,
}

// SAFETY: every store of c10d has its own lock, and may be used from any thread.
unsafe impl Send for Store {}
// SAFETY: as above.
unsafe impl Sync for Store {}

impl Store {
    /// Serves a store over TCP, only on the address of `listener`, and connects to it as a client.
    ///
    /// `timeout` limits all operations on this store that have no deadline of their own.
    ///
    /// # Errors
    /// `Argument` for a listener without an address, `Backend`, `Timeout`.
    pub fn serve(listener: TcpListener, timeout: Duration) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(|error| Error::Argument(error.to_string()))?;
        let host = c_string("address", &address.ip().to_string())?;
        let fd = listener.into_raw_fd();
        Self::make(address, timeout, |out, failure| {
            // SAFETY: the host lives during the call, which takes ownership of the descriptor.
            unsafe { lte_store_serve(host.as_ptr(), address.port(), fd, milliseconds(timeout), out, failure) }
        })
    }

    /// Connects to the store at `address`; retries until `timeout` has passed.
    ///
    /// # Errors
    /// `Timeout`, `PeerGone`, `Backend`.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Error> {
        let host = c_string("address", &address.ip().to_string())?;
        Self::make(address, timeout, |out, failure| {
            // SAFETY: the host lives during the call.
            unsafe { lte_store_connect(host.as_ptr(), address.port(), milliseconds(timeout), out, failure) }
        })
    }

    /// The address of its server.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    pub(super) fn raw(&self) -> *const CStore {
        self.raw
    }

    fn make(
        address: SocketAddr,
        timeout: Duration,
        call: impl FnOnce(*mut *mut CStore, *mut i32) -> *mut c_char,
    ) -> Result<Self, Error> {
        let (mut raw, mut failure) = (std::ptr::null_mut(), 0);
        let answer = call(&raw mut raw, &raw mut failure);
        check(answer, failure, timeout)?;
        Ok(Self { raw, address })
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        // SAFETY: `raw` came from one of the constructors and is freed once, here.
        unsafe { lte_store_free(self.raw) };
    }
}

/// An `lte_store` of the shim, of which Rust only has the address.
#[derive(Debug)]
pub enum CStore {}

unsafe extern "C" {
    fn lte_store_serve(
        host: *const c_char,
        port: u16,
        fd: i32,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_connect(
        host: *const c_char,
        port: u16,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_free(store: *mut CStore);
}
