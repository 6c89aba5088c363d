//! The socket to the agent. One thread reads commands, another one sends the messages of the outbox. The training thread never reads from
//! or writes to the socket (invariant I7).

use std::io::{self, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use lockstep_host::progress;
use lockstep_rpc::agent_command::Body as Command;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{AgentCommand, Alive, Assignment, ProcessHello, ProcessMessage, Save, frame};
use rustix::process::{Signal, getpid, kill_process};
use tracing::error;

use crate::checkpoint::Verdicts;
use crate::observe::{Closed, Outbox};

/// Time between two reports of this process's progress to the agent.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A rank process's end of the socket.
#[derive(Debug)]
pub struct AgentConnection {
    outbox: Outbox,
    commands: Receiver<Command>,
    writer: JoinHandle<()>,
}

impl AgentConnection {
    /// Connects to the agent at `socket` and sends `hello`.
    ///
    /// From now on the process ends when the agent ends or the connection breaks, because nobody would supervise it any more.
    pub fn connect(socket: &Path, hello: ProcessHello) -> io::Result<Self> {
        let mut stream = UnixStream::connect(socket)?;
        frame::write(&mut stream, &ProcessMessage { body: Some(Body::Hello(hello)) })?;
        let reading = stream.try_clone()?;
        let (sender, commands) = channel();
        // Never joined: it waits for the agent until the process ends.
        thread::Builder::new().name("agent-in".to_owned()).spawn(move || read(reading, &sender))?;
        let outbox = Outbox::default();
        let saying = outbox.clone();
        let writer = thread::Builder::new().name("agent-out".to_owned()).spawn(move || write(stream, &saying))?;
        Ok(Self { outbox, commands, writer })
    }

    /// The queue of messages to the agent.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// Waits for the assignment.
    pub fn assigned(&self) -> Assignment {
        self.wait(|command| match command {
            Command::Assign(assignment) => Some(assignment),
            _ => None,
        })
    }

    /// Waits for the addresses of all processes of the generation, by process index.
    pub fn peers(&self) -> Vec<String> {
        self.wait(|command| match command {
            Command::Start(peers) => Some(peers.addresses),
            _ => None,
        })
    }

    /// Returns when the coordinator has received all messages of this process.
    pub fn drained(&self) {
        self.wait(|command| matches!(command, Command::Drained(_)).then_some(()));
    }

    /// Closes the outbox, and returns when all its messages have been sent to the agent.
    pub fn close(self) {
        self.outbox.close();
        // The thread does not panic: on an error it ends the process.
        self.writer.join().ok();
    }

    fn wait<T>(&self, wanted: impl Fn(Command) -> Option<T>) -> T {
        let _waits = progress::waits();
        loop {
            // The reading thread ends the process before it drops its end of the channel.
            let command = self.commands.recv().expect("the reading thread lives as long as the process");
            if let Some(found) = wanted(command) {
                return found;
            }
        }
    }
}

impl Verdicts for AgentConnection {
    fn next(&self, patience: Option<Duration>) -> Option<Save> {
        let deadline = patience.map(|patience| Instant::now() + patience);
        loop {
            let command = match deadline {
                Some(deadline) => {
                    self.commands.recv_timeout(deadline.saturating_duration_since(Instant::now())).ok()?
                }
                // The reading thread ends the process before it drops its end of the channel.
                None => self.commands.recv().ok()?,
            };
            if let Command::Save(save) = command {
                return Some(save);
            }
        }
    }
}

fn read(mut stream: UnixStream, commands: &Sender<Command>) {
    loop {
        match frame::read::<AgentCommand>(&mut stream) {
            Ok(Some(AgentCommand { body: Some(command) })) => {
                if commands.send(command).is_err() {
                    return; // The process is ending.
                }
            }
            Ok(Some(AgentCommand { body: None })) => {}
            Ok(None) => end("the agent closed its socket"),
            Err(error) => end(&format!("lost connection to the agent: {error}")),
        }
    }
}

fn write(mut stream: UnixStream, outbox: &Outbox) {
    let mut say = |body| {
        if let Err(error) = frame::write(&mut stream, &ProcessMessage { body: Some(body) }) {
            end(&format!("lost connection to the agent: {error}"));
        }
    };
    let mut due = Instant::now() + ALIVE_INTERVAL;
    loop {
        match outbox.pop_until(due) {
            Ok(Some(message)) => say(message.into_body()),
            Ok(None) => {}
            Err(Closed) => break,
        }
        // Progress is reported on time even if many messages wait.
        if Instant::now() >= due {
            due = Instant::now() + ALIVE_INTERVAL;
            let progress::Seen { count, phase, step, waits } = progress::seen();
            say(Body::Alive(Alive { count, phase: phase.word().to_owned(), step, waits }));
        }
    }
    stream.flush().ok();
}

/// Ends the process at once by SIGKILL: no destructor of libtorch runs while the training thread still uses it.
fn end(reason: &str) -> ! {
    // If the agent has ended, nobody may read our standard error. A line that cannot be written panics; the process must end anyway.
    drop(std::panic::catch_unwind(|| error!("{reason}; this process ends")));
    kill_process(getpid(), Signal::KILL).expect("a process may signal itself");
    unreachable!("SIGKILL returns to nobody")
}
