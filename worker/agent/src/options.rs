//! What an agent is told at its start: [`Config`] is what people write, [`AgentOptions`] what the agent takes.

use std::ffi::OsString;
use std::net::IpAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, io, thread};

use lockstep_common::NodeId;
use lockstep_common::id::NotAnId;
use lockstep_host::config::{self, ConfigError, Loaded};
use lockstep_host::git::Remotes;
use serde::Deserialize;

/// The commented defaults: a complete configuration file.
pub const DEFAULTS: &str = include_str!("../../../configs/worker.toml");

/// More is a mistake of typing: the coordinator is told each.
const MAX_SLOTS: usize = 1 << 16;

/// Less could not hold two parts of a log.
const MIN_LOG_BYTES: u64 = 8192;

/// What is offered to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// CUDA devices if there are any, else the CPU.
    Auto,
    /// The CPU.
    Cpu,
    /// CUDA devices; none is an error.
    Cuda,
}

/// This worker's part of its machine's CUDA devices, if several workers share them: `I/N`, the `I`-th of `N`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DeviceShare {
    index: usize,
    of: usize,
}

impl DeviceShare {
    /// All of them.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Whether the device at this place in the machine's list is this worker's.
    pub(crate) fn has(self, place: usize) -> bool {
        place % self.of == self.index - 1
    }
}

impl TryFrom<String> for DeviceShare {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        let parts = text.split_once('/').and_then(|(index, of)| Some((index.parse().ok()?, of.parse().ok()?)));
        match parts {
            Some((index, of)) if 1 <= index && index <= of => Ok(Self { index, of }),
            _ => Err(format!("`{text}` is no share: expected `I/N`, as `2/4` for the second of four workers")),
        }
    }
}

/// The keys of `worker.toml`, which documents them.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
#[expect(missing_docs, reason = "configs/worker.toml is the documentation")]
pub struct Config {
    pub join: String,
    pub node: String,
    pub data_dir: String,
    pub bind: IpAddr,
    pub shared_memory: bool,
    pub devices: DeviceChoice,
    pub share: DeviceShare,
    pub slots: usize,
    pub stop_grace_ms: u64,
    pub save_limit_s: u64,
    pub progress_limit_s: u64,
    pub log_bytes: u64,
    pub log_total_bytes: u64,
    pub spool_bytes: u64,
    pub log_runs: usize,
    pub programs_dir: String,
    pub programs: usize,
    pub nvml_library: String,
    pub fetch: Fetch,
    pub environment: Environment,
}

/// `[fetch]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    pub protocols: Vec<String>,
    pub limit_s: u64,
}

/// `[environment]`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    pub pass: Vec<String>,
}

/// The program that an agent starts for each rank process, if the job brings none of its own; the agent adds `--socket S
/// --run R --generation G --process P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankCommand {
    /// The program.
    pub program: PathBuf,
    /// Its first arguments; a job's own program gets them too.
    pub args: Vec<OsString>,
}

/// What an agent needs to know.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The coordinator's gRPC address, `host:port`.
    pub join: String,
    /// The node's name.
    pub node: NodeId,
    /// Spool, logs and socket; one agent at a time.
    pub data_dir: PathBuf,
    /// What is offered.
    pub devices: DeviceChoice,
    /// Of CUDA devices, those of this worker.
    pub share: DeviceShare,
    /// Processes that the CPU takes.
    pub slots: NonZeroUsize,
    /// What is started for each process.
    pub rank_command: RankCommand,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// Without any progress for so long, a process is ended; `None`: never.
    pub progress_limit: Option<Duration>,
    /// Output kept of each process, in bytes.
    pub log_bytes: u64,
    /// Output kept of all processes together, in bytes; that of running ones is kept in any case.
    pub log_total_bytes: u64,
    /// Bytes of reports of one process that wait for the coordinator, above which telemetry goes.
    pub spool_bytes: u64,
    /// Runs whose output is kept.
    pub log_runs: NonZeroUsize,
    /// Where jobs' own programs are built and kept.
    pub programs_dir: PathBuf,
    /// How many of them are kept.
    pub programs: NonZeroUsize,
    /// The NVML library; `None`: where the loader finds it, if it does.
    pub nvml_library: Option<PathBuf>,
    /// How commits are fetched from runs' remotes.
    pub remotes: Remotes,
    /// Variables that rank processes and builds are given beside those that libraries and compilers read.
    pub pass: Vec<String>,
}

