//! Options of an agent: [`Config`] has the keys of `worker.toml`, [`AgentOptions`] the checked values.

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

/// Upper limit of `slots`. Each slot is sent to the coordinator as a device; a larger number is a typing mistake.
const MAX_SLOTS: usize = 1 << 16;

/// Lower limit of `log_bytes`: a log is stored in two parts of half that size.
const MIN_LOG_BYTES: u64 = 8192;

/// Which devices are offered to the coordinator.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceChoice {
    /// CUDA devices if there are any, else the CPU.
    Auto,
    /// The CPU, once for each slot.
    Cpu,
    /// CUDA devices; it is an error if there is none.
    Cuda,
}

/// Which of the machine's CUDA devices this worker offers, if several workers share them. Share `I/N` has every `N`-th device,
/// beginning with the `I`-th.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct DeviceShare {
    index: usize,
    of: usize,
}

impl DeviceShare {
    /// All devices: `1/1`.
    pub const WHOLE: Self = Self { index: 1, of: 1 };

    /// Whether this share has the device at index `place` of the machine's list.
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
            _ => Err(format!("`{text}` is not a share: expected `I/N`, such as `2/4` for the second of four workers")),
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

/// Table `[fetch]` of `worker.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Fetch {
    pub protocols: Vec<String>,
    pub limit_s: u64,
}

/// Table `[environment]` of `worker.toml`.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    pub pass: Vec<String>,
}

/// The program that an agent starts for each rank process of a job without a program of its own. The agent adds the arguments
/// `--socket S --run R --generation G --process P`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankCommand {
    /// Path of the executable.
    pub program: PathBuf,
    /// The first arguments, which a job's own program gets, too.
    pub args: Vec<OsString>,
}

/// Checked options of an agent.
#[derive(Clone, Debug)]
pub struct AgentOptions {
    /// The coordinator's gRPC address, `host:port`.
    pub join: String,
    /// This node's name, unique in the cluster.
    pub node: NodeId,
    /// Directory of spool, logs and socket. One agent at a time can use it.
    pub data_dir: PathBuf,
    /// Which devices are offered to the coordinator.
    pub devices: DeviceChoice,
    /// Share of the machine's CUDA devices that is offered.
    pub share: DeviceShare,
    /// Number of processes on the CPU, if it is offered.
    pub slots: NonZeroUsize,
    /// Command of a rank process.
    pub rank_command: RankCommand,
    /// Time between SIGTERM and SIGKILL.
    pub stop_grace: Duration,
    /// A process without progress for this long is stopped; `None`: no limit.
    pub progress_limit: Option<Duration>,
    /// Output kept of each process, in bytes.
    pub log_bytes: u64,
    /// Output kept of all processes together, in bytes. Output of running processes is never deleted.
    pub log_total_bytes: u64,
    /// Unacknowledged reports of one process, in bytes, above which its oldest telemetry is dropped.
    pub spool_bytes: u64,
    /// Number of runs whose output is kept.
    pub log_runs: NonZeroUsize,
    /// Directory in which programs of jobs are built and kept.
    pub programs_dir: PathBuf,
    /// Number of programs that are kept.
    pub programs: NonZeroUsize,
    /// Path of the NVML library; `None`: `libnvidia-ml.so.1`, if the loader finds it.
    pub nvml_library: Option<PathBuf>,
    /// Protocols and time limit for fetching commits from the remotes of runs.
    pub remotes: Remotes,
    /// Further environment variables for rank processes and builds; `NAME_*` stands for all with that prefix.
    pub pass: Vec<String>,
}

/// A configuration that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains its fields")]
pub enum OptionsError {
    /// The value of `node`, or the host name in its place, is not a valid name.
    #[error("key `node`: set it to a valid name; without it the host name is used")]
    Node(#[source] NotAnId),
    /// No directory is known for the agent's data.
    #[error("key `data_dir`: set it, XDG_STATE_HOME or HOME: without them there is no data directory")]
    NoHome,
    /// No directory is known for programs.
    #[error("key `programs_dir`: set it, XDG_CACHE_HOME or HOME: without them there is no directory for programs")]
    NoCache,
    /// A number below its lower limit.
    #[error("key `{key}`: {value} is below {least}")]
    TooSmall { key: &'static str, value: u64, least: u64 },
    /// A number above its upper limit.
    #[error("key `{key}`: {value} is above {most}")]
    TooLarge { key: &'static str, value: usize, most: usize },
    /// The system does not tell the path of the running program.
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
    /// Checks `config`, and fills empty keys from the host: name, directories, number of cores. Rank processes are started with
    /// [`RankCommand::own`].
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

/// The directory that `variable` names, or `below` in the home directory; `None` if neither is set.
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
