//! Exit codes, and their table in `coord --help`.

use std::process::ExitCode;

use lockstep_store::BlobError;

/// How a command ended, for scripts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// The command succeeded. A followed run finished.
    Done,
    /// The followed run failed or was cancelled.
    RunFailed,
    /// The command line, a job file or a configuration is wrong.
    Usage,
    /// The request is valid and was refused: a dirty work tree, a mismatch, a run that has ended.
    Refused,
    /// No run or checkpoint has the given name, or several have it.
    NotFound,
    /// The coordinator cannot be reached, or is busy for minutes.
    Unreachable,
    /// A file, directory, port or program on this machine: missing, in use or full.
    Local,
    /// `verify`, `diff` and `reproduce`: the bits differ.
    Differs,
    /// Bytes of the store or of a database are missing, truncated or changed.
    Damaged,
    /// The followed run was trained to the end, and its last checkpoint could not be saved.
    Unsaved,
    /// Ctrl-C, SIGTERM or SIGHUP interrupted the command.
    Interrupted,
}

impl Exit {
    /// The table of exit codes at the end of `coord --help`.
    pub const TABLE: &str = "\
Exit codes:
    0  done; a followed run finished
    1  the followed run failed or was cancelled
    2  the command line, the job file or the configuration is wrong
    3  refused: dirty work tree, mismatch, a run that has already ended
    4  no such run or checkpoint, or an ambiguous prefix
    5  the coordinator cannot be reached, or is busy
    6  this machine: port or data directory in use, disk, missing program
    7  verify, diff, reproduce: the bits differ
    8  stored bytes are missing or damaged
    9  the followed run was trained to the end, and its last checkpoint was not saved
  130  interrupted by Ctrl-C";

    /// `Damaged` for a missing, truncated or corrupt blob, `Local` for every other error.
    pub(crate) fn of_blob(error: &BlobError) -> Self {
        match error {
            BlobError::Missing { .. } | BlobError::Truncated { .. } | BlobError::Corrupt { .. } => Self::Damaged,
            _ => Self::Local,
        }
    }

    /// Its description in [`Self::TABLE`].
    pub(crate) fn words(self) -> &'static str {
        let of = |line: &'static str| line.trim_start().strip_prefix(&format!("{}  ", self.code()));
        Self::TABLE.lines().find_map(of).unwrap_or_default()
    }

    /// The exit code of the process.
    pub const fn code(self) -> u8 {
        match self {
            Self::Done => 0,
            Self::RunFailed => 1,
            Self::Usage => 2,
            Self::Refused => 3,
            Self::NotFound => 4,
            Self::Unreachable => 5,
            Self::Local => 6,
            Self::Differs => 7,
            Self::Damaged => 8,
            Self::Unsaved => 9,
            Self::Interrupted => 130,
        }
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_in_help_names_every_code() {
        for exit in [
            Exit::Done,
            Exit::RunFailed,
            Exit::Usage,
            Exit::Refused,
            Exit::NotFound,
            Exit::Unreachable,
            Exit::Local,
            Exit::Differs,
            Exit::Damaged,
            Exit::Unsaved,
            Exit::Interrupted,
        ] {
            let code = format!("{:>5}  ", exit.code());
            assert_eq!(Exit::TABLE.lines().filter(|line| line.starts_with(&code)).count(), 1, "{exit:?}");
            assert!(exit.words().len() > 5, "{exit:?}");
        }
    }
}
