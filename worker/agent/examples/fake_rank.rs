//! A rank process without a model, for the agent's tests: speaks the socket protocol and trains nothing.
//!
//! `fake_rank MODE --socket S --run R --generation G --process P`. MODE is one of: `train:N` reports N blocks and finishes;
//! `endless` reports blocks until it is stopped; `fail` reports a failure; `vanish` closes its connection but does not end; `die`
//! ends before it connects; `earlier` has the version of a build without a protocol number; `hang` reports the same progress for
//! ever; `wait` reports that it waits for other processes.

use std::env;
use std::io::{self, Error, Write};
use std::os::unix::net::UnixStream;
use std::process::ExitCode;
use std::thread;
use std::time::Duration;

use lockstep_rpc::agent_command::Body as Command;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    AgentCommand, Alive, Assignment, EncodedBlock, Failed, Finished, ProcessHello, ProcessMessage, Ready, ReportBlock,
    StepReport, frame,
};

fn main() -> io::Result<ExitCode> {
    let args: Vec<String> = env::args().collect();
    let value = |name: &str| {
        let at = args.iter().position(|arg| arg == name).ok_or_else(|| Error::other(format!("no {name}")))?;
        args.get(at + 1).cloned().ok_or_else(|| Error::other(format!("{name} without a value")))
    };
    let number = |name: &str| value(name)?.parse::<u32>().map_err(Error::other);
    let mode = args.get(1).ok_or_else(|| Error::other("no mode"))?;
    let mut out = io::stdout();
    let mut err = io::stderr();
    writeln!(out, "first line")?;
    writeln!(err, "second line")?;
    if mode == "die" {
        writeln!(err, "cannot go on")?;
        return Ok(ExitCode::from(7));
    }

    let mut socket = UnixStream::connect(value("--socket")?)?;
    let (run, generation, process) = (value("--run")?, number("--generation")?, number("--process")?);
    let protocol = if mode == "earlier" { 0 } else { lockstep_rpc::PROTOCOL };
    let version = "0.1.0".to_owned();
    say(&mut socket, Body::Hello(ProcessHello { run, generation: generation.into(), process, protocol, version }))?;
    let Some(Command::Assign(assignment)) = hear(&mut socket)? else { return Err(Error::other("no assignment")) };
    if mode == "fail" {
        say(&mut socket, Body::Failed(Failed { reason: "there is nothing to learn".into(), transient: false }))?;
        return Ok(ExitCode::from(1));
    }
    if mode == "vanish" {
        drop(socket);
        loop {
            thread::park();
        }
    }
    say(&mut socket, Body::Ready(ready(&assignment)))?;
    let Some(Command::Start(start)) = hear(&mut socket)? else { return Err(Error::other("no peers")) };
    writeln!(out, "peers {}", start.addresses.join(" "))?;

    if mode == "hang" || mode == "wait" {
        loop {
            let alive = Alive { count: 7, phase: "training".into(), step: 3, waits: mode == "wait" };
            say(&mut socket, Body::Alive(alive))?;
            thread::sleep(Duration::from_millis(50));
        }
    }
    let steps = mode.strip_prefix("train:").and_then(|steps| steps.parse().ok()).unwrap_or(u64::MAX);
    for step in 1..=steps {
        let steps = vec![StepReport { step, loss: (1.0 / step as f64).to_bits(), ..Default::default() }];
        say(&mut socket, Body::Block(EncodedBlock::of(ReportBlock { process, steps, ..Default::default() })))?;
        writeln!(out, "step {step}")?;
        thread::sleep(Duration::from_millis(2));
    }
    say(&mut socket, Body::Finished(Finished { step: steps, state: vec![7; 32] }))?;
    let Some(Command::Drained(_)) = hear(&mut socket)? else { return Err(Error::other("not drained")) };
    writeln!(out, "drained")?;
    Ok(ExitCode::SUCCESS)
}

fn ready(assignment: &Assignment) -> Ready {
    let numerics = [("OMP_NUM_THREADS".to_owned(), env::var("OMP_NUM_THREADS").unwrap_or_default())];
    let restore = assignment.restore.as_ref().map(|restore| String::from_utf8_lossy(&restore.checkpoint).into_owned());
    let environment = [
        ("pid".to_owned(), std::process::id().to_string()),
        ("device".to_owned(), assignment.device.clone()),
        ("restore".to_owned(), restore.unwrap_or_default()),
    ];
    Ready { address: "127.0.0.1:1".into(), numerics: numerics.into(), environment: environment.into() }
}

fn say(socket: &mut UnixStream, body: Body) -> io::Result<()> {
    frame::write(socket, &ProcessMessage { body: Some(body) })
}

fn hear(socket: &mut UnixStream) -> io::Result<Option<Command>> {
    Ok(frame::read::<AgentCommand>(socket)?.and_then(|command| command.body))
}
