//! `coord verify`: re-runs steps of a run and compares them with the record, bit for bit. For a checkpoint it also reads all its blobs in
//! the store.

use std::ops::RangeInclusive;

use lockstep_common::Digest;
use lockstep_common::job::JobSpec;
use serde::Serialize;

use crate::args::VerifyArguments;
use crate::connection::Client;
use crate::evidence::comparison::Comparison;
use crate::evidence::replay::replay;
use crate::evidence::target::{Target, manifest, record_of_replay};
use crate::terminal::{Exit, Failure, Output};

#[derive(Debug, Serialize)]
struct Verdict {
    run: String,
    replay: String,
    first_step: u64,
    last_step: u64,
    equal: bool,
    #[serde(flatten)]
    comparison: Comparison,
    /// The state digests at the last step, if a checkpoint was taken there.
    state: Option<States>,
}

#[derive(Debug, Serialize)]
struct States {
    recorded: Digest,
    replayed: Option<Digest>,
}

pub(crate) async fn verify(arguments: VerifyArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let target = Target::find(&client, &arguments.target).await?;
    let steps = range(&target, arguments.steps)?;
    let (first, last) = (*steps.start(), *steps.end());
    if let Some((checkpoint, _)) = &target.checkpoint {
        check_blobs(&client, checkpoint).await?;
    }
    let every = JobSpec::from_canonical(target.view.job.as_bytes()).map_or(0, |job| job.report.fingerprints_every);
    let recorded = target.record(&mut client).await?;
    let Some(replayed) = replay(&mut client, &target, first, last, every).await? else {
        return Ok(Exit::Interrupted);
    };
    let again = record_of_replay(&mut client, &replayed).await?;
    let comparison = Comparison::over(&recorded, &again, steps);
    let states = target.state_at(last).map(|recorded| States { recorded, replayed: replayed.row.final_state_digest });
    let same_state = states.as_ref().is_none_or(|states| Some(states.recorded) == states.replayed);
    let verdict = Verdict {
        run: target.run(),
        replay: replayed.row.id.to_string(),
        first_step: first,
        last_step: last,
        equal: comparison.equal() && same_state,
        comparison,
        state: states,
    };
    if arguments.reader.json {
        out.json(&verdict);
    } else {
        for line in lines(&verdict) {
            out.line(&line);
        }
    }
    Ok(if verdict.equal { Exit::Done } else { Exit::Differs })
}

/// Checks that the checkpoint's blobs can be read: equal steps say nothing about blobs that are damaged.
async fn check_blobs(client: &Client, checkpoint: &Digest) -> Result<(), Failure> {
    let manifest = manifest(client, &checkpoint.to_string()).await?;
    let tensors = manifest.tensors.iter().flat_map(|entry| &entry.pieces);
    let checked = client.check_stored(tensors.chain(manifest.ranks.iter().flat_map(|rank| rank.generators.values())));
    checked.await.map_err(|failure| failure.context(&format!("checkpoint {} cannot be read", checkpoint.short())))
}

/// The steps to verify: `asked`, or by default the steps since the checkpoint before the named one, or all steps of the run.
fn range(target: &Target, asked: Option<(u64, u64)>) -> Result<RangeInclusive<u64>, Failure> {
    let last = target.last_step();
    let begin = match target.checkpoint {
        Some((_, step)) => target.nearest(step.saturating_sub(1)).1,
        None => target.began.steps,
    };
    let (first, until) = asked.unwrap_or((begin + 1, last));
    if first <= target.began.steps || until > last || first > until {
        let words = format!(
            "steps {first}..{until} are not within {}..{last}, the steps of {}",
            target.began.steps + 1,
            target.name()
        );
        return Err(Failure::new(Exit::Usage, words));
    }
    Ok(first..=until)
}

fn lines(verdict: &Verdict) -> Vec<String> {
    let Verdict { run, first_step, last_step, comparison, state, .. } = verdict;
    let mut lines = Vec::new();
    match &comparison.parting {
        None => lines.push(format!("run {run}: {}", comparison.equal_steps(*first_step, *last_step))),
        Some(parting) => {
            lines.push(format!("run {run} differs from its replay at step {}:", parting.step));
            lines.extend(parting.lines(("recorded", "replayed")));
        }
    }
    if let Some(States { recorded, replayed }) = state {
        let found = replayed.map_or("none".to_owned(), |digest| digest.to_string());
        lines.push(if Some(*recorded) == *replayed {
            format!("  state at step {last_step}: {recorded}, as in its checkpoint")
        } else {
            format!("  state at step {last_step}: recorded {recorded}, replayed {found}")
        });
    }
    lines
}
