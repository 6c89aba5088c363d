//! From words to a command, and from a failure to lines on standard error.

use tokio::runtime::Runtime;

use super::args::{Arguments, Command, DataCommand};
use super::checkout::checkout;
use super::compare::compare;
use super::error::Failure;
use super::exit::Exit;
use super::fence::fence;
use super::interrupt::interrupted;
use super::lineage::lineage;
use super::mirror::mirror;
use super::output::Output;
use super::plot::plot;
use super::top::top;
use super::{annotate, data, diff, export, readers, reproduce, serve, start, verify};

/// Carries out the command, and tells what hindered it.
pub fn run(arguments: Arguments) -> Exit {
    let runtime = match Runtime::new() {
        Ok(runtime) => runtime,
        Err(error) => return tell(&Failure::new(Exit::Local, format!("cannot start the runtime: {error}"))),
    };
    runtime.block_on(dispatch(arguments.command)).unwrap_or_else(|failure| tell(&failure))
}

async fn dispatch(command: Command) -> Result<Exit, Failure> {
    let mut out = Output::default();
    let exit = carry_out(command, &mut out).await?;
    out.delivered(exit)
}

async fn carry_out(command: Command, out: &mut Output) -> Result<Exit, Failure> {
    match command {
        // These see to signals by themselves: something of theirs has to be ended, or goes on.
        Command::Serve(arguments) => Box::pin(serve::serve(&arguments.settings)).await,
        Command::Submit(arguments) => Box::pin(start::submit(arguments, out)).await,
        Command::Resume(arguments) => Box::pin(start::resume(arguments, out)).await,
        // A replay is cancelled with them.
        Command::Verify(arguments) => Box::pin(verify::verify(arguments, out)).await,
        Command::Diff(arguments) => Box::pin(diff::diff(arguments, out)).await,
        Command::Reproduce(arguments) => Box::pin(reproduce::reproduce(arguments, out)).await,
        Command::Data(DataCommand::Hash(arguments)) => unless_interrupted(data::hash(arguments, out)).await,
        Command::Data(DataCommand::Add(arguments)) => unless_interrupted(data::add(arguments, out)).await,
        Command::Config(arguments) => serve::config(&arguments, out),
        Command::Ps(arguments) => unless_interrupted(readers::ps(arguments, out)).await,
        Command::Lineage(arguments) => unless_interrupted(lineage(arguments, out)).await,
        Command::Show(arguments) => unless_interrupted(readers::show(arguments, out)).await,
        Command::Nodes(arguments) => unless_interrupted(readers::nodes(&arguments, out)).await,
        Command::Fence(arguments) => unless_interrupted(fence(arguments, true)).await,
        Command::Unfence(arguments) => unless_interrupted(fence(arguments, false)).await,
        Command::Checkpoints(arguments) => unless_interrupted(readers::checkpoints(arguments, out)).await,
        Command::Checkout(arguments) => unless_interrupted(checkout(arguments, out)).await,
        Command::Export(arguments) => unless_interrupted(export::export(arguments, out)).await,
        Command::Manifest(arguments) => unless_interrupted(readers::manifest(arguments, out)).await,
        Command::Logs(arguments) => unless_interrupted(readers::logs(arguments, out)).await,
        Command::Tag(arguments) => unless_interrupted(annotate::tag(arguments)).await,
        Command::Note(arguments) => unless_interrupted(annotate::note(arguments)).await,
        Command::Mirror(arguments) => unless_interrupted(Box::pin(mirror(arguments, out))).await,
        Command::Compare(arguments) => unless_interrupted(compare(arguments, out)).await,
        Command::Plot(arguments) => unless_interrupted(plot(arguments, out)).await,
        Command::Top(arguments) => unless_interrupted(top(arguments, out)).await,
        Command::Cancel(arguments) => unless_interrupted(start::cancel(arguments, out)).await,
    }
}

async fn unless_interrupted(work: impl Future<Output = Result<Exit, Failure>>) -> Result<Exit, Failure> {
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
