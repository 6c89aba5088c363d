//! The name of this machine.

/// The host name, as `uname -n` prints it; bytes that are not UTF-8 are replaced.
pub(crate) fn host_name() -> String {
    rustix::system::uname().nodename().to_string_lossy().into_owned()
}
