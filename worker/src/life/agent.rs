//! The socket to the agent: one thread reads commands, one writes what the outbox holds, and the training thread touches
//! neither (I7).

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

/// How often the agent is told how this process gets on.
const ALIVE_INTERVAL: Duration = Duration::from_secs(1);

/// A rank process's end of the socket.
#[derive(Debug)]
pub struct AgentConnection {
    outbox: Outbox,
    commands: Receiver<Command>,
    writer: JoinHandle<()>,
}

impl AgentConnection {
    /// Connects to the agent at `socket` and says who is there.
    ///
    /// From now on the process ends when the agent does: without it nobody would know of this process.
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

    /// Where to put what the agent should hear.
    pub fn outbox(&self) -> &Outbox {
        &self.outbox
    }

    /// The assignment, waited for.
    pub fn assigned(&self) -> Assignment {
        self.wait(|command| match command {
            Command::Assign(assignment) => Some(assignment),
            _ => None,
        })
    }

    /// Everybody's addresses, by number, waited for.
    pub fn peers(&self) -> Vec<String> {
        self.wait(|command| match command {
            Command::Start(peers) => Some(peers.addresses),
            _ => None,
        })
    }

    /// Returns when the coordinator has everything that this process said.
    pub fn drained(&self) {
        self.wait(|command| matches!(command, Command::Drained(_)).then_some(()));
    }

    /// Returns when the agent has been told everything.
    pub fn close(self) {
        self.outbox.close();
        // The thread ends the process rather than panic.
        self.writer.join().ok();
    }

    fn wait<T>(&self, wanted: impl Fn(Command) -> Option<T>) -> T {
        let _waits = progress::waits();
        loop {
            // The reader ends the process before it lets go of its end.
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
                // The reader ends the process before it lets go of its end.
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
            Ok(None) => end("the agent has gone"),
            Err(error) => end(&format!("the agent's socket failed: {error}")),
        }
    }
}

fn write(mut stream: UnixStream, outbox: &Outbox) {
    let mut say = |body| {
        if let Err(error) = frame::write(&mut stream, &ProcessMessage { body: Some(body) }) {
            end(&format!("the agent's socket failed: {error}"));
        }
    };
    let mut due = Instant::now() + ALIVE_INTERVAL;
    loop {
        match outbox.pop_until(due) {
            Ok(Some(message)) => say(message.into_body()),
            Ok(None) => {}
            Err(Closed) => break,
        }
        // Also when there is much to say.
        if Instant::now() >= due {
            due = Instant::now() + ALIVE_INTERVAL;
            let progress::Seen { count, phase, step, waits } = progress::seen();
            say(Body::Alive(Alive { count, phase: phase.word().to_owned(), step, waits }));
        }
    }
    stream.flush().ok();
}

/// Ends the process at once: by a signal, which runs no destructor of libtorch under the training thread's feet.
fn end(reason: &str) -> ! {
    // With the agent whoever reads our output may be gone, and a line that cannot be written panics: it must not save us.
    drop(std::panic::catch_unwind(|| error!("{reason}; this process ends")));
    kill_process(getpid(), Signal::KILL).expect("a process may signal itself");
    unreachable!("SIGKILL returns to nobody")
}
