//! Notification of alarms: runs a command, and posts to a web address.
//!
//! Each alarm is sent at least once; after a crash perhaps again. Diverged processes are sent twice: when they are found, and when the
//! wrong process is known. Nothing waits for a notification. A failure is logged, and the alarm is on the page in any case.

use std::process::Stdio;
use std::time::Duration;

use lockstep_common::{RunId, chain};
use lockstep_tracking::Alarm;
use reqwest::{Client, Url};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tracing::warn;

/// Capacity of the queue of alarms. Further alarms are not sent.
const WAITING: usize = 256;

/// Time limit of a command or of a post.
const PATIENCE: Duration = Duration::from_secs(30);

/// Configured recipients of alarms.
#[derive(Clone, Debug, Default)]
pub struct Hooks {
    /// Shell command, which gets the alarm as one line of JSON on standard input.
    pub command: Option<String>,
    /// URL that the same JSON is posted to.
    pub webhook: Option<Url>,
}

/// Queues alarms for the hooks. Without hooks it drops them.
#[derive(Clone, Debug)]
pub(crate) struct Notifier(Option<mpsc::Sender<Value>>);

impl Notifier {
    /// Whether any hook is configured.
    pub(crate) fn has_listeners(&self) -> bool {
        self.0.is_some()
    }

    /// Queues an alarm. If the queue is full, the alarm is logged and dropped.
    pub(crate) fn notify(&self, run: &RunId, alarm: &Alarm) {
        let Some(queue) = &self.0 else { return };
        if queue.try_send(json!({ "run": run, "alarm": alarm })).is_err() {
            warn!(%run, alarm = alarm.title, "alarm not sent to the hooks: {WAITING} alarms are waiting already");
        }
    }
}

impl Hooks {
    /// Starts the task that runs the hooks, on the current tokio runtime. It ends once all notifiers are dropped and the queue is empty.
    /// Without hooks there is no task.
    pub(crate) fn start(self) -> (Notifier, Option<JoinHandle<()>>) {
        if self.command.is_none() && self.webhook.is_none() {
            return (Notifier(None), None);
        }
        let (queue, mut waiting) = mpsc::channel::<Value>(WAITING);
        // An error means that the same provider is already installed.
        drop(rustls::crypto::ring::default_provider().install_default());
        let client = Client::new();
        let task = tokio::spawn(async move {
            while let Some(told) = waiting.recv().await {
                if let Some(command) = &self.command {
                    run(command, &told).await;
                }
                if let Some(url) = &self.webhook {
                    post(&client, url, &told).await;
                }
            }
        });
        (Notifier(Some(queue)), Some(task))
    }
}

/// Runs `command` with the alarm on standard input, and kills it after [`PATIENCE`].
async fn run(command: &str, told: &Value) {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).stdin(Stdio::piped()).stdout(Stdio::null()).kill_on_drop(true);
    let ran = async {
        let mut child = shell.spawn()?;
        if let Some(mut input) = child.stdin.take() {
            // An error means that the command does not read its input. Its exit status decides.
            let _ = input.write_all(format!("{told}\n").as_bytes()).await;
        }
        child.wait().await
    };
    match timeout(PATIENCE, ran).await {
        Ok(Ok(status)) if status.success() => {}
        Ok(Ok(status)) => warn!(command, %status, "the alarm command failed (`alarms.command`)"),
        Ok(Err(error)) => warn!(command, %error, "cannot run the alarm command (`alarms.command`)"),
        Err(_) => warn!(command, "the alarm command (`alarms.command`) ran longer than {PATIENCE:?}: killed"),
    }
}

async fn post(client: &Client, url: &Url, told: &Value) {
    let request = client.post(url.clone()).header("content-type", "application/json").body(told.to_string());
    let refused = match request.timeout(PATIENCE).send().await {
        Ok(answer) if answer.status().is_success() => return,
        Ok(answer) => answer.status().to_string(),
        Err(error) => chain(&error),
    };
    warn!(host = url.host_str(), refused, "the alarm webhook did not accept an alarm (`alarms.webhook`)");
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};
    use std::net::TcpListener;

    use lockstep_common::series::SeriesKey;
    use lockstep_tracking::{Kind, Severity};

    use super::*;

    fn alarm() -> Alarm {
        Alarm {
            kind: Kind::Divergence,
            severity: Severity::Error,
            since_step: 7,
            since_ms: 1,
            until_step: None,
            place: Some("layers.1".into()),
            series: SeriesKey::whole("loss"),
            title: "it's \"gone\"".into(),
            what: "$HOME".into(),
            try_: vec![],
        }
    }

    #[tokio::test]
    async fn a_command_and_a_web_address_get_the_alarm_as_json() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("alarms");
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/told?by=me", listener.local_addr().unwrap());
        let server = std::thread::spawn(move || {
            // The first post fails, and the second is sent nevertheless.
            let answer = |words: &str| {
                let (mut stream, _) = listener.accept().unwrap();
                let mut request = Vec::new();
                let mut piece = [0; 1024];
                while !request.ends_with(b"}") {
                    let length = stream.read(&mut piece).unwrap();
                    request.extend_from_slice(&piece[..length]);
                }
                write!(stream, "HTTP/1.1 {words}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n").unwrap();
                String::from_utf8(request).unwrap()
            };
            [answer("500 No"), answer("204 Good")]
        });
        let command = Some(format!("cat >> {}; exit 3", file.display()));
        let (notifier, task) = Hooks { command, webhook: Some(url.parse().unwrap()) }.start();
        let run: RunId = "0123456789".parse().unwrap();
        notifier.notify(&run, &alarm());
        notifier.notify(&run, &alarm());
        drop(notifier);
        task.unwrap().await.unwrap();
        let told = json!({ "run": run, "alarm": alarm() });
        assert_eq!((&told["alarm"]["place"], &told["alarm"]["kind"]), (&json!("layers.1"), &json!("divergence")));
        let written = std::fs::read_to_string(file).unwrap();
        assert_eq!(written, format!("{told}\n{told}\n"));
        for request in server.join().unwrap() {
            assert!(request.starts_with("POST /told?by=me HTTP/1.1\r\n"), "{request}");
            assert!(request.ends_with(&told.to_string()), "{request}");
        }
    }

    #[tokio::test]
    async fn nobody_to_tell_is_no_work() {
        let (notifier, task) = Hooks::default().start();
        notifier.notify(&"0123456789".parse().unwrap(), &alarm());
        assert!(task.is_none());
    }
}
