//! The Unix socket on which rank processes connect: it takes their messages and sends them commands.

use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use lockstep_rpc::frame::{self, MAX_FRAME_BYTES};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentCommand, Failed, ProcessMessage};
use prost::Message;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{UnixListener, UnixSocket, UnixStream};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;
use tokio_stream::StreamExt;
use tokio_util::codec::{FramedRead, LengthDelimitedCodec};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::child::ProcessKey;
use crate::event::{ConnectionId, Event};

/// Length of the longest path that the kernel accepts for a socket, without the terminating zero.
const MAX_PATH_BYTES: usize = 107;
/// Connections that wait to be accepted; the standard library has the same number.
const BACKLOG: u32 = 128;
/// Time limit for the first message of a process, which it sends before it loads anything.
const HELLO_DEADLINE: Duration = Duration::from_secs(10);
/// Commands that wait to be sent to a process: its assignment, its peers, the fate of a checkpoint, the permission to end.
const COMMAND_CAPACITY: usize = 4;
/// Pause after a failed accept (no free descriptor), in which connections may end and free one.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// The bound socket. [`Socket::serve`] deletes its file at the end.
#[derive(Debug)]
pub(crate) struct Socket {
    path: PathBuf,
    listener: UnixListener,
    _short_dir: Option<TempDir>,
}

impl Socket {
    /// Binds `agent.sock` in `data_dir`, which the caller has locked, or in a temporary directory if that path is too long.
    pub(crate) fn bind(data_dir: &Path) -> io::Result<Self> {
        let mut path = std::path::absolute(data_dir)?.join("agent.sock");
        let mut short_dir = None;
        if path.as_os_str().as_bytes().len() > MAX_PATH_BYTES {
            let dir = tempfile::Builder::new().prefix("lockstep-").tempdir()?;
            path = dir.path().join("agent.sock");
            short_dir = Some(dir);
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let socket = UnixSocket::new_stream()?;
        // Before `bind` gives the socket a name, so that no other user can connect in between.
        fs::File::from(socket.as_fd().try_clone_to_owned()?).set_permissions(fs::Permissions::from_mode(0o600))?;
        socket.bind(&path)?;
        let listener = socket.listen(BACKLOG)?;
        Ok(Self { path, listener, _short_dir: short_dir })
    }

    /// Path of the socket's file.
    pub(crate) fn path(&self) -> &OsStr {
        self.path.as_os_str()
    }

    /// Serves connections until `shutdown`, and sends what they do to `events`.
    pub(crate) async fn serve(self, events: mpsc::Sender<Event>, shutdown: CancellationToken) {
        let connections = TaskTracker::new();
        let mut id: ConnectionId = 0;
        loop {
            let accepted = tokio::select! {
                biased; // A closing socket accepts no connection.
                () = shutdown.cancelled() => break,
                accepted = self.listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, _)) => {
                    id += 1;
                    let (events, shutdown) = (events.clone(), shutdown.clone());
                    connections.spawn(async move {
                        tokio::select! {
                            biased; // As above.
                            () = shutdown.cancelled() => {}
                            () = converse(stream, id, events) => {}
                        }
                    });
                }
                Err(error) => {
                    warn!("cannot accept a process's connection: {error}; retrying in {ACCEPT_PAUSE:?}");
                    tokio::time::sleep(ACCEPT_PAUSE).await;
                }
            }
        }
        connections.close();
        connections.wait().await;
        fs::remove_file(&self.path).ok();
    }
}

