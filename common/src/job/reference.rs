//! `docs/job-reference.md`, generated from the schema: every key with its type, default and doc comment.

use std::fmt::Write as _;

use schemars::schema_for;
use serde_json::{Map, Value};

use super::schema::Job;

/// Columns of a line.
const WIDTH: usize = 140;

const BEGIN: &str = "\
# Job reference

This page lists every key of a job file, generated from the types that parse it. A key without a default is required, unless its
section is optional. Unknown keys are rejected, and the error names the nearest known key.

`coord submit job.toml --set KEY=VALUE` overrides a key; write the keys of sections with a dot, as in `--set optimizer.lr=0.1`.
Everything in a job is recorded and hashed with the run.
[getting-started.md](getting-started.md#change-a-key) shows a job, [models.md](models.md) and [data.md](data.md) have the contracts of models
and data.
";

#[test]
fn documented_keys_are_those_of_the_schema() {
    let schema = schema_for!(Job).to_value();
    let definitions = schema["$defs"].as_object().expect("sections are definitions").clone();
    let page = Page { definitions, text: BEGIN.to_owned() }.finish(&schema);
    lockstep_support::is_current("docs/job-reference.md", &page);
}

struct Page {
    definitions: Map<String, Value>,
    text: String,
}

impl Page {
    fn finish(mut self, job: &Value) -> String {
        let properties = job["properties"].as_object().expect("a job has keys");
        let (sections, plain): (Vec<_>, Vec<_>) = properties.iter().partition(|(_, key)| self.is_section(key));
        self.text += "\n## Keys outside of sections\n\n";
        for (name, key) in ordered(plain, job) {
            self.key("", name, key, job);
        }
        for (name, key) in ordered(sections, job) {
            self.section(name, key, if is_required(job, name) { "required" } else { "optional" });
        }
        self.text
    }

    /// `[name]`, and after it the sections in it.
    fn section(&mut self, name: &str, key: &Value, need: &str) {
        let target = self.target(key).clone();
        write!(self.text, "\n## `[{name}]`\n\n").expect("a string takes all");
        self.paragraph(
            "",
            &format!("{} Section: {need}.", description(key).or(description(&target)).unwrap_or_default()),
        );
        if let Some(kinds) = target["oneOf"].as_array() {
            let default =
                key["default"]["kind"].as_str().map(|kind| format!("; default: `{kind}`")).unwrap_or_default();
            let words: Vec<String> = kinds.iter().map(|kind| format!("`{}`", kind_of(kind))).collect();
            self.paragraph("", &format!("`kind` is one of {}{default}.", words.join(", ")));
            for kind in kinds {
                write!(self.text, "\n### `{name}.kind = \"{}\"`\n\n", kind_of(kind)).expect("a string takes all");
                self.paragraph("", &description(kind).unwrap_or_default());
                self.keys(name, kind);
            }
        } else {
            self.keys(name, &target);
        }
    }

    /// The keys of an object, and then the sections in it.
    fn keys(&mut self, section: &str, object: &Value) {
        let Some(properties) = object["properties"].as_object() else { return };
        let own =
            properties.iter().filter(|(name, _)| *name != "kind" || object["properties"]["kind"]["const"].is_null());
        let (inner, plain): (Vec<_>, Vec<_>) = own.partition(|(_, key)| self.is_section(key));
        if !plain.is_empty() {
            self.text += "\n";
        }
        for (name, key) in ordered(plain, object) {
            self.key(section, name, key, object);
        }
        for (name, key) in inner {
            self.section(&format!("{section}.{name}"), key, "optional");
        }
    }

    /// One key: a list item, and the words that it takes below.
    fn key(&mut self, section: &str, name: &str, key: &Value, object: &Value) {
        let path = if section.is_empty() { name.to_owned() } else { format!("{section}.{name}") };
        let target = self.target(key).clone();
        let default = match &key["default"] {
            _ if is_required(object, name) => ", required".to_owned(),
            Value::Null => String::new(),
            value => format!(", default `{value}`"),
        };
        let words = description(key).or(description(&target)).unwrap_or_default();
        self.item("", &format!("`{path}` ({}{default}): {words}", self.kind(key)));
        for word in target["oneOf"].as_array().into_iter().flatten() {
            if let (Some(value), Some(words)) = (word["const"].as_str(), description(word)) {
                self.item("  ", &format!("`\"{value}\"`: {words}"));
            }
        }
    }

    /// The type of a key, in TOML's words.
    fn kind(&self, key: &Value) -> String {
        let target = self.target(key);
        if let Some(words) = target["enum"].as_array() {
            return words.iter().map(Value::to_string).map(|word| format!("`{word}`")).collect::<Vec<_>>().join(" or ");
        }
        let of_type = target["type"].as_str().or_else(|| target["type"][0].as_str());
        match of_type {
            Some("array") => format!("array of {}s", self.kind(&target["items"])),
            Some("number") => "float".to_owned(),
            Some("object") => "table".to_owned(),
            Some(word) => word.to_owned(),
            None => "string".to_owned(),
        }
    }

    /// What a key is, without the reference to it and the absence that an optional one may have.
    fn target<'a>(&'a self, key: &'a Value) -> &'a Value {
        let key = key["anyOf"].get(0).filter(|_| key["anyOf"][1]["type"] == "null").unwrap_or(key);
        match key["$ref"].as_str().and_then(|path| path.rsplit('/').next()) {
            Some(name) => &self.definitions[name],
            None => key,
        }
    }

    fn is_section(&self, key: &Value) -> bool {
        let target = self.target(key);
        target["properties"].is_object() || target["oneOf"][0]["properties"].is_object()
    }

    fn item(&mut self, indent: &str, words: &str) {
        self.wrap(&format!("{indent}- "), &format!("{indent}  "), words);
    }

    fn paragraph(&mut self, indent: &str, words: &str) {
        self.wrap(indent, indent, words);
    }

    /// Lines of [`WIDTH`] columns at most; a word stays whole.
    fn wrap(&mut self, first: &str, next: &str, words: &str) {
        let mut line = first.to_owned();
        for (index, word) in words.split_whitespace().enumerate() {
            if line.chars().count() + word.chars().count() >= WIDTH {
                writeln!(self.text, "{}", line.trim_end()).expect("a string takes all");
                next.clone_into(&mut line);
            } else if index > 0 {
                line.push(' ');
            }
            line += word;
        }
        writeln!(self.text, "{line}").expect("a string takes all");
    }
}

fn description(value: &Value) -> Option<String> {
    value["description"].as_str().map(str::to_owned)
}

fn kind_of(variant: &Value) -> &str {
    variant["properties"]["kind"]["const"].as_str().expect("a kind has a word")
}

fn is_required(object: &Value, name: &str) -> bool {
    object["required"].as_array().is_some_and(|names| names.iter().any(|required| required == name))
}

/// Required keys first, each group by name.
fn ordered<'a>(mut keys: Vec<(&'a String, &'a Value)>, object: &Value) -> Vec<(&'a String, &'a Value)> {
    keys.sort_by_key(|(name, _)| (!is_required(object, name), *name));
    keys
}
