//! Stores: where the members of a group leave their addresses for each other.

use std::ffi::c_char;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::IntoRawFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use super::error::{Error, c_string, check, milliseconds};

/// A key-value store. Cloning it is cheap and gives the same store.
///
/// It has no authentication and no encryption, as c10d has none: bind it to loopback or a private interface. The
/// process that serves it must not be one that the group should survive.
#[derive(Debug, Clone)]
pub struct Store {
    inner: Arc<Inner>,
    address: Option<SocketAddr>,
}

#[derive(Debug)]
struct Inner {
    raw: *mut CStore,
}

// SAFETY: every store of c10d guards its state by a lock of its own, and may be used from any thread.
unsafe impl Send for Inner {}
// SAFETY: as above.
unsafe impl Sync for Inner {}

impl Store {
    /// Serves a store over TCP, on `listener`'s address only, and is a client of it.
    ///
    /// `timeout` bounds whatever waits on this store without a deadline of its own.
    ///
    /// # Errors
    /// `Argument` for a listener without an address, `Backend`, `Timeout`.
    pub fn serve(listener: TcpListener, timeout: Duration) -> Result<Self, Error> {
        let address = listener.local_addr().map_err(|error| Error::Argument(error.to_string()))?;
        let host = c_string("address", &address.ip().to_string())?;
        let fd = listener.into_raw_fd();
        Self::make(Some(address), timeout, |out, failure| {
            // SAFETY: the host lives during the call, which takes over the descriptor.
            unsafe { lte_store_serve(host.as_ptr(), address.port(), fd, milliseconds(timeout), out, failure) }
        })
    }

    /// A client of the store served at `address`; it tries until `timeout` has passed.
    ///
    /// # Errors
    /// `Timeout`, `PeerGone`, `Backend`.
    pub fn connect(address: SocketAddr, timeout: Duration) -> Result<Self, Error> {
        let host = c_string("address", &address.ip().to_string())?;
        Self::make(Some(address), timeout, |out, failure| {
            // SAFETY: the host lives during the call.
            unsafe { lte_store_connect(host.as_ptr(), address.port(), milliseconds(timeout), out, failure) }
        })
    }

    /// A store within this process.
    ///
    /// # Errors
    /// `Backend`.
    pub fn hash(timeout: Duration) -> Result<Self, Error> {
        Self::make(None, timeout, |out, failure| {
            // SAFETY: `out` and `failure` are places for the call to write to.
            unsafe { lte_store_hash(milliseconds(timeout), out, failure) }
        })
    }

    /// A store in a file on a disk that all `members` share.
    ///
    /// # Errors
    /// `Argument` for a path that c10d cannot take, `Backend`.
    pub fn file(path: &Path, members: usize, timeout: Duration) -> Result<Self, Error> {
        let path = c_string("path", &path.to_string_lossy())?;
        let members = i32::try_from(members).map_err(|_| Error::Argument(format!("{members} members are too many")))?;
        Self::make(None, timeout, |out, failure| {
            // SAFETY: the path lives during the call.
            unsafe { lte_store_file(path.as_ptr(), members, milliseconds(timeout), out, failure) }
        })
    }

    /// A view of this store whose keys are apart from those of any other prefix: one for each generation.
    ///
    /// # Errors
    /// `Argument` for a prefix with a zero byte.
    pub fn prefix(&self, prefix: &str) -> Result<Self, Error> {
        let prefix = c_string("prefix", prefix)?;
        Self::make(self.address, Duration::ZERO, |out, failure| {
            // SAFETY: the prefix lives during the call; the new store holds its own share in this one.
            unsafe { lte_store_prefix(self.raw(), prefix.as_ptr(), out, failure) }
        })
    }

    /// Where it is served; `None` for one that is not served over TCP.
    pub fn address(&self) -> Option<SocketAddr> {
        self.address
    }

    /// Sets `key`.
    ///
    /// # Errors
    /// `PeerGone`, `Timeout`, `Backend`.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Error> {
        let key = c_string("key", key)?;
        let mut failure = 0;
        // SAFETY: key and value live during the call.
        let answer = unsafe { lte_store_set(self.raw(), key.as_ptr(), value.as_ptr(), value.len(), &raw mut failure) };
        check(answer, failure, Duration::ZERO)
    }

    /// The value of `key`, waited for until `deadline` has passed.
    ///
    /// # Errors
    /// `Timeout` if nobody set it, `PeerGone`, `Backend`.
    pub fn get(&self, key: &str, deadline: Duration) -> Result<Vec<u8>, Error> {
        let key = c_string("key", key)?;
        let (mut value, mut length, mut failure) = (std::ptr::null_mut(), 0, 0);
        // SAFETY: the key lives during the call; the rest are places to write to.
        let answer = unsafe {
            lte_store_get(
                self.raw(),
                key.as_ptr(),
                milliseconds(deadline),
                &raw mut value,
                &raw mut length,
                &raw mut failure,
            )
        };
        check(answer, failure, deadline)?;
        // SAFETY: the call succeeded, so `value` holds that many bytes.
        let bytes = unsafe { std::slice::from_raw_parts(value, length) }.to_vec();
        // SAFETY: it was made by that call and is freed once.
        unsafe { lte_store_value_free(value) };
        Ok(bytes)
    }

    pub(super) fn raw(&self) -> *const CStore {
        self.inner.raw
    }

    fn make(
        address: Option<SocketAddr>,
        timeout: Duration,
        call: impl FnOnce(*mut *mut CStore, *mut i32) -> *mut c_char,
    ) -> Result<Self, Error> {
        let (mut raw, mut failure) = (std::ptr::null_mut(), 0);
        let answer = call(&raw mut raw, &raw mut failure);
        check(answer, failure, timeout)?;
        Ok(Self { inner: Arc::new(Inner { raw }), address })
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // SAFETY: `raw` came from one of the constructors and is freed once, here.
        unsafe { lte_store_free(self.raw) };
    }
}

/// An `lte_store`.
pub(super) enum CStore {}

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
    fn lte_store_hash(timeout_ms: i64, out: *mut *mut CStore, failure: *mut i32) -> *mut c_char;
    fn lte_store_file(
        path: *const c_char,
        members: i32,
        timeout_ms: i64,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_prefix(
        store: *const CStore,
        prefix: *const c_char,
        out: *mut *mut CStore,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_free(store: *mut CStore);
    fn lte_store_set(
        store: *const CStore,
        key: *const c_char,
        value: *const u8,
        length: usize,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_get(
        store: *const CStore,
        key: *const c_char,
        timeout_ms: i64,
        value: *mut *mut u8,
        length: *mut usize,
        failure: *mut i32,
    ) -> *mut c_char;
    fn lte_store_value_free(value: *mut u8);
}
