//! Tracing to standard error.

use std::io::IsTerminal;

use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::prelude::*;

/// Starts tracing at `level` (`error`, `warn`, `info`, `debug`, `trace`, or a filter such as `info,lockstep_agent=debug`).
/// The environment variable `LOCKSTEP_LOG` overrides it. A second call has no effect.
///
/// # Errors
/// A message if the level or filter does not parse.
pub fn init(level: &str) -> Result<(), String> {
    let text = std::env::var("LOCKSTEP_LOG").unwrap_or_else(|_| level.to_owned());
    let filter: Targets = text.parse().map_err(|error| format!("`{text}` is not a log level or filter: {error}"))?;
    let color = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let subscriber = tracing_subscriber::fmt().with_writer(std::io::stderr).with_ansi(color);
    let subscriber = subscriber.with_max_level(LevelFilter::TRACE);
    // A line that cannot be written is lost: reporting that on the same standard error would panic.
    let subscriber = subscriber.log_internal_errors(false);
    // An error means that a subscriber exists already, as in tests.
    let _ = subscriber.finish().with(filter).try_init();
    Ok(())
}
