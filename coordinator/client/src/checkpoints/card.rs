//! The model card of an exported checkpoint, in Markdown.

use lockstep_common::job::Output::Loss;
use lockstep_common::job::{Autocast, Data, JobSpec, Model};
use lockstep_common::manifest::Manifest;
use lockstep_common::preprocessing::{Inputs, Preprocessing, Targets};

use crate::watch::metrics::Metrics;

/// Longest value in the card, in bytes. The manifest has longer ones.
const LONGEST: usize = 100;

/// Most columns of a table in the card. The manifest has all.
const MOST_COLUMNS: usize = 200;

/// The exported files beside the card.
#[derive(Debug)]
pub(crate) struct Files {
    /// Name of the TorchScript module, if it was exported.
    pub(crate) module: Option<&'static str>,
    /// Name of the module that takes raw inputs, if it was exported.
    pub(crate) raw_module: Option<&'static str>,
    pub(crate) predicts: Predicts,
}

/// Whether `predict.py` was exported.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Predicts {
    /// It was exported.
    Script,
    /// It was not exported, for this reason.
    Not(&'static str),
}

/// The text of the card: how to load the checkpoint and predict with it, and its job, code, data, lineage and environment.
pub(crate) fn card(manifest: &Manifest, job: &JobSpec, metrics: &Metrics, files: &Files) -> String {
    let mut text = String::new();
    let mut line = |words: String| {
        text.push_str(&words);
        text.push('\n');
    };
    let id = Manifest::id(&manifest.encode());
    line(format!("# {}\n", job.name));
    line(format!("Step {} of {} of run `{}`, checkpoint `{id}`.\n", manifest.step, job.steps, manifest.run));
    line(
        "```python\nfrom safetensors.torch import load_file\n\nstate_dict = load_file(\"model.safetensors\")"
            .to_owned(),
    );
    if let Some(module) = files.module {
        line(format!("\nimport torch\n\nmodel = torch.jit.load(\"{module}\")"));
    }
    line("```\n".to_owned());
    line("## Predict\n".to_owned());
    predict(files, job, &mut line);
    line("\n## Preprocessing\n".to_owned());
    match &manifest.preprocessing {
        Some(preprocessing) => describe(preprocessing, &mut line),
        None => line(
            "Not recorded: the run's own program reads the data, or an older build wrote the checkpoint.".to_owned(),
        ),
    }
    line(String::new());

    line("## Metrics\n\n| | step | value |\n| --- | ---: | ---: |".to_owned());
    for (name, step, value) in metrics.at(manifest.step) {
        line(format!("| {name} | {step} | {value} |"));
    }

    architecture(manifest, &mut line);
    line("\n## Job\n\n```toml".to_owned());
    line(as_toml(&manifest.job_text));
    line("```".to_owned());

    code(manifest, &mut line);
    line("\n## Data\n\n| file | bytes | blake3 |\n| --- | ---: | --- |".to_owned());
    for file in &manifest.data {
        let bytes = if file.is_directory() { "(its list)".to_owned() } else { file.bytes.to_string() };
        line(format!("| `{}` | {bytes} | `{}` |", file.path, file.digest));
    }

    lineage(manifest, &mut line);
    environment(manifest, &mut line);
    text
}

/// The table of all parameters and buffers.
fn architecture(manifest: &Manifest, line: &mut dyn FnMut(String)) {
    line("\n## Architecture\n\n| tensor | elements | type | shape |\n| --- | ---: | --- | --- |".to_owned());
    let mut parameters = 0;
    for tensor in &manifest.tensors {
        let count: i64 = tensor.shape.iter().product();
        let name = match tensor.name.split_once('/') {
            Some(("model", name)) => {
                parameters += count;
                name.to_owned()
            }
            Some(("buffer", name)) => format!("{name} (buffer)"),
            _ => continue,
        };
        line(format!("| `{name}` | {count} | {} | {:?} |", tensor.dtype, tensor.shape));
    }
    line(format!("\n{parameters} parameters."));
}

/// The section about the commit and the work tree.
fn code(manifest: &Manifest, line: &mut dyn FnMut(String)) {
    line("\n## Code\n".to_owned());
    match &manifest.code {
        Some(code) => {
            line(format!("- commit `{}`{}", code.commit, if code.dirty { ", with uncommitted changes" } else { "" }));
            let more = [("branch", &code.branch), ("remote", &code.remote)];
            for (name, value) in more.into_iter().filter_map(|(name, value)| Some((name, value.as_ref()?))) {
                line(format!("- {name} `{value}`"));
            }
            if !code.tags.is_empty() {
                line(format!("- tags {}", code.tags.join(", ")));
            }
            line(format!("- `coord checkout {}` rebuilds the work tree", manifest.run));
        }
        None => line("The job was not in a git work tree.".to_owned()),
    }
}

/// The section about the parent checkpoint, accepted differences, and the command that re-runs the training.
fn lineage(manifest: &Manifest, line: &mut dyn FnMut(String)) {
    line("\n## Lineage\n".to_owned());
    match &manifest.parent {
        Some(parent) => line(format!("- the run was resumed from checkpoint `{parent}`")),
        None => line("- the run started with new weights".to_owned()),
    }
    for one in &manifest.overrides {
        line(format!("- accepted difference from a checkpoint that it descends from: {one}"));
    }
    line(format!("- state `{}`", manifest.state));
    if manifest.overrides.is_empty() {
        line(format!("- `coord reproduce {}` trains it again and compares every bit", manifest.run));
    } else {
        line(format!("- `coord verify {}` re-runs the steps of this run and compares every bit", manifest.run));
    }
}

