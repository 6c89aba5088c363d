//! Python for many programs of one test.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Mutex;

use serde_json::Value;

use crate::repository;

/// `tests/oracle/again.py`: an interpreter that loads packages once, for the first program.
#[derive(Debug)]
pub struct Again(Mutex<Interpreter>);

#[derive(Debug)]
struct Interpreter {
    command: Command,
    running: Option<Running>,
}

#[derive(Debug)]
struct Running {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

/// How one run ended.
#[derive(Debug)]
pub struct Outcome {
    /// The exit code.
    pub code: i64,
    /// Standard output, a `char` a byte.
    pub printed: String,
    /// Standard error.
    pub said: String,
}

impl Again {
    /// `python` is an interpreter with the directory and variables that its programs are to have.
    pub fn new(mut python: Command, packages: &[&str]) -> Self {
        let script = repository().join("tests/oracle/again.py");
        python.arg(script).args(packages).stdin(Stdio::piped()).stdout(Stdio::piped());
        Self(Mutex::new(Interpreter { command: python, running: None }))
    }

    /// Runs a program: a file, or `-m` and a module, and its arguments.
    pub fn run(&self, program: &[&str]) -> Outcome {
        let mut interpreter = self.0.lock().expect("a test has one thread");
        let Interpreter { command, running } = &mut *interpreter;
        let running = running.get_or_insert_with(|| Running::start(command));
        let mut line = String::new();
        writeln!(running.input.as_mut().expect("it runs"), "{}", Value::from(program)).expect("it reads");
        running.output.read_line(&mut line).expect("it answers");
        let outcome: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{program:?}: {error}: {line}"));
        let text = |key: &str| outcome[key].as_str().expect("a text").to_owned();
        Outcome { code: outcome["code"].as_i64().expect("a code"), printed: text("printed"), said: text("said") }
    }
}

impl Running {
    fn start(command: &mut Command) -> Self {
        let mut child = command.spawn().expect("set-up installed Python");
        let output = BufReader::new(child.stdout.take().expect("it is piped"));
        Self { input: child.stdin.take(), child, output }
    }
}

impl Drop for Running {
    /// Without input it ends.
    fn drop(&mut self) {
        self.input = None;
        let _ = self.child.wait();
    }
}
