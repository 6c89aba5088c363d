//! Parses the command line, runs the command, and prints its failure on standard error.

use std::io;
use std::pin::Pin;
use std::time::Duration;

use clap::Parser as _;
use tokio::runtime::Runtime;
use tokio::signal::unix::{SignalKind, signal};

use crate::args::{Arguments, Command, DataCommand, NodeCommand};
use crate::checkpoints::export;
use crate::checkpoints::list;
use crate::cluster::node;
use crate::cluster::nodes;
use crate::cluster::serve;
use crate::evidence::diff;
use crate::evidence::reproduce;
use crate::evidence::verify;
use crate::provenance::checkout::checkout;
use crate::provenance::data;
use crate::provenance::lineage::lineage;
use crate::runs::annotate;
use crate::runs::cancel;
use crate::runs::start;
use crate::terminal::{Exit, Failure, Output, interrupted, unwritten};
use crate::watch::compare::compare;
use crate::watch::mirror::mirror;
use crate::watch::plot::plot;
use crate::watch::top::top;
use crate::watch::{logs, ps, show};

/// Runs the command line of this process and returns its exit code.
pub fn main() -> Exit {
    match Arguments::try_parse() {
        Ok(arguments) => run(arguments),
        // Either a wrong command line, or the text of `--help` or `--version`.
        Err(said) => match said.print() {
            Ok(()) if said.use_stderr() => Exit::Usage,
            Err(error) if error.kind() != io::ErrorKind::BrokenPipe => tell(&unwritten(&error)),
            _ => Exit::Done,
        },
    }
}

/// Runs the command to its end, and prints why it failed.
fn run(arguments: Arguments) -> Exit {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&Failure::new(Exit::Local, format!("cannot start the threads of `coord`: {error}"))),
    };
    let exit = runtime.block_on(dispatch(arguments.command)).unwrap_or_else(|failure| tell(&failure));
    end(runtime, DISK_GRACE);
    if let Some(reason) = reason(exit, Output::was_silent()) {
        Output::note(&reason);
    }
    exit
}

/// The line to print for an exit code other than 0 if nothing else was printed.
fn reason(exit: Exit, was_silent: bool) -> Option<String> {
    let is_missing = exit != Exit::Done && was_silent;
    is_missing.then(|| format!("ended with code {}: {}", exit.code(), exit.words()))
}

/// How long blocking disk work may continue after the command has ended. A store on a network file system may hang forever.
const DISK_GRACE: Duration = Duration::from_secs(5);

/// Shuts `runtime` down, and abandons blocking work that takes longer than `grace`.
fn end(runtime: Runtime, grace: Duration) {
    runtime.shutdown_timeout(grace);
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    // With this handler, a write beyond `ulimit -f` fails like one on a full disk, and does not kill the process.
    let _file_size = signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()));
    let mut out = Output::default();
    let exit = carry_out(command, &mut out).await?;
    out.delivered(exit)
}

/// One type for the futures of all commands, so that the code that holds them is compiled once.
type Work<'a> = Pin<Box<dyn Future<Output = Result<Exit, Failure>> + 'a>>;

async fn carry_out(command: Command, out: &mut Output) -> Result<Exit, Failure> {
    let work: Work<'_> = match command {
        // These handle signals themselves: they stop a coordinator or workers, or say that the run continues.
        Command::Serve(arguments) => return Box::pin(serve::serve(&arguments.settings)).await,
        Command::Submit(arguments) => return Box::pin(start::submit(arguments, out)).await,
        Command::Resume(arguments) => return Box::pin(start::resume(arguments, out)).await,
        // These cancel their new run when they are interrupted.
        Command::Verify(arguments) => return Box::pin(verify::verify(arguments, out)).await,
        Command::Diff(arguments) => return Box::pin(diff::diff(arguments, out)).await,
        Command::Reproduce(arguments) => return Box::pin(reproduce::reproduce(arguments, out)).await,
        Command::Config(arguments) => return serve::config(&arguments, out),

        Command::Data(DataCommand::Hash(arguments)) => Box::pin(data::hash(arguments, out)),
        Command::Data(DataCommand::Add(arguments)) => Box::pin(data::add(arguments, out)),
        Command::Ps(arguments) => Box::pin(ps::ps(arguments, out)),
        Command::Lineage(arguments) => Box::pin(lineage(arguments, out)),
        Command::Show(arguments) => Box::pin(show::show(arguments, out)),
        Command::Nodes(arguments) => Box::pin(nodes::nodes(arguments, out)),
        Command::Node(NodeCommand::Remove(arguments)) => Box::pin(node::remove(arguments)),
        Command::Fence(arguments) => Box::pin(node::fence(arguments, true)),
        Command::Unfence(arguments) => Box::pin(node::fence(arguments, false)),
        Command::Checkpoints(arguments) => Box::pin(list::checkpoints(arguments, out)),
        Command::Checkout(arguments) => Box::pin(checkout(arguments, out)),
        Command::Export(arguments) => Box::pin(export::export(arguments, out)),
        Command::Manifest(arguments) => Box::pin(list::manifest(arguments, out)),
        Command::Logs(arguments) => Box::pin(logs::logs(arguments, out)),
        Command::Tag(arguments) => Box::pin(annotate::tag(arguments)),
        Command::Note(arguments) => Box::pin(annotate::note(arguments)),
        Command::Mirror(arguments) => Box::pin(mirror(arguments, out)),
        Command::Compare(arguments) => Box::pin(compare(arguments, out)),
        Command::Plot(arguments) => Box::pin(plot(arguments, out)),
        Command::Top(arguments) => Box::pin(top(arguments, out)),
        Command::Cancel(arguments) => Box::pin(cancel::cancel(arguments, out)),
    };
    tokio::select! {
        biased;
        () = interrupted() => Ok(Exit::Interrupted),
        result = work => result,
    }
}

fn tell(failure: &Failure) -> Exit {
    Output::note(&failure.render());
    failure.exit()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Instant;

    use super::*;

    #[test]
    fn every_end_that_is_no_success_has_a_reason() {
        let words = "ended with code 7: verify, diff, reproduce: the bits differ";
        assert_eq!(reason(Exit::Differs, true).as_deref(), Some(words));
        assert_eq!((reason(Exit::Differs, false), reason(Exit::Done, true)), (None, None));
        Output::note("a note");
        assert!(!Output::was_silent());
    }

    #[test]
    fn a_disk_that_hangs_keeps_no_command_from_ending() {
        let runtime = Runtime::new().unwrap();
        let (hold, held) = mpsc::channel::<()>();
        let (begun, has_begun) = mpsc::channel();
        runtime.spawn_blocking(move || {
            begun.send(()).unwrap();
            let _released = held.recv_timeout(Duration::from_mins(1));
        });
        has_begun.recv().unwrap();
        let from = Instant::now();
        end(runtime, Duration::from_millis(50));
        assert!(from.elapsed() < Duration::from_secs(30));
        drop(hold);
    }
}