/// A configuration that cannot be meant.
#[derive(Debug, thiserror::Error)]
pub enum OptionsError {
    /// The node's name, or the host name that stands for it, is none.
    #[error("key `node`: set it, or correct it")]
    Node(#[source] NotAnId),
    /// There is no place for the data directory.
    #[error("key `data_dir`: neither it nor XDG_STATE_HOME nor HOME is set")]
    NoHome,
    /// There is no place for programs.
    #[error("key `programs_dir`: neither it nor XDG_CACHE_HOME nor HOME is set")]
    NoCache,
    /// A number out of range.
    #[error("key `{key}`: {value} is below {least}")]
    TooSmall {
        /// Which.
        key: &'static str,
        /// As given.
        value: u64,
        /// The least that is taken.
        least: u64,
    },
    /// A number out of range.
    #[error("key `{key}`: {value} is above {most}")]
    TooLarge {
        /// Which.
        key: &'static str,
        /// As given.
        value: usize,
        /// The most that is taken.
        most: usize,
    },
    /// The path of the running program is not known.
    #[error("cannot find the worker's own executable")]
    OwnExecutable(#[source] io::Error),
}

impl Config {
    /// Loads the layers: defaults, `file`, environment, `flags` (keys of `worker.toml`).
    pub fn load(file: Option<&Path>, flags: &[(&str, toml::Value)]) -> Result<Loaded<Self>, ConfigError> {
        config::load("LOCKSTEP_WORKER_", DEFAULTS, file, flags)
    }
}

impl RankCommand {
    /// The running program itself, with the argument `rank`.
    pub fn own() -> Result<Self, OptionsError> {
        let program = env::current_exe().map_err(OptionsError::OwnExecutable)?;
        Ok(Self { program, args: vec!["rank".into()] })
    }
}

impl AgentOptions {
    /// Fills in what `config` leaves to the host; rank processes are started with [`RankCommand::own`].
    pub fn from_config(config: &Config) -> Result<Self, OptionsError> {
        let named = Some(config.node.clone()).filter(|name| !name.is_empty());
        let node = named.unwrap_or_else(crate::machine::host::host_name).parse().map_err(OptionsError::Node)?;
        let data_dir =
            if config.data_dir.is_empty() { default_data_dir(&node)? } else { config.data_dir.clone().into() };
        if config.log_bytes < MIN_LOG_BYTES {
            return Err(OptionsError::TooSmall { key: "log_bytes", value: config.log_bytes, least: MIN_LOG_BYTES });
        }
        if config.slots > MAX_SLOTS {
            return Err(OptionsError::TooLarge { key: "slots", value: config.slots, most: MAX_SLOTS });
        }
        Ok(Self {
            join: config.join.clone(),
            node,
            data_dir,
            devices: config.devices,
            share: config.share,
            slots: NonZeroUsize::new(config.slots).unwrap_or_else(cores),
            rank_command: RankCommand::own()?,
            stop_grace: Duration::from_millis(config.stop_grace_ms),
            progress_limit: Some(Duration::from_secs(config.progress_limit_s)).filter(|limit| !limit.is_zero()),
            log_bytes: config.log_bytes,
            log_total_bytes: config.log_total_bytes,
            spool_bytes: config.spool_bytes,
            log_runs: at_least_one("log_runs", config.log_runs)?,
            programs_dir: match config.programs_dir.as_str() {
                "" => default_programs_dir()?,
                dir => dir.into(),
            },
            programs: at_least_one("programs", config.programs)?,
            nvml_library: Some(PathBuf::from(&config.nvml_library)).filter(|path| !path.as_os_str().is_empty()),
            remotes: Remotes {
                protocols: config.fetch.protocols.clone(),
                limit: Duration::from_secs(config.fetch.limit_s),
            },
            pass: config.environment.pass.clone(),
        })
    }
}

fn at_least_one(key: &'static str, value: usize) -> Result<NonZeroUsize, OptionsError> {
    NonZeroUsize::new(value).ok_or(OptionsError::TooSmall { key, value: 0, least: 1 })
}

fn cores() -> NonZeroUsize {
    thread::available_parallelism().unwrap_or(NonZeroUsize::MIN)
}

fn default_data_dir(node: &NodeId) -> Result<PathBuf, OptionsError> {
    let state = home("XDG_STATE_HOME", ".local/state").ok_or(OptionsError::NoHome)?;
    Ok(state.join("lockstep/worker").join(node.as_str()))
}

fn default_programs_dir() -> Result<PathBuf, OptionsError> {
    Ok(home("XDG_CACHE_HOME", ".cache").ok_or(OptionsError::NoCache)?.join("lockstep/programs"))
}

/// What `variable` says, or `below` the home directory.
fn home(variable: &str, below: &str) -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(variable).or_else(|| Some(set("HOME")?.join(below)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(flags: &[(&str, toml::Value)]) -> Config {
        Config::load(None, flags).unwrap().value
    }

    #[test]
    fn the_defaults_are_a_whole_configuration_and_suffice() {
        let options = AgentOptions::from_config(&config(&[("node", "a".into())])).unwrap();
        assert_eq!(options.join, "127.0.0.1:7070");
        assert_eq!(options.rank_command.args, ["rank"]);
        assert!(options.data_dir.ends_with("lockstep/worker/a"), "{:?}", options.data_dir);
        assert_eq!(options.nvml_library, None);
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_key() {
        let refused = |key: &str, value: toml::Value| {
            AgentOptions::from_config(&config(&[("node", "a".into()), (key, value)])).unwrap_err().to_string()
        };
        assert_eq!(refused("log_bytes", 5.into()), "key `log_bytes`: 5 is below 8192");
        assert_eq!(refused("slots", 4_294_967_295_i64.into()), "key `slots`: 4294967295 is above 65536");
        assert_eq!(refused("log_runs", 0.into()), "key `log_runs`: 0 is below 1");
        assert_eq!(refused("programs", 0.into()), "key `programs`: 0 is below 1");
        assert!(refused("node", "../x".into()).starts_with("key `node`"));
        for (key, value) in [("devices", "gpu"), ("share", "0/2"), ("share", "3/2"), ("share", "1"), ("share", "a/b")] {
            let error = Config::load(None, &[(key, value.into())]).unwrap_err().to_string();
            assert!(error.contains(&format!("`{key}`")), "{error}");
        }
    }
}
