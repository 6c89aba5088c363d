//! `coord diff`: the differences of two runs or checkpoints, and the step at which their records diverge.

use std::collections::BTreeMap;
use std::path::Path;

use lockstep_common::manifest::{DataFile, Manifest};
use lockstep_common::preprocessing::OF_CHECKPOINT;
use lockstep_core::view::RunView;
use lockstep_host::git::{self, ChangedFile, Changes};
use lockstep_rpc::query_request::What;
use serde::Serialize;
use serde_json::Value;

use crate::args::DiffArguments;
use crate::connection::Client;
use crate::evidence::comparison::Comparison;
use crate::evidence::replay::replay;
use crate::evidence::target::{Target, record_of_replay};
use crate::terminal::{Exit, Failure, Output, table};

/// The answer of `--json`.
#[derive(Debug, Serialize)]
struct Report {
    a: String,
    b: String,
    /// Keys with different values, by kind: `code`, `data`, `job`, `numerics`, `environment`.
    differences: Vec<Difference>,
    /// Files that changed from A's commit to B's, if a repository on this machine has both commits.
    changes: Option<Changes>,
    /// First and last step that both runs have.
    common: Option<(u64, u64)>,
    record: Comparison,
    /// As `record`, for replays of both runs with fingerprints at every step (`--bisect`).
    bisected: Option<Comparison>,
}

/// A key whose values differ; `None` on a side that lacks the key.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    kind: &'static str,
    key: String,
    a: Option<String>,
    b: Option<String>,
}

impl Difference {
    /// The note about a difference of a checkpoint, `a`, and a run that was resumed from it, `b`.
    pub(crate) fn note(&self) -> String {
        if let ("preprocessing", Some(now)) = (self.key.as_str(), &self.b) {
            let own = now.strip_prefix(OF_CHECKPOINT).unwrap_or(now);
            return format!("note: the checkpoint's preprocessing is used; the data's own would differ: {own}");
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "(not set)".to_owned());
        let (was, is) = (text(&self.a), text(&self.b));
        format!(
            "note: {} differs from the checkpoint, and is not known to change bits: was `{was}`, is `{is}`",
            self.key
        )
    }

    /// A row of a table.
    pub(crate) fn cells(&self) -> Vec<String> {
        let cell = |value: &Option<String>| value.clone().unwrap_or_else(|| "-".to_owned());
        vec![self.kind.to_owned(), self.key.clone(), cell(&self.a), cell(&self.b)]
    }
}

pub(crate) async fn diff(arguments: DiffArguments, out: &mut Output) -> Result<Exit, Failure> {
    let mut client = Client::connect(&arguments.reader.address.addr).await?;
    let (a, b) = (Target::find(&client, &arguments.a).await?, Target::find(&client, &arguments.b).await?);
    let (of_a, of_b) = (a.record(&mut client).await?, b.record(&mut client).await?);
    let last = of_a.last_common(&of_b).map(|last| last.min(a.last_step()).min(b.last_step()));
    let common = of_a.first_common(&of_b).zip(last).filter(|(first, last)| first <= last);
    let record = common.map_or_else(Comparison::default, |(first, last)| Comparison::over(&of_a, &of_b, first..=last));
    let mut differences = differences(&a, &b);
    differences.extend(data(&mut client, &a, &b).await?);
    let changes = changes(&a, &b);
    let mut report = Report { a: a.name(), b: b.name(), differences, changes, common, record, bisected: None };
    if let (true, Some(parting), Some((first, last))) = (arguments.bisect, &report.record.parting, common) {
        let from = report.record.agreed.map_or(first, |agreed| agreed + 1);
        let until = parting.tensors.as_ref().map_or(last, |tensors| tensors.step);
        // The first step that both replays have.
        let begin = a.nearest(from - 1).1.max(b.nearest(from - 1).1) + 1;
        let Some(again_a) = replay(&mut client, &a, from, until, 1).await? else { return Ok(Exit::Interrupted) };
        let Some(again_b) = replay(&mut client, &b, from, until, 1).await? else { return Ok(Exit::Interrupted) };
        let again_a = record_of_replay(&mut client, &again_a).await?;
        let again_b = record_of_replay(&mut client, &again_b).await?;
        report.bisected = Some(Comparison::over(&again_a, &again_b, begin..=until));
    }
    if arguments.reader.json {
        out.json(&report);
    } else {
        for line in lines(&report) {
            out.line(&line);
        }
        if let (true, Some(changes)) = (arguments.patch, &report.changes) {
            out.line("");
            out.raw(format!("{}\n", changes.patch.trim_end()).as_bytes());
        }
    }
    Ok(if report.record.equal() { Exit::Done } else { Exit::Differs })
}

