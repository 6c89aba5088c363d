//! Re-runs some steps of a run, for `verify` and `diff --bisect`.

use lockstep_core::state::StatusKind;
use lockstep_core::view::RunView;
use lockstep_rpc::{CancelRequest, Replay, ReplayRequest};

use crate::connection::Client;
use crate::evidence::target::Target;
use crate::runs::follow::{follow, summary};
use crate::runs::prepare::new_request;
use crate::terminal::{Exit, Failure, Output, interrupted};

/// Replays `target` from the nearest checkpoint before step `from` to step `until`, with fingerprints every `fingerprints_every` steps,
/// and waits for the end. `None` after Ctrl-C, which cancels the replay.
///
/// # Errors
/// `RunFailed`, if the replay does not reach its end.
pub(crate) async fn replay(
    client: &mut Client,
    target: &Target,
    from: u64,
    until: u64,
    fingerprints_every: u64,
) -> Result<Option<RunView>, Failure> {
    let (checkpoint, step) = target.nearest(from - 1);
    let request = ReplayRequest {
        request_id: new_request()?.to_string(),
        replay: Some(Replay { of: target.run(), until, fingerprints_every }),
        checkpoint: checkpoint.map_or_else(String::new, |id| id.to_string()),
    };
    let run = client.replay(request).await?;
    let begin = checkpoint.map_or("its start".to_owned(), |id| format!("checkpoint {}", id.short()));
    Output::note(&format!(
        "replaying steps {} to {until} of run {} from {begin}, as run {run}",
        step + 1,
        target.run()
    ));
    let view = tokio::select! {
        biased;
        () = interrupted() => {
            client.cancel(CancelRequest { request_id: new_request()?.to_string(), run }).await?;
            return Ok(None);
        }
        view = follow(client, &run) => view?,
    };
    if view.row.status == StatusKind::Finished {
        return Ok(Some(view));
    }
    Err(Failure::new(Exit::RunFailed, format!("the replay did not reach step {until}:\n{}", summary(&view).join("\n"))))
}
