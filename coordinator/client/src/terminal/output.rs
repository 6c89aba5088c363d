//! Everything that `coord` prints. A closed pipe (`coord ps | head -1`) is not an error; a full disk is.

use std::fmt::Write as _;
use std::io::{self, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};

use lockstep_common::{is_steering, printable};
use serde::Serialize;

use crate::terminal::error::Failure;
use crate::terminal::exit::Exit;

/// Whether anything was printed. A command that fails without output gets a line about its exit code.
static SPOKE: AtomicBool = AtomicBool::new(false);

/// Prints answers on standard output, and notes on standard error.
#[derive(Debug, Default)]
pub(crate) struct Output {
    closed: bool,
    /// The first error of standard output, other than a closed pipe.
    failed: Option<io::Error>,
}

impl Output {
    /// Prints lines of the answer. Control characters are escaped, so that text from elsewhere cannot control the terminal.
    pub(crate) fn line(&mut self, text: &str) {
        self.bytes(format!("{}\n", printable(text)).as_bytes());
    }

    /// Prints bytes of the answer as they are. After the first error nothing more is printed.
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

    /// Prints text from elsewhere (logs, patches): as it is into a pipe or file, with control characters escaped on a terminal.
    pub(crate) fn raw(&mut self, bytes: &[u8]) {
        if io::stdout().is_terminal() {
            self.bytes(printable(&String::from_utf8_lossy(bytes)).as_bytes());
        } else {
            self.bytes(bytes);
        }
    }

    /// The end of a command whose exit code would be `exit`. A command that succeeded and could not print its answer has failed.
    pub(crate) fn delivered(self, exit: Exit) -> Result<Exit, Failure> {
        let Some(error) = self.failed else { return Ok(exit) };
        let failure = unwritten(&error);
        if exit == Exit::Done {
            return Err(failure);
        }
        Self::note(&failure.render());
        Ok(exit)
    }

    /// Prints a [`table`].
    pub(crate) fn table(&mut self, head: &[&str], rows: &[Vec<String>]) {
        for line in table(head, rows) {
            self.line(&line);
        }
    }

    /// Prints the answer as indented JSON.
    pub(crate) fn json<T: Serialize>(&mut self, value: &T) {
        let text = serde_json::to_string_pretty(value).unwrap_or_else(|error| format!("{{\"error\":\"{error}\"}}"));
        // Also the control characters and direction marks that JSON may contain become `\u` escapes.
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

    /// Whether standard output was closed or has failed.
    pub(crate) fn closed(&self) -> bool {
        self.closed
    }

    /// Prints a line on standard error.
    pub(crate) fn note(text: &str) {
        SPOKE.store(true, Ordering::Relaxed);
        // An error of standard error itself cannot be printed anywhere.
        let _ = writeln!(io::stderr().lock(), "{}", printable(text));
    }

    /// Whether nothing was printed, on either stream.
    pub(crate) fn was_silent() -> bool {
        !SPOKE.load(Ordering::Relaxed)
    }

    /// Whether standard error is a terminal.
    pub(crate) fn watched() -> bool {
        io::stderr().is_terminal()
    }
}

/// The failure of a write to standard output.
pub(crate) fn unwritten(error: &io::Error) -> Failure {
    Failure::new(Exit::Local, format!("cannot write all of the answer to standard output: {error}"))
}

/// The lines of a table: columns as wide as their widest cell, with two spaces between them.
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