/// The changes between the commits of `a` and `b`, from the repository of either job or of the current directory.
fn changes(a: &Target, b: &Target) -> Option<Changes> {
    let (of_a, of_b) = (&a.view.code.as_ref()?.commit, &b.view.code.as_ref()?.commit);
    if of_a == of_b {
        return None;
    }
    let dirs = [a.view.base_dir.as_str(), b.view.base_dir.as_str(), "."];
    // A directory that does not exist on this machine is skipped.
    dirs.into_iter().find_map(|dir| git::changes(Path::new(dir), of_a, of_b).ok().flatten())
}

fn differences(a: &Target, b: &Target) -> Vec<Difference> {
    let mut found = keys("code", &code(a), &code(b));
    found.extend(keys("job", &job(&a.view.job), &job(&b.view.job)));
    found.extend(keys("numerics", &a.numerics, &b.numerics));
    found.extend(keys("environment", &a.environment, &b.environment));
    found
}

pub(crate) fn keys(kind: &'static str, a: &BTreeMap<String, String>, b: &BTreeMap<String, String>) -> Vec<Difference> {
    let mut names: Vec<&String> = a.keys().chain(b.keys()).collect();
    names.sort();
    names.dedup();
    let differ = names.into_iter().filter(|key| a.get(*key) != b.get(*key));
    differ.map(|key| Difference { kind, key: key.clone(), a: a.get(key).cloned(), b: b.get(key).cloned() }).collect()
}

