//! Warnings at submit about keys that have no effect. The run succeeds, so nothing else would tell.

use lockstep_common::job::{Data, JobSpec};

/// The keys of `job` that only `[eval]` uses, if the job has no `[eval]`.
pub(crate) fn unused(job: &JobSpec) -> Vec<&'static str> {
    if job.eval.is_some() {
        return Vec::new();
    }
    match &job.data {
        Data::Idx { validation_images, validation_labels, .. } => {
            let keys = [
                (validation_images.is_some(), "data.validation_images"),
                (validation_labels.is_some(), "data.validation_labels"),
            ];
            keys.into_iter().filter(|(named, _)| *named).map(|(_, key)| key).collect()
        }
        Data::Tokens { validation, .. }
        | Data::Csv { validation, .. }
        | Data::Npy { validation, .. }
        | Data::Safetensors { validation, .. }
            if *validation > 0.0 =>
        {
            vec!["data.validation"]
        }
        _ => Vec::new(),
    }
}

/// The warning about `key`, one of [`unused`].
pub(crate) fn warning(key: &str) -> String {
    let effect = match key {
        "data.validation" => "keeps samples from training",
        _ => "names a file",
    };
    format!("warning: key `{key}` {effect}, but the job has no `[eval]` that uses it: add `[eval]`, or remove the key")
}

#[cfg(test)]
mod tests {
    use lockstep_common::job::parse_toml;

    use super::*;

    fn of(data: &str, eval: &str) -> Vec<&'static str> {
        let text = format!(
            "name = \"t\"\nsteps = 1\nbatch = {{ size = 1 }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n\
             model = {{ kind = \"mlp\", hidden = [4], outputs = 2 }}\ndata = {data}\n{eval}"
        );
        unused(&parse_toml(&text, &[]).unwrap())
    }

    #[test]
    fn validation_without_evaluation_is_named_by_its_key() {
        let files =
            r#"{ kind = "idx", images = "i", labels = "l", validation_images = "vi", validation_labels = "vl" }"#;
        assert_eq!(of(files, ""), ["data.validation_images", "data.validation_labels"]);
        assert!(of(files, "eval = { every_steps = 1 }").is_empty());
        assert!(of(r#"{ kind = "idx", images = "i", labels = "l" }"#, "").is_empty());
        let share = r#"{ kind = "csv", path = "t", target = "y", validation = 0.2 }"#;
        assert_eq!(of(share, ""), ["data.validation"]);
        assert!(of(share, "eval = { every_steps = 1 }").is_empty());
        assert!(of(r#"{ kind = "csv", path = "t", target = "y" }"#, "").is_empty());
        let said = warning("data.validation_images");
        assert!(said.starts_with("warning: key `data.validation_images` names a file"), "{said}");
    }
}
