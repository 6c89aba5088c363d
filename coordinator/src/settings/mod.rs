//! The coordinator's process configuration. `configs/coordinator.toml` has its keys and defaults.

mod error;
mod limits;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_core::state::Retries;
use lockstep_host::config::{self, Loaded};
use serde::Deserialize;

pub use self::error::SettingsError;
use self::limits::{Limits, RawLimits};
use crate::node::Policy;
use crate::numbers::hooks::Hooks;

/// The defaults: the text of `configs/coordinator.toml`.
pub const DEFAULTS: &str = include_str!("../../../configs/coordinator.toml");

/// Longest valid pause between retries: one day, because a waiting run keeps its place in the queue.
const LONGEST_PAUSE_MS: u64 = 86_400_000;

/// The keys of all layers together, unchecked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RawSettings {
    listen: String,
    web_listen: String,
    data_dir: PathBuf,
    allow_remote: bool,
    lease_ms: u64,
    tick_ms: u64,
    forget_node_s: u64,
    leave_ms: u64,
    start_limit_s: u64,
    ended_in_memory: usize,
    retries: Retries,
    limits: RawLimits,
    store: RawStore,
    alarms: RawAlarms,
    log: RawLog,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawAlarms {
    command: String,
    webhook: String,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawStore {
    path: PathBuf,
    group: bool,
    patience_ms: u64,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct RawLog {
    level: String,
}

/// The checked configuration: every value is in its valid range.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Address of the gRPC port.
    pub listen: SocketAddr,
    /// Address of the web page; `None`: no page.
    pub web_listen: Option<SocketAddr>,
    /// Directory of the coordinator's state; absolute.
    pub data_dir: PathBuf,
    /// Directory of the blob store; absolute.
    pub store: PathBuf,
    /// Whether the group of the store's directory can read and write the store.
    pub store_group: bool,
    /// Time limit for a blob that a process has written to appear in the store.
    pub store_patience: Duration,
    /// Leases, timeouts and retries.
    pub policy: Policy,
    /// Resources that clients and runs can use.
    pub limits: Limits,
    /// Command and webhook for alarms.
    pub hooks: Hooks,
}

/// Merges the layers: defaults, `file`, environment, and `flags` of the command line as (key, value). The last layer wins.
pub fn load(file: Option<&Path>, flags: &[(&str, toml::Value)]) -> Result<Loaded<RawSettings>, SettingsError> {
    Ok(config::load("LOCKSTEP_COORD_", DEFAULTS, file, flags)?)
}

impl Settings {
    /// Settings of a coordinator for a single job (`--local`): all data in `dir`, a free port, no page.
    ///
    /// Reads no configuration file and no environment variable, so that a cluster's configuration does not affect it.
    pub fn embedded(dir: &Path) -> Self {
        let data_dir = dir.join("coordinator");
        // The default of `coord serve` for this data directory. Version 0.1.0 put the store next to the data directory.
        let store = Some(dir.join("store")).filter(|older| older.is_dir()).unwrap_or_else(|| data_dir.join("store"));
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            web_listen: None,
            data_dir,
            store,
            store_group: false,
            // One machine: a new file is visible at once.
            store_patience: Duration::from_secs(5),
            policy: Policy {
                lease: Duration::from_secs(10),
                tick: Duration::from_millis(50),
                forget_node: Duration::from_hours(168),
                leave: Duration::from_mins(10),
                start: Duration::from_hours(4),
                keep_ended: 100,
                retries: Retries { crashes: 5, transients: 5, pause_ms: 1_000, longest_pause_ms: 60_000 },
            },
            // No reserve: the user has no key to lower it with.
            limits: Limits { disk_reserve: 0, ..Limits::default() },
            hooks: Hooks::default(),
        }
    }
}

impl RawSettings {
    /// The log filter. It is available before [`RawSettings::check`], so that the check itself can log.
    pub fn log_level(&self) -> &str {
        &self.log.level
    }