/// One connection from its first frame to its end.
async fn converse(stream: UnixStream, connection: ConnectionId, events: mpsc::Sender<Event>) {
    let (read, write) = stream.into_split();
    let codec = LengthDelimitedCodec::builder().max_frame_length(MAX_FRAME_BYTES).new_codec();
    let mut frames = FramedRead::new(read, codec);
    let (key, misfit) = match timeout(HELLO_DEADLINE, hello(&mut frames)).await {
        Ok(Ok(hello)) => hello,
        Ok(Err(detail)) => return warn!("rejected a connection on the agent's socket: {detail}"),
        Err(_) => return warn!("closed a connection on the agent's socket: no message within {HELLO_DEADLINE:?}"),
    };
    let (commands, commands_in) = mpsc::channel(COMMAND_CAPACITY);
    if events.send(Event::Joined { key: key.clone(), connection, commands }).await.is_err() {
        return;
    }
    if let Some(reason) = misfit {
        warn!("{key}: {reason}");
        fail(&key, connection, reason, &events).await;
        events.send(Event::HungUp { key, connection }).await.ok();
        return;
    }
    // The owner closes a connection by dropping its sender of commands.
    tokio::select! {
        biased; // Messages that have arrived count, even if the process takes no answer.
        () = listen(&mut frames, &key, connection, &events) => {}
        () = tell(write, commands_in) => {}
    }
    events.send(Event::HungUp { key, connection }).await.ok();
}

type Frames = FramedRead<OwnedReadHalf, LengthDelimitedCodec>;

/// The key of the process, and, if its build does not match this one, the reason to reject it.
async fn hello(frames: &mut Frames) -> Result<(ProcessKey, Option<String>), String> {
    match next(frames).await? {
        Some(ProcessMessage { body: Some(Body::Hello(hello)) }) => {
            let key =
                ProcessKey::new(&hello.run, hello.generation, hello.process).map_err(|error| error.to_string())?;
            Ok((key, lockstep_rpc::misfit("the rank process", &hello.version, hello.protocol)))
        }
        Some(_) => Err("its first message is not a hello".into()),
        None => Err("it was closed before its first message".into()),
    }
}

/// Reports for the process that it failed, with a reason that a retry would meet again.
async fn fail(key: &ProcessKey, connection: ConnectionId, reason: String, events: &mpsc::Sender<Event>) {
    let message = ProcessMessage { body: Some(Body::Failed(Failed { reason, transient: false })) };
    let (accepted, answer) = oneshot::channel();
    if events.send(Event::Message { key: key.clone(), connection, message, accepted }).await.is_ok() {
        answer.await.ok();
    }
}

async fn next(frames: &mut Frames) -> Result<Option<ProcessMessage>, String> {
    match frames.next().await {
        None => Ok(None),
        Some(Ok(frame)) => ProcessMessage::decode(frame).map(Some).map_err(|error| error.to_string()),
        Some(Err(error)) => Err(error.to_string()),
    }
}

async fn listen(frames: &mut Frames, key: &ProcessKey, connection: ConnectionId, events: &mpsc::Sender<Event>) {
    loop {
        let message = match next(frames).await {
            Ok(Some(message)) => message,
            Ok(None) => return,
            Err(detail) => return warn!("cannot read a message of {key}: {detail}; its connection is closed"),
        };
        let (accepted, answer) = oneshot::channel();
        let said = Event::Message { key: key.clone(), connection, message, accepted };
        if events.send(said).await.is_err() || answer.await.is_err() {
            return;
        }
    }
}

async fn tell(mut write: OwnedWriteHalf, mut commands: mpsc::Receiver<AgentCommand>) {
    while let Some(command) = commands.recv().await {
        if let Err(error) = write.write_all(&frame::encode(&command)).await {
            // The reading half may still hold messages, and ends by itself.
            debug!("cannot send a command to a process: {error}");
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_path_too_long_for_the_kernel_moves_to_a_short_one_and_leaves_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let deep = dir.path().join("d".repeat(60)).join("e".repeat(60));
        fs::create_dir_all(&deep).unwrap();
        let socket = Socket::bind(&deep).unwrap();
        assert!(socket.path().len() <= MAX_PATH_BYTES && !Path::new(socket.path()).starts_with(&deep));
        let path = socket.path.clone();
        UnixStream::connect(&path).await.unwrap();
        drop(socket);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_socket_left_by_a_killed_agent_is_replaced() {
        let dir = tempfile::tempdir().unwrap();
        drop(Socket::bind(dir.path()).unwrap());
        let socket = Socket::bind(dir.path()).unwrap();
        assert_eq!(socket.path(), dir.path().join("agent.sock").as_os_str());
        UnixStream::connect(socket.path()).await.unwrap();
    }
}
