//! The model card of an exported checkpoint, in Markdown.

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::Manifest;

use super::metrics::Metrics;

/// Longer values are left to the manifest.
const LONGEST: usize = 100;

/// What the checkpoint is, how to load it, and all that it comes from. `module` is the TorchScript file, if there is one.
pub(super) fn card(manifest: &Manifest, job: &JobSpec, metrics: &Metrics, module: Option<&str>) -> String {
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
    if let Some(module) = module {
        line(format!("\nimport torch\n\nmodel = torch.jit.load(\"{module}\")"));
    }
    line("```\n".to_owned());

    line("## Metrics\n\n| | step | value |\n| --- | ---: | ---: |".to_owned());
    for (name, step, value) in metrics.at(manifest.step) {
        line(format!("| {name} | {step} | {value} |"));
    }

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

    line("\n## Job\n\n```toml".to_owned());
    line(as_toml(&manifest.job_text));
    line("```".to_owned());

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
        None => line("The job lay in no git work tree.".to_owned()),
    }
    line("\n## Data\n\n| file | bytes | blake3 |\n| --- | ---: | --- |".to_owned());
    for file in &manifest.data {
        let bytes = if file.is_directory() { "(its list)".to_owned() } else { file.bytes.to_string() };
        line(format!("| `{}` | {bytes} | `{}` |", file.path, file.digest));
    }

    line("\n## Lineage\n".to_owned());
    match &manifest.parent {
        Some(parent) => line(format!("- the run was resumed from checkpoint `{parent}`")),
        None => line("- the run began with new weights".to_owned()),
    }
    for one in &manifest.overrides {
        line(format!("- not as in a checkpoint that it comes from, and accepted: {one}"));
    }
    line(format!("- state `{}`", manifest.state));
    line(format!("- `coord reproduce {}` trains it again and compares every bit", manifest.run));

    line("\n## Environment\n".to_owned());
    for (key, value) in &manifest.environment {
        line(format!("- {key}: {value}"));
    }
    line("\nWhat is known to change bits:\n".to_owned());
    for (key, value) in manifest.numerics.iter().filter(|(_, value)| *value != "(not set)") {
        let short = value.len() <= LONGEST && !value.contains('\n');
        line(format!("- {key}: {}", if short { value } else { "in `manifest.json`" }));
    }
    text
}

/// The job as a person writes it; as it is stored, if that cannot be.
fn as_toml(job: &str) -> String {
    let toml = serde_json::from_str::<toml::Value>(&without_nulls(job)).ok().and_then(|job| toml::to_string(&job).ok());
    toml.map_or_else(|| job.to_owned(), |toml| toml.trim_end().to_owned())
}

/// TOML has no null: a key without value is absent.
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
