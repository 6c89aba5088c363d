//! `coord reproduce`: a run again from its id alone: its code, its data, every step, and whether the bits are the same.

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
    /// The run that made it again.
    reproduction: String,
    /// Where its code lies.
    directory: PathBuf,
    /// With `--on local`: where all that it wrote lies.
    #[serde(skip_serializing_if = "Option::is_none")]
    local_directory: Option<PathBuf>,
    first_step: u64,
    last_step: u64,
    equal: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// State at the end: as recorded, if the run came to its end, and as it came out.
    recorded: Option<Digest>,
    reproduced: Option<Digest>,
    /// What was not as it was.
    differences: Vec<Difference>,
}

pub(crate) async fn reproduce(arguments: ReproduceArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let target = Target::find(&client, &arguments.run).await?;
    let (run, last) = (target.run(), target.last_step());
    if last <= target.began.steps {
        return Err(Failure::new(Exit::Refused, format!("run {run} has made no step: there is nothing to compare")));
    }
    if let Some(words) = began_otherwise(&target.view) {
        return Err(Failure::new(Exit::Refused, words).hint(format!("`coord verify {run}` makes its own steps again")));
    }
    let directory = arguments.directory.clone().unwrap_or_else(|| format!("run-{run}").into());
    let beside = match arguments.on_local {
        Some(_) => Some(local_dir::by_default(&beside(&directory)?).map_err(|failure| {
            failure.hint("remove it if nobody needs it, or name another directory to rebuild the run in")
        })?),
        None => None,
    };
    let rebuilt = if target.view.code.is_some() {
        rebuild(&mut client, &target.view, &directory, arguments.repositories.clone()).await?
    } else {
        Output::note(&format!(
            "note: run {run} came from no git work tree: it is made again from its job and data alone"
        ));
        Rebuilt::empty(&directory)?
    };
    let job = JobSpec::from_canonical(target.view.job.as_bytes());
    let job = job.map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    let other_revision = job.data.revision().is_some();
    for path in job.data_paths() {
        let path = rebuilt.job_directory.join(path);
        // What DVC cannot bring may lie elsewhere; as of another revision it is in the store.
        if !path.exists()
            && !other_revision
            && let Err(failure) = tracked::fetch(&rebuilt.job_directory, &[path], false).await
        {
            Output::note(&format!("note: {}", failure.render()));
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

/// Where a coordinator and workers of its own write: beside the rebuilt tree, which may hold anything, and never in it.
fn beside(directory: &Path) -> Result<PathBuf, Failure> {
    let unusable = |why: &str| Failure::new(Exit::Usage, format!("cannot use `{}`: {why}", directory.display()));
    // `..` and links in the name are resolved if it is there; nothing is to be resolved otherwise.
    let resolved = std::fs::canonicalize(directory).or_else(|_| std::path::absolute(directory));
    let resolved = resolved.map_err(|error| unusable(&error.to_string()))?;
    let (Some(parent), Some(name)) = (resolved.parent(), resolved.file_name()) else {
        return Err(unusable("there is no place beside it, where `--on local` writes"));
    };
    let mut name = name.to_owned();
    name.push(".lockstep");
    Ok(parent.join(name))
}

/// Trains the run once more, here or where it was, and compares. `None` after Ctrl-C.
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
    Output::note(&format!("making run {} again, from the first step on, as run {run}", target.run()));
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

/// Why what a run names does not make its first steps, if it does not: they were made with other data or code, or on
/// a machine that computes otherwise.
fn began_otherwise(view: &RunView) -> Option<String> {
    let names = ["data.", "numerics."];
    let other = |one: &&Override| one.key == "code" || names.iter().any(|name| one.key.starts_with(name));
    let Override { key, was, now } = view.row.overrides.iter().find(other)?;
    let run = &view.row.id;
    Some(format!(
        "run {run} goes on from a checkpoint that was made otherwise: `{key}` was {was}, is {now}, and was accepted"
    ))
}

/// Where the data is that the rebuilt tree has not.
#[derive(Debug, Default)]
struct Elsewhere {
    /// Still where the run had it.
    in_place: Vec<(Piece, PathBuf)>,
    /// In the coordinator's store, or nowhere.
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
        None => lines.push(format!(
            "run {run} is reproduced: steps {first_step} to {last_step}, every bit again ({})",
            comparison.extent()
        )),
        Some(parting) => {
            lines.push(format!("run {run} differs from its reproduction {reproduction} at step {}:", parting.step));
            lines.extend(parting.lines(("recorded", "reproduced")));
        }
    }
    let text = |digest: &Option<Digest>| digest.map_or("none".to_owned(), |digest| digest.to_string());
    match recorded {
        None => {
            lines.push(format!("  the run did not come to its end; its reproduction ended with {}", text(reproduced)));
        }
        Some(state) if Some(*state) == *reproduced => lines.push(format!("  final state {state}, as recorded")),
        Some(state) => lines.push(format!("  final state: recorded {state}, reproduced {}", text(reproduced))),
    }
    if let Some(dir) = &verdict.local_directory {
        lines.push(format!("  what its coordinator and workers wrote lies in {}", dir.display()));
    }
    if !verdict.differences.is_empty() {
        lines.push("  not as it was:".to_owned());
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
