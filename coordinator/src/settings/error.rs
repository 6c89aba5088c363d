//! Errors in the coordinator's configuration.

use std::net::SocketAddr;
use std::path::PathBuf;

use lockstep_host::config::ConfigError;

/// The configuration cannot be read, or a key has an invalid value.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// The file cannot be read, or has an unknown key or a value of the wrong type.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// The value is not an address with a port.
    #[error("key `{key}`: `{text}` is not an address: expected IP:PORT, for example {example}")]
    Listen {
        /// The key, with its table.
        key: &'static str,
        /// A valid address, for the message.
        example: &'static str,
        /// The value as given in the file, the environment or an option.
        text: String,
    },
    /// Other machines can reach the address, and `allow_remote` is false.
    #[error(
        "key `{key}`: `{address}` is not a loopback address, and there is no TLS yet: whoever reaches it can {can}"
    )]
    Remote {
        /// The key, with its table.
        key: &'static str,
        /// Consequence of a reachable port, as a verb phrase for the message.
        can: &'static str,
        /// The rejected address with its port.
        address: SocketAddr,
    },
    /// `store.group` is set, but the store is in the data directory, which only its owner can enter.
    #[error(
        "key `store.group`: the store `{}` is in the data directory `{}`, which the group cannot enter; set `store.path` to a directory \
         outside",
        store.display(), data_dir.display()
    )]
    StoreOfGroup {
        /// Absolute path of the store.
        store: PathBuf,
        /// Absolute path of the data directory.
        data_dir: PathBuf,
    },
    /// A time is out of range.
    #[error("key `{key}`: {value} is not from {least} to {most} milliseconds")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// The invalid value, in the key's unit.
        value: u64,
        /// Smallest valid value, in the key's unit.
        least: u64,
        /// Largest valid value, in the key's unit.
        most: u64,
    },
    /// A number is out of range.
    #[error("key `{key}`: {value} is not from {least} to {most}")]
    Number {
        /// The key, with its table.
        key: &'static str,
        /// The invalid value, in the key's unit.
        value: u64,
        /// Smallest valid value, in the key's unit.
        least: u64,
        /// Largest valid value, in the key's unit.
        most: u64,
    },
    /// The value is not an HTTP URL.
    #[error("key `alarms.webhook`: `{text}` is not a web address: expected http:// or https://")]
    Webhook {
        /// The value as given in the file, the environment or an option.
        text: String,
    },
    /// A relative path cannot be resolved, because the working directory was deleted.
    #[error("cannot resolve `{}` to an absolute path", path.display())]
    Path {
        /// The relative path as configured.
        path: PathBuf,
        /// Error of the system.
        #[source]
        source: std::io::Error,
    },
}
