//! `coord reproduce`: rebuilds the code and data of a run from its id, re-runs every step, and compares the bits.

use std::path::{Path, PathBuf};

use lockstep_common::Digest;
use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{DataFile, Override, Piece};
use lockstep_core::view::RunView;
use lockstep_host::data::{self, DataHashError};
use lockstep_rpc::{CancelRequest, SubmitRequest};
use serde::Serialize;

use crate::args::ReproduceArguments;
use crate::connection::Client;
use crate::evidence::comparison::Comparison;
use crate::evidence::diff::{Difference, keys, surroundings};
use crate::evidence::target::{Target, record_of_replay};
use crate::provenance::checkout::{Rebuilt, rebuild};
use crate::provenance::data::{keep, refused};
use crate::provenance::tracked;
use crate::runs::follow::{follow, summary};
use crate::runs::local::Local;
use crate::runs::local_dir;
use crate::runs::prepare::new_request;
use crate::terminal::{Exit, Failure, Output, interrupted, table};

#[derive(Debug, Serialize)]
struct Verdict {
    run: String,
    /// Id of the new run.
    reproduction: String,
    /// Directory of the rebuilt code.
    directory: PathBuf,
    /// With `--on local`: directory of its coordinator and workers.
    #[serde(skip_serializing_if = "Option::is_none")]
    local_directory: Option<PathBuf>,
    first_step: u64,
    last_step: u64,
    equal: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// Recorded digest of the final state; `None` if the run did not finish.
    recorded: Option<Digest>,
    /// Digest of the final state of the new run.
    reproduced: Option<Digest>,
    /// Keys of numerics and environment that differ.
    differences: Vec<Difference>,
}

pub(crate) async fn reproduce(arguments: ReproduceArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let target = Target::find(&client, &arguments.run).await?;
    let (run, last) = (target.run(), target.last_step());
    if last <= target.began.steps {
        return Err(Failure::new(
            Exit::Refused,
            format!("run {run} has completed no step: there is nothing to compare"),
        ));
    }
    if let Some(words) = began_otherwise(&target.view) {
        return Err(Failure::new(Exit::Refused, words).hint(format!("re-run its own steps with `coord verify {run}`")));
    }
    let directory = arguments.directory.clone().unwrap_or_else(|| format!("run-{run}").into());
    let beside = match arguments.on_local {
        Some(_) => Some(local_dir::by_default(&beside(&directory)?).map_err(|failure| {
            failure.hint("remove it if nobody needs it, or rebuild the run in another directory")
        })?),
        None => None,
    };
    let rebuilt = if target.view.code.is_some() {
        rebuild(&mut client, &target.view, &directory, arguments.repositories.clone()).await?
    } else {
        Output::note(&format!(
            "note: run {run} was not submitted from a git work tree: it is re-run from its job and data alone"
        ));
        Rebuilt::empty(&directory)?
    };
    let job = JobSpec::from_canonical(target.view.job.as_bytes());
    let job = job.map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let other_revision = job.data.revision().is_some();
    for path in job.data_paths() {
        let path = rebuilt.job_directory.join(path);
        // Data that DVC cannot fetch may be elsewhere. Data of another revision is in the store.
        if !path.exists()
            && !other_revision
            && let Err(failure) = tracked::fetch(&rebuilt.job_directory, &[path], false).await
        {
            Output::note(&format!("note: {}", failure.message()));
        }
    }
    let files = client.listed(&target.view.data).await?;
    let elsewhere = Elsewhere::look(&rebuilt.job_directory, &target.view, &files, other_revision)?;

    let mut local = match arguments.on_local.zip(beside) {
        Some((workers, dir)) => Some(Local::start(&dir, workers).await?),
        None => None,
    };
    let made = again(&mut client, &target, &rebuilt, &elsewhere, local.as_mut()).await;
    if let Some(local) = local {
        local.stop().await;
    }
    let Some(verdict) = made? else { return Ok(Exit::Interrupted) };
    if arguments.reader.json {
        out.json(&verdict);
    } else {
        for line in lines(&verdict) {
            out.line(&line);
        }
    }
    Ok(if verdict.equal { Exit::Done } else { Exit::Differs })
}