    /// Checks all values, and resolves paths against the working directory.
    pub fn check(self) -> Result<Settings, SettingsError> {
        let address = |key, text: &str, example, can| {
            let listen = || SettingsError::Listen { key, example, text: text.to_owned() };
            let address: SocketAddr = text.parse().map_err(|_| listen())?;
            if address.ip().is_loopback() || self.allow_remote {
                Ok(address)
            } else {
                Err(SettingsError::Remote { key, can, address })
            }
        };
        let listen = address("listen", &self.listen, "127.0.0.1:7070", "run jobs on every worker")?;
        let web_listen = match self.web_listen.as_str() {
            "" => Some(beside(listen)),
            "off" => None,
            text => Some(address("web_listen", text, "127.0.0.1:7080", "read all data of every run")?),
        };
        let millis = |key, value: u64, least, most| {
            if (least..=most).contains(&value) {
                Ok(Duration::from_millis(value))
            } else {
                Err(SettingsError::Range { key, value, least, most })
            }
        };
        let seconds =
            |key, value: u64, least, most| millis(key, value, least, most).map(|_| Duration::from_secs(value));
        let absolute = |path: &Path| {
            std::path::absolute(path).map_err(|source| SettingsError::Path { path: path.to_owned(), source })
        };
        let data_dir = absolute(&self.data_dir)?;
        let store =
            if self.store.path.as_os_str().is_empty() { data_dir.join("store") } else { absolute(&self.store.path)? };
        if self.store.group && store.starts_with(&data_dir) {
            return Err(SettingsError::StoreOfGroup { store, data_dir });
        }
        Ok(Settings {
            listen,
            web_listen,
            data_dir,
            store,
            store_group: self.store.group,
            store_patience: millis("store.patience_ms", self.store.patience_ms, 0, 3_600_000)?,
            policy: Policy {
                lease: millis("lease_ms", self.lease_ms, 100, 3_600_000)?,
                tick: millis("tick_ms", self.tick_ms, 1, 10_000)?,
                forget_node: Duration::from_secs(self.forget_node_s),
                leave: millis("leave_ms", self.leave_ms, 100, 86_400_000)?,
                start: seconds("start_limit_s", self.start_limit_s, 1, 2_592_000)?,
                keep_ended: self.ended_in_memory.max(1),
                retries: check_retries(self.retries)?,
            },
            limits: self.limits.check()?,
            hooks: self.alarms.check()?,
        })
    }
}

fn check_retries(retries: Retries) -> Result<Retries, SettingsError> {
    let counts = [("retries.crashes", retries.crashes), ("retries.transients", retries.transients)];
    if let Some((key, value)) = counts.into_iter().find(|(_, count)| *count == 0) {
        return Err(SettingsError::Number { key, value: value.into(), least: 1, most: u32::MAX.into() });
    }
    let pauses = [("retries.pause_ms", retries.pause_ms), ("retries.longest_pause_ms", retries.longest_pause_ms)];
    if let Some((key, value)) = pauses.into_iter().find(|(_, pause)| *pause > LONGEST_PAUSE_MS) {
        return Err(SettingsError::Range { key, value, least: 0, most: LONGEST_PAUSE_MS });
    }
    Ok(retries)
}

impl RawAlarms {
    fn check(self) -> Result<Hooks, SettingsError> {
        let some = |text: String| Some(text).filter(|text| !text.trim().is_empty());
        let webhook = match some(self.webhook) {
            Some(text) => match text.parse::<reqwest::Url>() {
                Ok(url) if ["http", "https"].contains(&url.scheme()) => Some(url),
                _ => return Err(SettingsError::Webhook { text }),
            },
            None => None,
        };
        Ok(Hooks { command: some(self.command), webhook })
    }
}

