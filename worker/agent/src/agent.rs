//! The life of an agent: set-up, one loop that owns all state, an orderly shutdown.

use std::fs;
use std::future::pending;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::pin::Pin;
use std::time::Duration;

use lockstep_host::durable::{self, DirLock};
use lockstep_host::plain;
use lockstep_rpc::{AgentMessage, Hello};
use tokio::sync::mpsc;
use tokio::time::{self, Instant, MissedTickBehavior};
use tokio_util::sync::CancellationToken;
use tracing::info;

use crate::error::AgentError;
use crate::event::{EVENT_CAPACITY, Event};
use crate::machine::devices;
use crate::machine::nvml::Monitor;
use crate::options::AgentOptions;
use crate::session::Session;
use crate::socket::Socket;
use crate::supervisor::Supervisor;

/// Pause between attempts to write reports that failed, on a full disk for example. Log messages say `every second`.
const DISK_RETRY_INTERVAL: Duration = Duration::from_secs(1);
/// Upper limit for the size of `agent.id`; a larger file is an error.
const ID_BYTES: u64 = 1 << 10;
/// Pause between two checks for hung processes.
const LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// How long a leaving agent waits for the coordinator to acknowledge the last reports. The next agent on the same
/// directory sends the rest.
const FAREWELL: Duration = Duration::from_secs(1);

/// Runs an agent until `shutdown`, then stops its processes and returns.
///
/// Failures after the start (no coordinator, dead processes, a full disk) are logged and retried. Only a refusal by the
/// coordinator at the first join ends the agent: [`AgentError::Refused`].
// Boxed: otherwise each program that calls it compiles the body of the `async fn` again.
pub fn run(
    options: AgentOptions,
    shutdown: CancellationToken,
) -> Pin<Box<dyn Future<Output = Result<(), AgentError>> + Send>> {
    Box::pin(live(options, shutdown))
}

async fn live(options: AgentOptions, shutdown: CancellationToken) -> Result<(), AgentError> {
    let _lock = DirLock::acquire(&options.data_dir).map_err(AgentError::DataDir)?;
    let visible = std::env::var("CUDA_VISIBLE_DEVICES").ok();
    let monitor = Monitor::open(options.nvml_library.as_deref(), visible.as_deref())?;
    let hello = hello(&options, monitor.as_ref())?;
    let devices = hello.devices.iter().map(|device| device.name.clone()).collect();
    let (events, inbox) = mpsc::channel(EVENT_CAPACITY);
    let mut session = Session::new(&options.join, hello, events.clone())
        .ok_or_else(|| AgentError::Address { address: options.join.clone() })?;
    let socket = Socket::bind(&options.data_dir)
        .map_err(|source| AgentError::Path { path: options.data_dir.join("agent.sock"), source })?;
    let known = options.data_dir.join("coordinator");
    let supervisor = Supervisor::new(options, devices, socket.path().to_owned(), monitor, events.clone())?;
    let remembered = session.remember(&known, supervisor.has_reports());
    remembered.map_err(|source| AgentError::Path { path: known, source })?;

    let end = CancellationToken::new();
    let session = tokio::spawn(session.keep(end.clone()));
    let socket = tokio::spawn(socket.serve(events, end.clone()));
    let supervisor = Box::pin(own(supervisor, inbox, shutdown)).await;
    end.cancel();
    session.await.expect("the session does not panic");
    socket.await.expect("the socket does not panic");
    let refused = supervisor.refused().map(str::to_owned);
    supervisor.close().await;
    info!("the agent has ended");
    refused.map_or(Ok(()), |why| Err(AgentError::Refused(why)))
}

/// The id of this data directory: random, drawn once and stored in `agent.id`, followed by the file's inode number, so that a copy
/// of the directory has another id.
fn own_id(data_dir: &Path) -> Result<String, AgentError> {
    let path = data_dir.join("agent.id");
    let error = |source| AgentError::Path { path: path.clone(), source };
    let read = || String::from_utf8(plain::read(&path, ID_BYTES)?).map_err(io::Error::other);
    let id = match read() {
        Ok(text) if !text.trim().is_empty() => text.trim().to_owned(),
        Ok(_) => draw_id(&path)?,
        Err(missing) if missing.kind() == io::ErrorKind::NotFound => draw_id(&path)?,
        Err(source) => return Err(error(source)),
    };
    let number = fs::metadata(&path).map_err(error)?.ino();
    Ok(format!("{id}-{number:x}"))
}