/// The directory for `--on local`: `DIRECTORY.lockstep`, beside the rebuilt tree and never in it, because the tree may contain anything.
fn beside(directory: &Path) -> Result<PathBuf, Failure> {
    let unusable = |why: &str| Failure::new(Exit::Usage, format!("cannot use `{}`: {why}", directory.display()));
    // Resolves `..` and links if the directory exists.
    let resolved = std::fs::canonicalize(directory).or_else(|_| std::path::absolute(directory));
    let resolved = resolved.map_err(|error| unusable(&error.to_string()))?;
    let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
        return Err(unusable("it has no parent directory, to which `--on local` writes"));
    };
    let mut name = name.to_owned();
    name.push(".lockstep");
    Ok(parent.join(name))
}

/// Re-runs the run, on `local` or on the cluster, and compares the records. `None` after Ctrl-C, which cancels the new run.
async fn again(
    client: &mut Client,
    target: &Target,
    rebuilt: &Rebuilt,
    elsewhere: &Elsewhere,
    local: Option<&mut Local>,
) -> Result<Option<Verdict>, Failure> {
    let (last, view) = (target.last_step(), &target.view);
    let local_directory = local.as_ref().map(|local| local.dir().to_owned());
    let mut there = match &local {
        Some(local) => {
            let code = view.code.iter().flat_map(|code| code.tree.iter().chain(&code.source));
            let mut needed: Vec<Piece> = elsewhere.stored.iter().chain(code).cloned().collect();
            needed.extend(view.data.iter().filter(|entry| entry.is_directory()).map(DataFile::piece));
            client.fetch(&needed, &local.store()).await?;
            Client::connect(&local.address()).await?
        }
        None => client.clone(),
    };
    keep(&there, &elsewhere.in_place).await?;
    let request = SubmitRequest {
        request_id: new_request()?.to_string(),
        job: view.job.clone().into_bytes(),
        base_dir: rebuilt.job_directory.display().to_string(),
        code: view.code.as_ref().map(Into::into),
        data: view.data.iter().map(Into::into).collect(),
    };
    let run = there.submit(request).await?;
    Output::note(&format!("re-running run {} from its first step, as run {run}", target.run()));
    let broken = async {
        match local {
            Some(local) => local.broken().await,
            None => std::future::pending().await,
        }
    };
    let again = tokio::select! {
        biased;
        () = interrupted() => {
            there.cancel(CancelRequest { request_id: new_request()?.to_string(), run }).await?;
            return Ok(None);
        }
        failure = broken => return Err(failure),
        again = follow(&mut there, &run) => again?,
    };
    if again.row.step < last {
        let words = format!("the reproduction ended before step {last}:\n{}", summary(&again).join("\n"));
        return Err(Failure::new(Exit::RunFailed, words));
    }
    let recorded = target.record(client).await?;
    let made = record_of_replay(&mut there, &again).await?;
    let first = target.began.steps + 1;
    let comparison = Comparison::over(&recorded, &made, first..=last);
    let (state, reproduced) = (view.row.final_state_digest, again.row.final_state_digest);
    Ok(Some(Verdict {
        run: target.run(),
        reproduction: run,
        directory: rebuilt.directory.clone(),
        local_directory,
        first_step: first,
        last_step: last,
        equal: comparison.equal() && state.is_none_or(|state| reproduced == Some(state)),
        comparison,
        recorded: state,
        reproduced,
        differences: differences(target, &again),
    }))
}

