//! The coordinator checks the blobs of a checkpoint before it commits it.

use std::fs;

use lockstep_rpc::Save;

use crate::agent::{Agent, blob, finished};
use crate::support::{Coordinator, wait_for};

#[tokio::test]
async fn a_checkpoint_is_rejected_if_the_coordinator_cannot_open_its_blobs_or_read_those_of_the_last() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    // It waits only 200 ms for missing blobs.
    let coordinator = Coordinator::start_under(&["env", "LOCKSTEP_COORD_STORE__PATIENCE_MS=200"], &state, &[]);
    let (mut agent, run, p0) = Agent::trained(&coordinator, dir.path()).await;
    let blob = |step| blob(&state, step);
    let failures = |steps: usize| {
        wait_for("the failure", || {
            let shown = coordinator.ask(&["show", &run]);
            let failed = shown["failed_checkpoints"].as_array().unwrap();
            (failed.len() == steps).then(|| failed[steps - 1]["reason"].as_str().unwrap().to_owned())
        })
    };

    let share = agent.share(2, 0);
    fs::remove_file(blob(2)).unwrap();
    agent.tell(&p0, 3, share).await;
    let reason = failures(1);
    assert!(reason.contains("the coordinator cannot open the checkpoint: blob `"), "{reason}");
    assert!(reason.contains("is missing from the store"), "{reason}");
    assert_eq!(coordinator.ask(&["show", &run])["status"], "running", "that was not the last one");

    // The length is right: only reading shows the damage.
    let share = agent.share(4, 0);
    fs::write(blob(4), b"evil").unwrap();
    agent.tell(&p0, 4, share).await;
    let reason = failures(2);
    assert!(reason.contains("the coordinator cannot read the checkpoint") && reason.contains("is corrupt"), "{reason}");
    let rejected = Save { attempt: 1, ..Save::default() };
    agent.until_desired("the rejection", |assigned| assigned[0].save == rejected).await;

    fs::remove_file(blob(4)).unwrap();
    let share = agent.share(4, 0);
    agent.tell(&p0, 5, share).await;
    agent.until_desired("the commit", |assigned| assigned[0].save.committed).await;
    agent.tell(&p0, 6, finished(4, 1)).await;
    let shown = coordinator.ask(&["show", &run]);
    assert_eq!((&shown["status"], &shown["alarms"]), (&"finished".into(), &0.into()), "{shown:#}");
    assert_eq!(shown["checkpoints"].as_array().unwrap().len(), 1);
}

/// Later checkpoints of the run and its end wait for it.
#[tokio::test]
async fn a_checkpoint_whose_blobs_are_seen_late_is_not_dropped_for_later_ones() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    let coordinator = Coordinator::start(&state);
    let (mut agent, run, p0) = Agent::trained(&coordinator, dir.path()).await;
    let (early, last) = (agent.share(2, 0), agent.share(4, 0));
    let blob = blob(&state, 2);
    fs::rename(&blob, dir.path().join("away")).unwrap();
    agent.tell(&p0, 3, early).await;
    agent.tell(&p0, 4, last).await;
    agent.tell(&p0, 5, finished(4, 1)).await;
    tokio::time::sleep(std::time::Duration::from_millis(700)).await;
    assert_eq!(coordinator.ask(&["show", &run])["status"], "running");
    fs::rename(dir.path().join("away"), &blob).unwrap();
    let shown = wait_for("the end", || {
        let shown = coordinator.ask(&["show", &run]);
        (shown["status"] == "finished").then_some(shown)
    });
    let steps: Vec<_> = shown["checkpoints"].as_array().unwrap().iter().map(|made| made["step"].clone()).collect();
    assert_eq!((steps, &shown["failed_checkpoints"]), (vec![2.into(), 4.into()], &serde_json::json!([])));
}
