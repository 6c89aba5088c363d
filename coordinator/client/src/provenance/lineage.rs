//! `coord lineage`: the tree of a run or checkpoint: runs, their checkpoints, and the runs resumed from those.

use lockstep_common::manifest::Override;
use lockstep_common::{Digest, RunId};
use lockstep_core::view::{CheckpointView, RunRow};
use serde::Serialize;

use crate::args::LineageArguments;
use crate::connection::Client;
use crate::evidence::target::Target;
use crate::terminal::{Exit, Failure, Output};

/// A run and its descendants.
#[derive(Debug, PartialEq, Serialize)]
struct Branch {
    run: RunId,
    name: String,
    status: String,
    step: u64,
    /// Differences that were accepted, when this run or one of its ancestors was resumed.
    overrides: Vec<Override>,
    /// Whether the command named this run. False for the run of a named checkpoint.
    asked: bool,
    checkpoints: Vec<Fork>,
}

/// A checkpoint and the runs that were resumed from it.
#[derive(Debug, PartialEq, Serialize)]
struct Fork {
    checkpoint: Digest,
    step: u64,
    asked: bool,
    runs: Vec<Branch>,
}

pub(crate) async fn lineage(arguments: LineageArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let target = Target::find(&client, &arguments.target).await?;
    let rows = client.runs().await?;
    let checkpoints = client.checkpoints().await?;
    let asked = Asked { run: target.view.row.id.clone(), checkpoint: target.checkpoint.map(|(id, _)| id) };
    let tree = Known { rows: &rows, checkpoints: &checkpoints }.tree(&asked);
    if arguments.reader.json {
        out.json(&tree);
    } else {
        let mut lines = Vec::new();
        tree.lines(0, arguments.all, &mut lines);
        for line in lines {
            out.line(&line);
        }
    }
    Ok(Exit::Done)
}

struct Asked {
    run: RunId,
    checkpoint: Option<Digest>,
}

/// All runs and checkpoints of the coordinator. Replays do not count as descendants, as they write no checkpoints.
struct Known<'a> {
    rows: &'a [RunRow],
    checkpoints: &'a [CheckpointView],
}

impl Known<'_> {
    /// The whole tree that contains the named run or checkpoint, from its first run on.
    fn tree(&self, asked: &Asked) -> Branch {
        let mut root = &asked.run;
        // This ends, because a run is younger than its parent.
        while let Some(parent) = self.row(root).and_then(|row| row.parent)
            && let Some(made) = self.checkpoints.iter().find(|checkpoint| checkpoint.id == parent)
        {
            root = &made.run;
        }
        self.branch(root, asked)
    }

    fn branch(&self, run: &RunId, asked: &Asked) -> Branch {
        let row = self.row(run);
        let own = self.checkpoints.iter().filter(|checkpoint| checkpoint.run == *run);
        let fork = |checkpoint: &CheckpointView| Fork {
            checkpoint: checkpoint.id,
            step: checkpoint.step,
            asked: asked.checkpoint == Some(checkpoint.id),
            runs: self
                .rows
                .iter()
                .filter(|row| row.parent == Some(checkpoint.id) && row.replay_of.is_none())
                .map(|row| self.branch(&row.id, asked))
                .collect(),
        };
        Branch {
            run: run.clone(),
            name: row.map_or_else(String::new, |row| row.name.clone()),
            status: row.map_or_else(String::new, |row| row.status.to_string()),
            step: row.map_or(0, |row| row.step),
            overrides: row.map_or_else(Vec::new, |row| row.overrides.clone()),
            asked: asked.run == *run && asked.checkpoint.is_none(),
            checkpoints: own.map(fork).collect(),
        }
    }

    fn row(&self, run: &RunId) -> Option<&RunRow> {
        self.rows.iter().find(|row| row.id == *run)
    }
}

