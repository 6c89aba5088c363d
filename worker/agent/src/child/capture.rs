//! Copies the output of a process from its pipe to its log.

use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe;
use tracing::debug;

use super::output::LogWriter;

/// How long output, and then messages on the socket, may still arrive after a process's end. Both end with the process,
/// unless a child of the process keeps them open.
pub(crate) const LINGER: Duration = Duration::from_millis(500);
/// Default size of a pipe: one read empties it.
const READ_BYTES: usize = 64 << 10;

/// Copies `output` to the log until the pipe ends or fails.
pub(crate) async fn copy(output: &mut pipe::Receiver, log: &mut LogWriter) {
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match output.read(&mut buffer).await {
            Ok(0) => return,
            Ok(length) => log.write(&buffer[..length]),
            Err(error) => return debug!("cannot read the output of a process: {error}"),
        }
    }
}
