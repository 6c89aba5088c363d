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

/// Of the digest of a name that was changed, in hexadecimal digits.
const DIGEST_LENGTH: usize = 16;

/// `name` as a metric, a parameter or a tag may have it. What is not allowed becomes `_`, what is too long is cut, and a name that was
/// changed ends in a digest of what it was: it depends on nothing else, and no two names become one.
///
/// Colons are left out, for a server on Windows refuses them.
pub(super) fn valid_name(name: &str) -> String {
    let valid = fitted(name);
    if valid == name { valid } else { marked(&valid, name, "") }
}

/// `path` as an artifact may have it: as a name, but an ending such as `.txt` stays behind the digest.
pub(super) fn valid_path(path: &str) -> String {
    let valid = fitted(path);
    if valid == path {
        return valid;
    }
    let file = valid.rfind('/').map_or(0, |slash| slash + 1);
    let ending = valid[file..].rfind('.').filter(|&dot| dot > 0 && valid.len() - file - dot <= DIGEST_LENGTH);
    let (stem, ending) = valid.split_at(ending.map_or(valid.len(), |dot| file + dot));
    marked(stem, path, ending)
}

/// In allowed characters, and cut.
fn fitted(name: &str) -> String {
    let allowed = |c: char| if c.is_alphanumeric() || "_-. /".contains(c) { c } else { '_' };
    let name: String = name.chars().take(NAME_LENGTH + 1).map(allowed).collect();
    let segments = name.split('/').filter(|segment| !segment.is_empty());
    let segments: Vec<&str> =
        segments.map(|segment| if matches!(segment, "." | "..") { "_" } else { segment }).collect();
    if segments.is_empty() { "_".to_owned() } else { segments.join("/") }
}

/// `fitted` with a digest of `name` and then `ending` at its end.
fn marked(fitted: &str, name: &str, ending: &str) -> String {
    let digest = &blake3::hash(name.as_bytes()).to_hex()[..DIGEST_LENGTH];
    let kept: String = fitted.chars().take(NAME_LENGTH - 1 - DIGEST_LENGTH - ending.chars().count()).collect();
    format!("{kept}-{digest}{ending}")
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
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_made_valid_and_stay_apart() {
        for name in ["eval/accuracy", "grad_norm/layers.0.weight", "größe", "a_b"] {
            assert_eq!(valid_name(name), name);
        }
        let cases = [("a%b", "a_b-"), ("a@b", "a_b-"), ("a[0]:b", "a_0__b-"), ("/a//../b/", "a/_/b-"), ("", "_-")];
        for (name, begin) in cases {
            let valid = valid_name(name);
            assert!(valid.starts_with(begin) && valid.len() == begin.len() + DIGEST_LENGTH, "{name}: {valid}");
        }
        // Frozen: a run that is written on must find its metrics.
        assert_eq!(valid_name("a%b"), "a_b-a3bb1fd0ee7b2195");
        assert_ne!(valid_name("a%b"), valid_name("a@b"));
        let long = |begin: &str, end: &str| valid_name(&format!("{begin}{}{end}", "ä".repeat(300)));
        assert_eq!(long("", "a").chars().count(), NAME_LENGTH);
        let names =
            [long("", "a"), long("", "b"), long("_", "a"), long("%", "a"), valid_name(&"ä".repeat(NAME_LENGTH))];
        assert_eq!(names.iter().collect::<BTreeSet<_>>().len(), names.len(), "{names:?}");
        assert!(names.iter().all(|name| name.chars().count() <= NAME_LENGTH && *name == valid_name(name)));
    }

    #[test]
    fn a_file_keeps_its_ending() {
        assert_eq!(valid_path("text/a_b/3.txt"), "text/a_b/3.txt");
        let [percent, at] = ["text/a%b/3.txt", "text/a@b/3.txt"].map(valid_path);
        for path in [&percent, &at] {
            assert_eq!(path.strip_prefix("text/a_b/3-").and_then(|rest| rest.find(".txt")), Some(16), "{path}");
        }
        assert_ne!(percent, at);
        assert!(valid_path("a%b/.hidden").starts_with("a_b/.hidden-"));
        assert_eq!(valid_path(&format!("{}.txt", "a".repeat(400))).len(), NAME_LENGTH);
    }

    #[test]
    fn values_are_cut_with_a_note() {
        assert_eq!(cut("0.1", 6000), "0.1");
        let value = cut(&"ä".repeat(7000), 6000);
        assert_eq!(value.chars().count(), 6000);
        assert!(value.ends_with("ä… (cut, of 7000 characters)"));
    }
}
