//! `coord diff`: what two runs or checkpoints differ in, and where their records part.

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

/// Everything that `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    a: String,
    b: String,
    /// Keys with different values, by kind: `code`, `data`, `job`, `numerics`, `environment`.
    differences: Vec<Difference>,
    /// What changed from A's commit to B's, if a repository here has both.
    changes: Option<Changes>,
    /// The steps that both have.
    common: Option<(u64, u64)>,
    record: Comparison,
    /// As `record`, from replays of both with fingerprints at every step.
    bisected: Option<Comparison>,
}

/// A key, and what it is on either side; absent where it is not there.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Difference {
    kind: &'static str,
    key: String,
    a: Option<String>,
    b: Option<String>,
}

impl Difference {
    /// As a note: on which key `a`, of a checkpoint, and `b`, of the run resumed from it, differ.
    pub(crate) fn note(&self) -> String {
        if let ("preprocessing", Some(now)) = (self.key.as_str(), &self.b) {
            let own = now.strip_prefix(OF_CHECKPOINT).unwrap_or(now);
            return format!("note: the checkpoint's preprocessing is used; the data's own would differ: {own}");
        }
        let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "nothing".to_owned());
        let (was, is) = (text(&self.a), text(&self.b));
        format!("note: unlike at the checkpoint, and not known to change bits: {} was `{was}`, is `{is}`", self.key)
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
        // Both begin at one step, so that the same steps are compared.
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

/// From the repository of either job, or of this directory.
fn changes(a: &Target, b: &Target) -> Option<Changes> {
    let (of_a, of_b) = (&a.view.code.as_ref()?.commit, &b.view.code.as_ref()?.commit);
    if of_a == of_b {
        return None;
    }
    let dirs = [a.view.base_dir.as_str(), b.view.base_dir.as_str(), "."];
    // A directory that is not on this machine has nothing to say.
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

/// What a run runs on, but for the machine's name: where it ran is no difference.
pub(crate) fn surroundings(environment: &BTreeMap<String, String>) -> BTreeMap<String, String> {
    let others = environment.iter().filter(|(key, _)| key.as_str() != "host");
    others.map(|(key, value)| (key.clone(), value.clone())).collect()
}

/// What of its surroundings is otherwise than where the checkpoint was made that `view` was resumed from. None of it is known
/// to change bits: that was refused, or accepted.
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
        Some(tree) => format!("the tree with them is {}", tree.digest),
        None => "yes".to_owned(),
    };
    BTreeMap::from([
        ("commit".to_owned(), code.commit.clone()),
        ("branch".to_owned(), text(&code.branch)),
        ("remote".to_owned(), text(&code.remote)),
        ("uncommitted changes".to_owned(), uncommitted),
    ])
}

/// File by file, in directories too.
async fn data(client: &mut Client, a: &Target, b: &Target) -> Result<Vec<Difference>, Failure> {
    let text = |file: DataFile| (file.path, format!("{} bytes, {}", file.bytes, file.digest));
    let mut only = async |own: &[DataFile], other: &[DataFile]| -> Result<BTreeMap<String, String>, Failure> {
        let unlike: Vec<DataFile> = own.iter().filter(|entry| !other.contains(entry)).cloned().collect();
        Ok(client.listed(&unlike).await?.into_iter().map(text).collect())
    };
    let of_a = only(&a.view.data, &b.view.data).await?;
    Ok(keys("data", &of_a, &only(&b.view.data, &a.view.data).await?))
}

/// The keys of a job, and their values as text.
pub(crate) fn job(text: &str) -> BTreeMap<String, String> {
    let mut keys = BTreeMap::new();
    // What the coordinator sends was checked when it was submitted.
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
            lines.push("what changed in the code is not known: no repository here has both commits".to_owned());
        }
        None => {}
    }
    lines.push(String::new());
    let Some((first, last)) = report.common else {
        lines.push("record: they have no step in common".to_owned());
        return lines;
    };
    let Some(parting) = &report.record.parting else {
        lines.push(format!("record: steps {first} to {last} are equal, bit for bit ({})", report.record.extent()));
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
                "hint: `--bisect` replays both with fingerprints at every step, to name step and tensor".to_owned(),
            );
        }
        None => {}
        Some(bisected) => match &bisected.parting {
            Some(found) => {
                lines.push(format!("replayed with fingerprints at every step, they part at step {}:", found.step));
                lines.extend(found.lines(("A", "B")));
            }
            None => lines.push(format!(
                "replayed, they do not part ({}): what made them differ did not come again",
                bisected.extent()
            )),
        },
    }
    lines
}

/// Where records part whose first common step is `first`; a run that was resumed has none before.
fn parts(first: u64, at: u64) -> String {
    let before = if first > 1 { ", before which nothing was compared" } else { "" };
    if at == first {
        return format!("record: parts at step {at}, the first that both have{before}:");
    }
    let equal = if first > 1 {
        format!("steps {first} to {} are equal", at - 1)
    } else {
        format!("equal up to step {}", at - 1)
    };
    format!("record: {equal}, parts at step {at}:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_is_said_of_steps_that_were_not_compared() {
        assert_eq!(parts(1, 8), "record: equal up to step 7, parts at step 8:");
        assert_eq!(parts(1, 1), "record: parts at step 1, the first that both have:");
        assert_eq!(parts(201, 260), "record: steps 201 to 259 are equal, parts at step 260:");
        let unknown = "record: parts at step 201, the first that both have, before which nothing was compared:";
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
            "note: unlike at the checkpoint, and not known to change bits: fault was `nothing`, is `x`"
        );
    }
}
