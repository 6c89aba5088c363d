//! Text from elsewhere, printed on a terminal and into a pipe.

use std::process::Command;
use std::time::Duration;

use lockstep_rpc::agent_message::Body as Say;
use lockstep_rpc::process_message::Body as Said;
use lockstep_rpc::{Failed, LogReply};

use crate::agent::Agent;
use crate::support::{Coordinator, coord};

/// Sets a terminal's title, rings its bell, and reverses the direction of text.
const HOSTILE: &str = "\u{1b}]0;owned\u{7}\u{202e}txt\u{9b}";
/// [`HOSTILE`], escaped.
const SHOWN: &str = "\\u{1b}]0;owned\\u{7}\\u{202e}txt\\u{9b}";

/// Runs `reader`, which reads logs, answers its requests with `text`, and returns its output.
async fn printed(agent: &mut Agent, mut reader: Command, text: &str) -> String {
    let reading = tokio::task::spawn_blocking(move || reader.output().unwrap());
    let mut answered = agent.log_requests.len();
    while !reading.is_finished() {
        while let Some(request) = agent.log_requests.get(answered).cloned() {
            let rest = text.as_bytes().get(request.offset as usize..).unwrap_or_default().to_vec();
            let reply = LogReply { id: request.id, text: rest, next_offset: text.len() as u64, end: true };
            agent.say(Say::Log(reply)).await;
            answered += 1;
        }
        let _ = tokio::time::timeout(Duration::from_millis(50), agent.listen()).await;
    }
    let output = reading.await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

#[tokio::test]
async fn what_others_wrote_steers_no_terminal() {
    let dir = tempfile::tempdir().unwrap();
    let coordinator = Coordinator::start(&dir.path().join("state"));
    let (mut agent, run, process) = Agent::ready(&coordinator, dir.path(), 4).await;

    // Logs go into a pipe as they are, and are escaped on a terminal.
    let text = format!("a {HOSTILE} b\n");
    let words = ["logs", &run, "--process", "0", "--addr", &coordinator.address];
    assert_eq!(printed(&mut agent, coord(&words), &text).await, text);
    // `script` gives its command a terminal, and prints the terminal's output.
    let mut on_terminal = Command::new("script");
    let command = [&[env!("CARGO_BIN_EXE_coord")], words.as_slice()].concat().join(" ");
    on_terminal.args(["-q", "-e", "-c", &command, "/dev/null"]);
    let shown = printed(&mut agent, on_terminal, &text).await;
    assert_eq!(shown.replace("\r\n", "\n"), text.replace(HOSTILE, SHOWN));

    // Answers are escaped everywhere, in JSON with its own escapes.
    agent.tell(&process, 2, Said::Failed(Failed { reason: HOSTILE.into(), transient: false })).await;
    let output = coordinator.coord(&["show", &run]);
    let shown = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && shown.contains(SHOWN), "{shown:?}");
    assert!(!shown.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{shown:?}");
    let json = String::from_utf8(coordinator.coord(&["show", &run, "--json"]).stdout).unwrap();
    assert!(!json.contains(['\u{1b}', '\u{7}', '\u{202e}', '\u{9b}']), "{json:?}");
    let reason = &coordinator.ask(&["show", &run])["reason"];
    assert!(reason.as_str().unwrap().contains(HOSTILE), "{reason}");
}