/// Default address of the page: ten ports above `listen`, on the same IP address. A free port if `listen` has port 0 or is too high.
fn beside(listen: SocketAddr) -> SocketAddr {
    let port = if listen.port() == 0 { 0 } else { listen.port().checked_add(10).unwrap_or(0) };
    SocketAddr::new(listen.ip(), port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with(flags: &[(&str, toml::Value)]) -> Result<Settings, SettingsError> {
        load(None, flags)?.value.check()
    }

    #[test]
    fn the_defaults_are_sound_and_the_store_lies_in_the_data_directory() {
        let settings = with(&[]).unwrap();
        assert_eq!(settings.listen.to_string(), "127.0.0.1:7070");
        assert_eq!(settings.web_listen.map(|address| address.to_string()), Some("127.0.0.1:7080".to_owned()));
        assert_eq!(settings.store, settings.data_dir.join("store"));
        assert!(settings.data_dir.is_absolute());
        let embedded = Settings::embedded(Path::new("/x")).policy;
        assert_eq!(embedded.retries, settings.policy.retries, "a local job is retried like other jobs");
        assert_eq!(embedded.forget_node, settings.policy.forget_node);
        assert_eq!(settings.limits, Limits::default());
    }

    #[test]
    fn a_job_of_its_own_has_its_store_where_serve_looks_for_it() {
        let dir = tempfile::tempdir().unwrap();
        let settings = Settings::embedded(dir.path());
        assert_eq!(settings.store, settings.data_dir.join("store"));
        std::fs::create_dir(dir.path().join("store")).unwrap();
        assert_eq!(Settings::embedded(dir.path()).store, dir.path().join("store"));
    }

    #[test]
    fn a_store_of_a_group_lies_where_the_group_gets_in() {
        let group = ("store.group", toml::Value::Boolean(true));
        let error = with(std::slice::from_ref(&group)).unwrap_err().to_string();
        assert!(error.starts_with("key `store.group`: the store `") && error.contains("set `store.path`"), "{error}");
        let outside = ("store.path", toml::Value::String("/srv/blobs".into()));
        assert!(with(&[group, outside]).unwrap().store_group && !with(&[]).unwrap().store_group);
    }

    #[test]
    fn another_address_than_loopback_needs_an_explicit_setting() {
        let listen = ("listen", toml::Value::String("0.0.0.0:0".into()));
        let error = with(std::slice::from_ref(&listen)).unwrap_err().to_string();
        assert!(error.contains("`0.0.0.0:0` is not a loopback address"), "{error}");
        assert!(with(&[listen, ("allow_remote", toml::Value::Boolean(true))]).is_ok());
        let error = with(&[("lease_ms", toml::Value::Integer(1))]).unwrap_err().to_string();
        assert_eq!(error, "key `lease_ms`: 1 is not from 100 to 3600000 milliseconds");
        let error = with(&[("retries.crashes", toml::Value::Integer(0))]).unwrap_err().to_string();
        assert_eq!(error, "key `retries.crashes`: 0 is not from 1 to 4294967295");
        let error = with(&[("limits.connections", toml::Value::Integer(1))]).unwrap_err().to_string();
        assert_eq!(error, "key `limits.connections`: 1 is not from 16 to 1048576");
        let text = |key, text: &str| with(&[(key, toml::Value::String(text.into()))]);
        assert!(matches!(text("listen", "x"), Err(SettingsError::Listen { key: "listen", .. })));
        assert!(matches!(text("web_listen", "0.0.0.0:1"), Err(SettingsError::Remote { key: "web_listen", .. })));
        assert!(matches!(text("alarms.webhook", "ftp://x"), Err(SettingsError::Webhook { .. })));
        assert!(text("alarms.webhook", "https://x/y").unwrap().hooks.webhook.is_some());
        assert_eq!(text("web_listen", "off").unwrap().web_listen, None);
        assert_eq!(text("listen", "127.0.0.1:0").unwrap().web_listen.map(|address| address.port()), Some(0));
    }
}
