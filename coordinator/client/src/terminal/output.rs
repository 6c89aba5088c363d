//! The one writer of the command line. A reader that goes away (`coord ps | head -1`) is not an error; a disk that is full is.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_common::{is_steering, printable};
use serde::Serialize;

use crate::terminal::error::Failure;
use crate::terminal::exit::Exit;

/// Whether anything was written for whoever reads: an end that is not a success says why.
static SPOKE: AtomicBool = AtomicBool::new(false);

/// Standard output for answers, standard error for what is said beside them.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
    /// Why the rest of the answer is missing, where somebody waits for it.
    failed: Option<io::Error>,
}

impl Output {
    /// One line of the answer, or several. Texts of others steer no terminal.
    pub(crate) fn line(&mut self, text: &str) {
        self.bytes(format!("{}\n", printable(text)).as_bytes());
    }

    /// Raw bytes of the answer.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) {
        if self.closed {
            return;
        }
        SPOKE.store(true, Ordering::Relaxed);
        let mut out = io::stdout().lock();
        if let Err(error) = out.write_all(bytes).and_then(|()| out.flush()) {
            self.closed = true;
            self.failed = Some(error).filter(|error| error.kind() != io::ErrorKind::BrokenPipe);
        }
    }

    /// What others wrote: as it is for a program, and for a person what steers no terminal.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if io::stdout().is_terminal() {
            self.bytes(printable(&String::from_utf8_lossy(bytes)).as_bytes());
        } else {
            self.bytes(bytes);
        }
    }

    /// How a command ended that would end with `exit`: a command that did all else has failed without its answer.
    pub(crate) fn delivered(self, exit: Exit) -> Result<Exit, Failure> {
        let Some(error) = self.failed else { return Ok(exit) };
        let failure = unwritten(&error);
        if exit == Exit::Done {
            return Err(failure);
        }
        Self::note(&failure.render());
        Ok(exit)
    }

    /// Columns under their heads.
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        for line in table(head, rows) {
            self.line(&line);
        }
    }

    /// The answer as JSON.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        // JSON writes what steers in its own way; controls are written so already.
        let mut plain = String::with_capacity(text.len());
        for letter in text.chars() {
            if is_steering(letter) && letter != '\n' {
                // Writing to a string does not fail.
                let _ = write!(plain, "\\u{:04x}", u32::from(letter));
            } else {
                plain.push(letter);
            }
        }
        plain.push('\n');
        self.bytes(plain.as_bytes());
    }

    /// Whether nobody reads the answer any more.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// One line for the person, beside the answer.
    pub(crate) fn note(text: &str) {
        // Nobody left to tell: nothing can be done about that.
        SPOKE.store(true, Ordering::Relaxed);
        let _ = writeln!(io::stderr().lock(), "{}", printable(text));
    }

    /// Whether nothing was written at all.
    pub(crate) fn was_silent() -> bool {
        !SPOKE.load(Ordering::Relaxed)
    }

    /// Whether a person watches standard error.
    pub(crate) fn watched() -> bool {
        io::stderr().is_terminal()
    }
}

/// Of an answer that standard output did not take.
pub(crate) fn unwritten(error: &io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot write all of the answer to standard output: {error}"))
}

/// Columns as wide as their widest cell, two spaces between them.
pub(crate) fn table(head: &[&str], rows: &[Vec<String>]) -> Vec<String> {
    let mut widths: Vec<usize> = head.iter().map(|cell| cell.chars().count()).collect();
    for row in rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let render = |cells: &mut dyn Iterator<Item = &str>| {
        let line: Vec<String> = cells.zip(&widths).map(|(cell, &width)| format!("{cell:<width$}")).collect();
        line.join("  ").trim_end().to_owned()
    };
    let mut lines = vec![render(&mut head.iter().copied())];
    lines.extend(rows.iter().map(|row| render(&mut row.iter().map(String::as_str))));
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_and_have_no_trailing_blanks() {
        let rows = vec![vec!["a".to_owned(), "x".to_owned()], vec!["long".to_owned(), String::new()]];
        assert_eq!(table(&["id", "what"], &rows), ["id    what", "a     x", "long"]);
    }
}