/// The section about the machine, the libraries, and all settings that can change bits.
fn environment(manifest: &Manifest, line: &mut dyn FnMut(String)) {
    line("\n## Environment\n".to_owned());
    for (key, value) in &manifest.environment {
        line(format!("- {key}: {value}"));
    }
    line("\nSettings that are known to change bits:\n".to_owned());
    for (key, value) in manifest.numerics.iter().filter(|(_, value)| *value != "(not set)") {
        let short = value.len() <= LONGEST && !value.contains('\n');
        line(format!("- {key}: {}", if short { value } else { "in `manifest.json`" }));
    }
}

/// The section about predictions: the call of `predict.py`, or why it is missing.
fn predict(files: &Files, job: &JobSpec, line: &mut impl FnMut(String)) {
    match files.predicts {
        Predicts::Script => {
            let call = match job.data {
                Data::Tokens { .. } => {
                    "predict.py tokens.bin                  # loss and perplexity\n\
                                        python3 predict.py tokens.bin --continue 200"
                }
                Data::Idx { .. } => "predict.py images [labels]",
                Data::Npy { .. } => "predict.py inputs.npy [targets.npy]",
                Data::Safetensors { .. } => "predict.py file.safetensors",
                Data::Csv { .. } | Data::Files { .. } => "predict.py table.csv",
            };
            line(format!("```sh\npython3 {call}\n```\n"));
            let gives = match job.model {
                Model::Torchscript { output: Loss, .. } => {
                    "prints the loss of files with targets: the module returns no predictions"
                }
                _ => "prints predictions in the units of the training data",
            };
            line(format!(
                "`predict.py` needs torch, numpy and safetensors. It reads raw files like those of the run, applies the preprocessing \
                 below, and {gives}. With the batch size, threads and processor of the run, its scores match the run's bit for bit, \
                 unless the model draws random numbers in evaluation."
            ));
        }
        Predicts::Not(why) => line(format!("There is no `predict.py`: {why}.")),
    }
    if let Some(module) = files.raw_module {
        line(format!(
            "\n`{module}` is a module that contains the preprocessing: it takes raw inputs (of a table: 64-bit floats, the columns in \
             the order below) and returns values in the units of the training data."
        ));
    }
    if let (Some(module), Autocast::Bf16) = (files.module, job.numerics.autocast) {
        line(format!(
            "\nThe run computed with autocast to bfloat16, which `{module}` does not contain: call it under \
             `torch.autocast(\"cpu\", torch.bfloat16)`, or it computes in 32 bits."
        ));
    }
}

/// The section about the preprocessing of raw samples, for users who do without `predict.py`.
fn describe(preprocessing: &Preprocessing, line: &mut impl FnMut(String)) {
    match &preprocessing.inputs {
        Inputs::Columns(columns) => {
            line("Each column is standardised in 64 bits, `(value - mean) / deviation`, then rounded to 32 bits. The moments are \
                  those of the training rows that the run began with; the deviation of a constant column is 1.\n".to_owned());
            line("| input | column | mean | deviation |\n| ---: | --- | ---: | ---: |".to_owned());
            for (at, column) in columns.iter().enumerate().take(MOST_COLUMNS) {
                let constant = if column.constant { " (constant)" } else { "" };
                line(format!("| {at} | `{}` | {} | {}{constant} |", column.column, column.mean, column.deviation));
            }
            if columns.len() > MOST_COLUMNS {
                line(format!("\n{} more columns are in `manifest.json`.", columns.len() - MOST_COLUMNS));
            }
        }
        Inputs::Pixels { shape, divisor, subtracted } => line(format!(
            "Inputs are 8-bit pixels of shape {shape:?}, as 32-bit floats divided by {divisor}; then {subtracted} is subtracted: 0 \
             to 255 become -1 to 1."
        )),
        Inputs::Values { shape } => {
            line(format!("Inputs are 32-bit floats of shape {shape:?}, as the file holds them."));
        }
        Inputs::Tokens { context, vocabulary, .. } => {
            line(format!("Inputs are windows of {context} token numbers below {vocabulary}, as the file holds them."));
        }
    }
    line(match &preprocessing.targets {
        Targets::Classes { column, count } => {
            let of = column.as_ref().map_or_else(String::new, |column| format!(" of column `{column}`"));
            format!("\nOutput `i` is the score of class `i`{of}; the data has {count} classes, numbered from 0.")
        }
        Targets::Standardised(column) => format!(
            "\nThe output is column `{}`, standardised: its value is `output * {} + {}`, in 64 bits.",
            column.column, column.deviation, column.mean
        ),
        Targets::Values { count } => format!("\nThe outputs are {count} values a sample, as the file holds them."),
        Targets::NextToken => "\nOutput `i` is the score of token `i` as the next one.".to_owned(),
    });
}

/// The job as TOML, or as its stored JSON if that cannot be converted.
fn as_toml(job: &str) -> String {
    let toml = serde_json::from_str::<toml::Value>(&without_nulls(job)).ok().and_then(|job| toml::to_string(&job).ok());
    toml.map_or_else(|| job.to_owned(), |toml| toml.trim_end().to_owned())
}

/// The job without its nulls, which TOML does not have.
fn without_nulls(job: &str) -> String {
    fn strip(value: &mut serde_json::Value) {
        if let serde_json::Value::Object(object) = value {
            object.retain(|_, value| !value.is_null());
            object.values_mut().for_each(strip);
        }
    }
    let mut value = serde_json::from_str(job).unwrap_or_default();
    strip(&mut value);
    value.to_string()
}