/// Why a run cannot be reproduced from its id, if it cannot: it was resumed with other data or code, or on a machine that computes
/// differently, so what it names now did not make its first steps.
fn began_otherwise(view: &RunView) -> Option<String> {
    let names = ["data.", "numerics."];
    let other = |one: &&Override| one.key == "code" || names.iter().any(|name| one.key.starts_with(name));
    let Override { key, was, now } = view.row.overrides.iter().find(other)?;
    let run = &view.row.id;
    Some(format!("run {run} descends from a resume with an accepted difference: `{key}` was {was}, is {now}"))
}

/// Data files that the rebuilt tree lacks.
#[derive(Debug, Default)]
struct Elsewhere {
    /// Files that are unchanged in the run's own directory.
    in_place: Vec<(Piece, PathBuf)>,
    /// Files that only the coordinator's store may have.
    stored: Vec<Piece>,
}

impl Elsewhere {
    fn look(job_directory: &Path, view: &RunView, files: &[DataFile], other_revision: bool) -> Result<Self, Failure> {
        let mut found = Self::default();
        for file in files {
            let one = std::slice::from_ref(file);
            match data::verify(job_directory, one) {
                Ok(()) => {}
                Err(DataHashError::Missing { .. }) if data::verify(Path::new(&view.base_dir), one).is_ok() => {
                    found.in_place.push((file.piece(), Path::new(&view.base_dir).join(&file.path)));
                }
                Err(DataHashError::Missing { .. }) => {
                    found.stored.push(file.piece());
                }
                Err(DataHashError::Changed { .. }) if other_revision => {
                    found.stored.push(file.piece());
                }
                Err(error) => return Err(refused(&error)),
            }
        }
        Ok(found)
    }
}

fn differences(target: &Target, again: &RunView) -> Vec<Difference> {
    let mut found = keys("numerics", &target.numerics, &again.numerics);
    found.extend(keys("environment", &surroundings(&target.environment), &surroundings(&again.environment)));
    found
}

fn lines(verdict: &Verdict) -> Vec<String> {
    let Verdict { run, reproduction, first_step, last_step, comparison, recorded, reproduced, .. } = verdict;
    let mut lines = Vec::new();
    match &comparison.parting {
        None => {
            let equal = comparison.equal_steps(*first_step, *last_step);
            lines.push(format!("run {run} is reproduced: {equal}"));
        }
        Some(parting) => {
            lines.push(format!("run {run} differs from its reproduction {reproduction} at step {}:", parting.step));
            lines.extend(parting.lines(("recorded", "reproduced")));
        }
    }
    let text = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
    match recorded {
        None => {
            lines.push(format!(
                "  the run did not finish, so no final state was recorded; that of its reproduction: {}",
                text(reproduced)
            ));
        }
        Some(state) if Some(*state) == *reproduced => lines.push(format!("  final state {state}, as recorded")),
        Some(state) => lines.push(format!("  final state: recorded {state}, reproduced {}", text(reproduced))),
    }
    if let Some(dir) = &verdict.local_directory {
        lines.push(format!("  files of its coordinator and workers: {}", dir.display()));
    }
    if !verdict.differences.is_empty() {
        lines.push("  environment and numerics that differ:".to_owned());
        let rows: Vec<Vec<String>> = verdict.differences.iter().map(Difference::cells).collect();
        lines.extend(table(&["", "KEY", "RECORDED", "NOW"], &rows).into_iter().map(|line| format!("  {line}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_reproduction_writes_lies_beside_the_tree_that_it_rebuilds() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        for (asked, tree) in [("again", "again"), ("a/../again", "again"), (".", "")] {
            std::fs::create_dir_all(here.join("a")).unwrap();
            std::fs::create_dir_all(here.join("again")).unwrap();
            let (asked, tree) = (here.join(asked), std::path::absolute(here.join(tree)).unwrap());
            let at = beside(&asked).unwrap();
            assert_eq!(at.parent(), tree.canonicalize().unwrap().parent(), "{}", at.display());
            assert!(!at.starts_with(&asked), "{}", at.display());
        }
        assert_eq!(beside(&here.join("new")).unwrap(), here.join("new.lockstep"));
        assert!(beside(Path::new("/")).is_err());
    }
}
