//! What MLflow takes as names and values.
//!
//! Source: `mlflow/utils/validation.py` of MLflow 3.17. Lengths are in characters.

use serde_json::{Value, json};

/// Parameters, and tags, in one call.
pub(super) const ENTITIES_PER_CALL: usize = 100;

/// Metrics in one call: with names of the greatest length, a third of the megabyte that a call may have.
pub(super) const METRICS_PER_CALL: usize = 1000;

/// Of a parameter's value.
pub(super) const PARAMETER_LENGTH: usize = 6000;

/// Of a tag's value.
pub(super) const TAG_LENGTH: usize = 8000;

/// Of a data set's name.
pub(super) const DATASET_NAME_LENGTH: usize = 500;

/// Of a data set's digest.
pub(super) const DATASET_DIGEST_LENGTH: usize = 36;

/// Of the name of a metric, a parameter or a tag; enough for an artifact.
const NAME_LENGTH: usize = 250;

/// `name` as a metric, a parameter, a tag or an artifact may have it: what is not allowed becomes `_`, and what is too long ends
/// in a digest.
///
/// Colons are left out, for a server on Windows refuses them.
pub(super) fn valid_name(name: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_-. /".contains(c) { c } else { '_' };
    let name: String = name.chars().map(allowed).collect();
    let segments = name.split('/').filter(|segment| !segment.is_empty());
    let segments: Vec<&str> =
        segments.map(|segment| if matches!(segment, "." | "..") { "_" } else { segment }).collect();
    let valid = if segments.is_empty() { "_".to_owned() } else { segments.join("/") };
    if valid.chars().count() <= NAME_LENGTH {
        return valid;
    }
    let digest = &blake3::hash(name.as_bytes()).to_hex()[..16];
    let kept: String = valid.chars().take(NAME_LENGTH - 1 - digest.len()).collect();
    format!("{kept}-{digest}")
}

/// `value` in at most `length` characters, saying at its end if some are missing.
pub(super) fn cut(value: &str, length: usize) -> String {
    let characters = value.chars().count();
    if characters <= length {
        return value.to_owned();
    }
    let note = format!("… (cut, of {characters} characters)");
    value.chars().take(length - note.chars().count()).chain(note.chars()).collect()
}

/// `value` in JSON, as `protobuf` spells what JSON has no numbers for.
pub(super) fn number(value: f64) -> Value {
    if value.is_nan() {
        json!("NaN")
    } else if value.is_infinite() {
        json!(if value > 0.0 { "Infinity" } else { "-Infinity" })
    } else {
        json!(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_made_valid_and_stay_apart() {
        for (name, valid) in [
            ("eval/accuracy", "eval/accuracy"),
            ("grad_norm/layers.0.weight", "grad_norm/layers.0.weight"),
            ("a[0]:b", "a_0__b"),
            ("/a//../b/", "a/_/b"),
            ("", "_"),
            ("größe", "größe"),
        ] {
            assert_eq!(valid_name(name), valid, "{name}");
        }
        let long = |end: &str| valid_name(&("ä".repeat(300) + end));
        assert_eq!(long("a").chars().count(), NAME_LENGTH);
        assert_ne!(long("a"), long("b"));
    }

    #[test]
    fn values_are_cut_with_a_note() {
        assert_eq!(cut("0.1", 6000), "0.1");
        let value = cut(&"ä".repeat(7000), 6000);
        assert_eq!(value.chars().count(), 6000);
        assert!(value.ends_with("ä… (cut, of 7000 characters)"));
    }
}
