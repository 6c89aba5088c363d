//! Why a configuration is refused.

use std::net::SocketAddr;
use std::path::PathBuf;

use lockstep_host::config::ConfigError;

/// A configuration that was refused.
#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    /// File, key or type.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Not an address.
    #[error("key `{key}`: `{text}` is not an address: expected IP:PORT, as {example}")]
    Listen {
        /// The key, with its table.
        key: &'static str,
        /// What would do.
        example: &'static str,
        /// What was given.
        text: String,
    },
    /// Reachable from other machines, and not said on purpose.
    #[error(
        "key `{key}`: `{address}` is not a loopback address, and there is no TLS yet: whoever reaches it can {can}"
    )]
    Remote {
        /// The key, with its table.
        key: &'static str,
        /// Do what.
        can: &'static str,
        /// The address.
        address: SocketAddr,
    },
    /// A store of a group where only its owner gets in.
    #[error(
        "key `store.group`: the store `{}` lies in the data directory `{}`, which is its owner's alone; set `store.path` to a directory \
         outside",
        store.display(), data_dir.display()
    )]
    StoreOfGroup {
        /// The store.
        store: PathBuf,
        /// Where it lies.
        data_dir: PathBuf,
    },
    /// A time that makes no sense.
    #[error("key `{key}`: {value} is not from {least} to {most} milliseconds")]
    Range {
        /// The key, with its table.
        key: &'static str,
        /// What the file or the environment gives it.
        value: u64,
        /// The least that is allowed, in the key's unit.
        least: u64,
        /// The most that is allowed, in the key's unit.
        most: u64,
    },
    /// A number that is none of those allowed.
    #[error("key `{key}`: {value} is not from {least} to {most}")]
    Number {
        /// The key, with its table.
        key: &'static str,
        /// What the file or the environment gives it.
        value: u64,
        /// The least that is allowed, in the key's unit.
        least: u64,
        /// The most that is allowed, in the key's unit.
        most: u64,
    },
    /// Nothing that can be posted to.
    #[error("key `alarms.webhook`: `{text}` is not a web address: expected http:// or https://")]
    Webhook {
        /// What was given.
        text: String,
    },
    /// The current directory is gone.
    #[error("cannot make `{}` absolute", path.display())]
    Path {
        /// The path.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
}
