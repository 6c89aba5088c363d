//! The failure of a command: a message with its causes, a hint, and an exit code.

use std::error::Error;
use std::fmt::Write as _;

use lockstep_common::chain;
use tonic::{Code, Status};

use crate::terminal::exit::Exit;

/// Why a command failed.
#[derive(Debug)]
pub(crate) struct Failure {
    exit: Exit,
    message: String,
    hint: Option<String>,
    /// Whether several runs or checkpoints have the typed name.
    is_ambiguous: bool,
}

impl Failure {
    /// A failure with `message`, and no hint yet.
    pub(crate) fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, message: message.into(), hint: None, is_ambiguous: false }
    }

    /// A failure whose message is `error` with all its causes, on one line.
    pub(crate) fn caused(exit: Exit, error: &dyn Error) -> Self {
        Self::new(exit, chain(error))
    }

    /// Puts `subject` and a colon before the message.
    #[must_use]
    pub(crate) fn context(mut self, subject: &str) -> Self {
        self.message = format!("{subject}: {}", self.message);
        self
    }

    /// Sets the line that is printed after `hint:`. It replaces an earlier hint.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn exit(&self) -> Exit {
        self.exit
    }

    /// The message with its causes, without the hint.
    pub(crate) fn message(&self) -> &str {
        &self.message
    }

    /// Whether no run or checkpoint has the typed name. False if several have it.
    pub(crate) fn is_nothing(&self) -> bool {
        self.exit == Exit::NotFound && !self.is_ambiguous
    }

    /// The lines for standard error: `error: ..`, and `hint: ..` if there is a hint.
    pub(crate) fn render(&self) -> String {
        let mut text = format!("error: {}", self.message);
        if let Some(hint) = &self.hint {
            let _ = write!(text, "\nhint: {hint}");
        }
        text
    }
}

/// Gives a refusal of the coordinator its documented exit code.
impl From<Status> for Failure {
    fn from(status: Status) -> Self {
        let exit = match status.code() {
            Code::InvalidArgument => Exit::Usage,
            Code::NotFound | Code::OutOfRange => Exit::NotFound,
            Code::DataLoss => Exit::Damaged,
            // The disk of the store is full or rejects writes.
            Code::ResourceExhausted => Exit::Local,
            Code::FailedPrecondition | Code::AlreadyExists | Code::Aborted => Exit::Refused,
            _ => Exit::Unreachable,
        };
        let failure = match status.message() {
            "" => Self::new(exit, format!("the coordinator answered `{:?}` without a reason", status.code())),
            message => Self::new(exit, message),
        };
        Self { is_ambiguous: status.code() == Code::OutOfRange, ..failure }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_keeps_its_words_and_gets_the_documented_code() {
        let failure = Failure::from(Status::not_found("there is no run `x`")).hint("`coord ps` lists them");
        assert!(failure.exit() == Exit::NotFound && failure.is_nothing());
        let several = Failure::from(Status::out_of_range("`x` fits 2 runs"));
        assert!(several.exit() == Exit::NotFound && !several.is_nothing());
        assert_eq!(failure.render(), "error: there is no run `x`\nhint: `coord ps` lists them");
        assert_eq!(Failure::from(Status::invalid_argument("bad")).exit(), Exit::Usage);
        assert_eq!(Failure::from(Status::failed_precondition("ended")).exit(), Exit::Refused);
        assert_eq!(Failure::from(Status::data_loss("torn")).exit(), Exit::Damaged);
        assert_eq!(Failure::from(Status::resource_exhausted("full")).exit(), Exit::Local);
        assert_eq!(Failure::from(Status::unavailable("gone")).exit(), Exit::Unreachable);
    }
}