/// The environment without the machine's name, which is no difference.
pub(crate) fn surroundings(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = environment.iter().filter(|(key, _)| key.as_str() != "host");
    others.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// Differences between the environment of `view` and that of the checkpoint from which it was resumed. None of them is known to change
/// bits: differences that do are refused, or accepted by the user.
pub(crate) async fn unlike_checkpoint(client: &Client, view: &RunView) -> Result<Vec<Difference>, Failure> {
    let Some(parent) = view.row.parent.filter(|_| !view.environment.is_empty()) else { return Ok(Vec::new()) };
    let text = client.query(What::Manifest(parent.to_string())).await?;
    let manifest = Manifest::decode(text.as_bytes()).map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
    Ok(keys("environment", &surroundings(&manifest.environment), &surroundings(&view.environment)))
}

fn code(target: &Target) -> BTreeMap<String, String> {
    let Some(code) = &target.view.code else { return BTreeMap::new() };
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
    let uncommitted = match &code.tree {
        _ if !code.dirty => "no".to_owned(),
        Some(tree) => format!("yes, work tree {}", tree.digest),
        None => "yes".to_owned(),
    };
    BTreeMap::from([
        ("commit".to_owned(), code.commit.clone()),
        ("branch".to_owned(), text(&code.branch)),
        ("remote".to_owned(), text(&code.remote)),
        ("uncommitted changes".to_owned(), uncommitted),
    ])
}

/// Differences of the data, also of each file in a directory.
async fn data(client: &mut Client, a: &Target, b: &Target) -> Result<Vec<Difference>, Failure> {
    let text = |file: DataFile| (file.path, format!("{} bytes, {}", file.bytes, file.digest));
    let mut only = async |own: &[DataFile], other: &[DataFile]| -> Result<BTreeMap<String, String>, Failure> {
        let unlike: Vec<DataFile> = own.iter().filter(|entry| !other.contains(entry)).cloned().collect();
        Ok(client.listed(&unlike).await?.into_iter().map(text).collect())
    };
    let of_a = only(&a.view.data, &b.view.data).await?;
    Ok(keys("data", &of_a, &only(&b.view.data, &a.view.data).await?))
}

/// The keys of a job, as `optimizer.lr`, with their values as JSON.
pub(crate) fn job(text: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    // The job was checked when it was submitted.
    if let Ok(job) = serde_json::from_str(text) {
        flatten("", &job, &mut keys);
    }
    keys
}

fn flatten(path: &str, value: &Value, keys: &mut BTreeMap<String, String>) {
    match value {
        Value::Object(object) => {
            for (key, value) in object {
                flatten(&if path.is_empty() { key.clone() } else { format!("{path}.{key}") }, value, keys);
            }
        }
        Value::Null => {}
        value => {
            keys.insert(path.to_owned(), value.to_string());
        }
    }
}

fn lines(report: &Report) -> Vec<String> {
    let mut lines = vec![format!("A  {}", report.a), format!("B  {}", report.b), String::new()];
    let rows: Vec<Vec<String>> = report.differences.iter().map(Difference::cells).collect();
    if rows.is_empty() {
        lines.push("code, data, job, numerics and environment are the same".to_owned());
    } else {
        lines.extend(table(&["", "KEY", "A", "B"], &rows));
    }
    match &report.changes {
        Some(changes) => {
            let file = |file: &ChangedFile| format!("  {:<40} +{} -{}", file.path, file.added, file.removed);
            lines.extend(changes.files.iter().map(file));
        }
        None if report.differences.iter().any(|found| (found.kind, found.key.as_str()) == ("code", "commit")) => {
            lines.push("the changed files are not known: no repository on this machine has both commits".to_owned());
        }
        None => {}
    }
    lines.push(String::new());
    let Some((first, last)) = report.common else {
        lines.push("record: the runs have no step in common".to_owned());
        return lines;
    };
    let Some(parting) = &report.record.parting else {
        lines.push(format!("record: {}", report.record.equal_steps(first, last)));
        return lines;
    };
    lines.push(parts(first, parting.step));
    lines.extend(parting.lines(("A", "B")));
    match &report.bisected {
        None if parting
            .tensors
            .as_ref()
            .is_none_or(|tensors| report.record.agreed.is_none_or(|agreed| agreed + 1 < tensors.step)) =>
        {
            lines.push(
                "hint: pass `--bisect` to replay both with fingerprints at every step, which finds the step and the tensor".to_owned(),
            );
        }
        None => {}
        Some(bisected) => match &bisected.parting {
            Some(found) => {
                lines.push(format!("replayed with fingerprints at every step, the runs diverge at step {}:", found.step));
                lines.extend(found.lines(("A", "B")));
            }
            None => lines.push(format!(
                "replayed, the runs do not diverge ({} steps, {} of them with fingerprints): the difference did not recur",
                bisected.steps, bisected.fingerprints
            )),
        },
    }
    lines
}

/// The line about records that diverge at step `at`. `first` is their first common step, above 1 if a run was resumed.
fn parts(first: u64, at: u64) -> String {
    let before = if first > 1 { "; earlier steps were not compared" } else { "" };
    if at == first {
        return format!("record: diverges at step {at}, the first that both have{before}:");
    }
    let equal = if first > 1 {
        format!("equal from step {first} to {}", at - 1)
    } else {
        format!("equal up to step {}", at - 1)
    };
    format!("record: {equal}, diverges at step {at}:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_steps_that_were_not_compared() {
        assert_eq!(parts(1, 8), "record: equal up to step 7, diverges at step 8:");
        assert_eq!(parts(1, 1), "record: diverges at step 1, the first that both have:");
        assert_eq!(parts(201, 260), "record: equal from step 201 to 259, diverges at step 260:");
        let unknown = "record: diverges at step 201, the first that both have; earlier steps were not compared:";
        assert_eq!(parts(201, 201), unknown);
    }

    #[test]
    fn keys_are_compared_wherever_they_lie() {
        let flat = |text: &str| {
            let mut keys = BTreeMap::new();
            flatten("", &serde_json::from_str(text).unwrap(), &mut keys);
            keys
        };
        let a = flat(r#"{"seed": 1, "optimizer": {"lr": 0.1, "clip_norm": null}, "model": {"hidden": [1, 2]}}"#);
        let b = flat(r#"{"seed": 1, "optimizer": {"lr": 0.2, "clip_norm": 1.0}, "model": {"hidden": [1, 2]}}"#);
        let found: Vec<_> = keys("job", &a, &b).into_iter().map(|found| (found.key, found.a, found.b)).collect();
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(
            found,
            [
                ("optimizer.clip_norm".to_owned(), None, text("1.0")),
                ("optimizer.lr".to_owned(), text("0.1"), text("0.2"))
            ]
        );
    }

    #[test]
    fn a_note_says_whose_preprocessing_is_used() {
        let note = |key: &str, is: &str| {
            let (kind, key, b) = ("environment", key.to_owned(), Some(is.to_owned()));
            Difference { kind, key, a: None, b }.note()
        };
        assert_eq!(
            note("preprocessing", "the checkpoint's; column `a`: mean 1 in the checkpoint, mean 2 in the data"),
            "note: the checkpoint's preprocessing is used; the data's own would differ: column `a`: mean 1 in the checkpoint, \
             mean 2 in the data"
        );
        assert_eq!(
            note("fault", "x"),
            "note: fault differs from the checkpoint, and is not known to change bits: was `(not set)`, is `x`"
        );
    }
}
