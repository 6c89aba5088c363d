//! `coord logs`: the output of a run's processes.

use std::collections::BTreeMap;

use lockstep_rpc::LogsRequest;

use crate::args::LogsArguments;
use crate::connection::Client;
use crate::terminal::{Exit, Failure, Output};

pub(crate) async fn logs(arguments: LogsArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.address.addr).await?;
    let request = LogsRequest { run: arguments.run, process: arguments.process, follow: arguments.follow };
    let stream = client.control().logs(request).await;
    let mut stream = stream.map_err(|status| client.failure(status))?.into_inner();
    let mut lines = Lines::new(arguments.process.is_none());
    while let Some(chunk) = stream.message().await.map_err(|status| client.failure(status))? {
        out.raw(&lines.push(chunk.process, &chunk.text));
        if out.closed() {
            return Ok(Exit::Done);
        }
    }
    out.raw(&lines.finish());
    Ok(Exit::Done)
}

/// Cuts the output of several processes at line ends, so that their lines do not mix, and puts the process's number before each line.
struct Lines {
    named: bool,
    open: BTreeMap<u32, Vec<u8>>,
}

impl Lines {
    fn new(named: bool) -> Self {
        Self { named, open: BTreeMap::new() }
    }

    /// Adds output of `process`, and returns the complete lines.
    fn push(&mut self, process: u32, text: &[u8]) -> Vec<u8> {
        if !self.named {
            return text.to_vec();
        }
        let open = self.open.entry(process).or_default();
        open.extend_from_slice(text);
        let Some(end) = open.iter().rposition(|&byte| byte == b'\n') else { return Vec::new() };
        let rest = open.split_off(end + 1);
        let whole = std::mem::replace(open, rest);
        name_lines(process, &whole)
    }

    /// The last lines, which have no line end.
    fn finish(self) -> Vec<u8> {
        let rest = self.open.into_iter().filter(|(_, text)| !text.is_empty());
        rest.flat_map(|(process, text)| name_lines(process, &[text.as_slice(), b"\n"].concat())).collect()
    }
}

fn name_lines(process: u32, text: &[u8]) -> Vec<u8> {
    let lines = text.split_inclusive(|&byte| byte == b'\n');
    lines.flat_map(|line| [format!("[{process}] ").as_bytes(), line].concat()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_of_processes_do_not_mix_and_carry_their_number() {
        let mut lines = Lines::new(true);
        assert_eq!(lines.push(0, b"he"), b"");
        assert_eq!(lines.push(1, b"one\ntwo\nth"), b"[1] one\n[1] two\n");
        assert_eq!(lines.push(0, b"llo\n"), b"[0] hello\n");
        assert_eq!(lines.finish(), b"[1] th\n");
        assert_eq!(Lines::new(false).push(3, b"raw"), b"raw");
    }
}