impl Branch {
    /// Adds the lines of the tree. Without `all`, only checkpoints with descendants, last checkpoints and the named one have lines.
    fn lines(&self, depth: usize, all: bool, lines: &mut Vec<String>) {
        let indent = "  ".repeat(depth);
        let mark = |asked: bool| if asked { "  <--" } else { "" };
        let Self { run, name, status, step, overrides, asked, checkpoints } = self;
        lines.push(format!("{indent}run {run} ({name}), {status} at step {step}{}", mark(*asked)));
        lines.extend(overrides.iter().map(|one| format!("{indent}  accepted: {one}")));
        let mut left_out = 0;
        for (index, fork) in checkpoints.iter().enumerate() {
            if !all && fork.runs.is_empty() && !fork.asked && index + 1 != checkpoints.len() {
                left_out += 1;
                continue;
            }
            if left_out > 0 {
                lines.push(format!("{indent}  {left_out} checkpoints"));
                left_out = 0;
            }
            let id = fork.checkpoint.short();
            lines.push(format!("{indent}  checkpoint {id}, step {}{}", fork.step, mark(fork.asked)));
            for run in &fork.runs {
                run.lines(depth + 2, all, lines);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(id: &str, parent: Option<u8>, replay_of: Option<&str>) -> RunRow {
        RunRow {
            id: id.parse().unwrap(),
            number: 0,
            name: "job".into(),
            status: lockstep_core::state::StatusKind::Finished,
            reason: None,
            step: 30,
            steps: 30,
            ranks: 1,
            processes: 1,
            generation: 1,
            loss: None,
            grad_norm: None,
            samples_per_second: None,
            created_at_ms: 0,
            started_at_ms: None,
            ended_at_ms: None,
            parent: parent.map(digest),
            replay_of: replay_of.map(|id| id.parse().unwrap()),
            overrides: Vec::new(),
            final_state_digest: None,
            tags: Vec::new(),
            alarms: None,
            checkpoint_failed: None,
        }
    }

    fn digest(of: u8) -> Digest {
        Digest::from_bytes([of; 32])
    }

    fn checkpoint(id: u8, run: &str, step: u64) -> CheckpointView {
        CheckpointView {
            id: digest(id),
            run: run.parse().unwrap(),
            name: "job".into(),
            step,
            epoch: 0,
            committed_at_ms: 0,
            state_digest: digest(id),
        }
    }

    #[test]
    fn the_whole_tree_is_shown_from_any_of_its_members() {
        let rows = [
            row("aaaaaaaaaa", None, None),
            row("bbbbbbbbbb", Some(2), None),
            row("cccccccccc", Some(2), Some("aaaaaaaaaa")),
            row("dddddddddd", Some(5), None),
            row("eeeeeeeeee", None, None),
        ];
        let checkpoints = [
            checkpoint(1, "aaaaaaaaaa", 10),
            checkpoint(2, "aaaaaaaaaa", 20),
            checkpoint(3, "aaaaaaaaaa", 25),
            checkpoint(4, "aaaaaaaaaa", 30),
            checkpoint(5, "bbbbbbbbbb", 30),
        ];
        let known = Known { rows: &rows, checkpoints: &checkpoints };
        let tree = known.tree(&Asked { run: "dddddddddd".parse().unwrap(), checkpoint: None });
        let mut lines = Vec::new();
        tree.lines(0, false, &mut lines);
        let id = |of: u8| digest(of).short();
        let expected = [
            "run aaaaaaaaaa (job), finished at step 30".to_owned(),
            "  1 checkpoints".to_owned(),
            format!("  checkpoint {}, step 20", id(2)),
            "    run bbbbbbbbbb (job), finished at step 30".to_owned(),
            format!("      checkpoint {}, step 30", id(5)),
            "        run dddddddddd (job), finished at step 30  <--".to_owned(),
            "  1 checkpoints".to_owned(),
            format!("  checkpoint {}, step 30", id(4)),
        ];
        assert_eq!(lines, expected);
        let asked = known.tree(&Asked { run: "aaaaaaaaaa".parse().unwrap(), checkpoint: Some(digest(3)) });
        lines.clear();
        asked.lines(0, true, &mut lines);
        assert_eq!(lines.iter().filter(|line| line.contains("checkpoint ")).count(), 5);
        assert!(lines.iter().any(|line| line.ends_with("step 25  <--")) && !lines[0].contains("<--"), "{lines:?}");
        let alone = known.tree(&Asked { run: "eeeeeeeeee".parse().unwrap(), checkpoint: None });
        assert!(alone.checkpoints.is_empty() && alone.asked);
    }
}
