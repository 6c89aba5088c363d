//! A process of the operating system: its key, start, output and end.

mod capture;
mod exit;
mod key;
pub(crate) mod left_over;
mod output;
mod start;

pub(crate) use capture::{LINGER, copy};
pub(crate) use exit::Exit;
pub(crate) use key::ProcessKey;
pub(crate) use output::{LogWriter, Logs};
pub(crate) use start::{Child, Start};