fn draw_id(path: &Path) -> Result<String, AgentError> {
    let id = random()?;
    durable::write_atomic(path, id.as_bytes()).map_err(|source| AgentError::Path { path: path.to_owned(), source })?;
    Ok(id)
}

fn random() -> Result<String, AgentError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(AgentError::Randomness)?;
    Ok(format!("{:032x}", u128::from_be_bytes(bytes)))
}

fn hello(options: &AgentOptions, monitor: Option<&Monitor>) -> Result<Hello, AgentError> {
    let devices = devices::offered(options.devices, options.share, options.slots, monitor)?;
    let model = devices.first().map_or("CUDA devices: its `share` has none", |device| &device.model);
    info!("node `{}` offers {} × {model}", options.node, devices.len());
    Ok(Hello {
        node: options.node.to_string(),
        incarnation: random()?,
        host: crate::machine::host::host_name(),
        devices,
        version: env!("CARGO_PKG_VERSION").into(),
        protocol: lockstep_rpc::PROTOCOL,
        agent: own_id(&options.data_dir)?,
        // The session fills in what it knows of the coordinator.
        ..Hello::default()
    })
}

/// Runs the event loop until the agent has left the cluster.
async fn own(mut supervisor: Supervisor, mut inbox: mpsc::Receiver<Event>, shutdown: CancellationToken) -> Supervisor {
    let mut disk_retry = time::interval(DISK_RETRY_INTERVAL);
    disk_retry.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut look = time::interval(LOOK_INTERVAL);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut looked = Instant::now();
    let mut farewell: Option<Instant> = None;
    loop {
        supervisor.pump();
        if supervisor.is_leaving() && supervisor.is_empty() {
            let deadline = *farewell.get_or_insert_with(|| Instant::now() + FAREWELL);
            if supervisor.is_told() || Instant::now() >= deadline {
                return supervisor;
            }
        }
        let room = room(supervisor.blocked_on());
        tokio::select! {
            // Shutdown first, so that no event delays it; then events, which free memory and connections; then sending;
            // the timers can wait.
            biased;
            () = shutdown.cancelled(), if !supervisor.is_leaving() => supervisor.leave(),
            event = inbox.recv() => supervisor.handle(event.expect("the supervisor holds a sender")),
            () = room => {}
            _ = look.tick() => {
                let before = std::mem::replace(&mut looked, Instant::now());
                supervisor.end_hung(before.elapsed() > LOOK_INTERVAL * 3);
            }
            _ = disk_retry.tick(), if supervisor.waits_for_disk() => supervisor.retry(),
            () = time::sleep_until(farewell.unwrap_or_else(Instant::now)), if farewell.is_some() => {}
        }
    }
}

/// Waits until `outbox` has room. Never returns for a closed outbox: an event reports the end of the stream.
async fn room(outbox: Option<mpsc::Sender<AgentMessage>>) {
    if let Some(outbox) = outbox
        && outbox.reserve().await.is_ok()
    {
        return;
    }
    pending::<()>().await;
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::process::Command;

    use lockstep_common::chain;

    use super::*;

    #[test]
    fn the_id_of_a_directory_is_drawn_once_and_nothing_else_in_its_place_is_read_or_waited_for() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.id");
        let id = own_id(dir.path()).unwrap();
        assert_eq!(own_id(dir.path()).unwrap(), id);
        let refused = |words: &str| {
            let said = chain(&own_id(dir.path()).unwrap_err());
            assert!(said.contains(&path.display().to_string()) && said.contains(words), "{said}");
            fs::remove_file(&path).unwrap();
        };
        fs::write(&path, "x".repeat(5000)).unwrap();
        refused("more than 1024 bytes");
        assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
        refused("not a regular file");
        let other = dir.path().join("other");
        File::create(&other).unwrap();
        std::os::unix::fs::symlink(&other, &path).unwrap();
        refused("a symbolic link, not a regular file");
    }
}
