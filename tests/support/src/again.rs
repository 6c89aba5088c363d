//! Runs many Python programs in one test without importing PyTorch for each.

use std::process::Command;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use serde_json::Value;

use crate::{Outcome, Process, repository};

/// A Python interpreter that imports packages once, at the first program, and forks for each program: `tests/oracle/again.py`.
#[derive(Debug)]
pub struct Again(Mutex<Interpreter>);

#[derive(Debug)]
struct Interpreter {
    command: Command,
    running: Option<(Process, Receiver<String>)>,
}

impl Again {
    /// `python` is the interpreter, with working directory and environment of its programs; `packages` are imported once.
    pub fn new(mut python: Command, packages: &[&str]) -> Self {
        python.arg(repository().join("tests/oracle/again.py")).args(packages);
        Self(Mutex::new(Interpreter { command: python, running: None }))
    }

    /// Runs a program: a file, or `-m` and a module, with arguments. Each byte of its standard output becomes one `char`.
    pub fn run(&self, program: &[&str]) -> Outcome {
        let mut interpreter = self.0.lock().expect("a test has one thread");
        let Interpreter { command, running } = &mut *interpreter;
        let (process, answers) = running.get_or_insert_with(|| {
            let (answer, answers) = channel();
            // `recv` below waits for each line, so the receiver exists.
            (Process::start_told(command, move |line| drop(answer.send(line.to_owned()))), answers)
        });
        process.tell(&Value::from(program).to_string());
        let line = answers.recv().unwrap_or_else(|_| panic!("{program:?}: no answer:\n{}", process.output()));
        let outcome: Value = serde_json::from_str(&line).unwrap_or_else(|error| panic!("{program:?}: {error}: {line}"));
        let text = |key: &str| outcome[key].as_str().expect("a text").to_owned();
        Outcome { code: outcome["code"].as_i64().expect("a code") as i32, printed: text("printed"), said: text("said") }
    }
}
