//! Layered process configuration: embedded commented defaults < file < environment < flags. Each program has its own prefix for
//! environment variables, such as `LOCKSTEP_COORD_` in `LOCKSTEP_COORD_STORE__PATH`, so that one shell can configure several.
//!
//! The configuration is never hashed into a run (I9). The defaults are a complete TOML file, so they also define which keys exist:
//! other keys are rejected.

use std::path::{Path, PathBuf};

use figment::providers::{Env, Format, Serialized, Toml};
use figment::value::{Dict, Value};
use figment::{Figment, Source};
use serde::de::DeserializeOwned;

/// Why a configuration is rejected.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("cannot read configuration file `{}`", path.display())]
    Read {
        /// Path of the configuration file.
        path: PathBuf,
        /// The system's error.
        #[source]
        source: std::io::Error,
    },
    /// The file is not TOML.
    #[error("configuration file `{}` is not valid TOML: {detail}", path.display())]
    Syntax {
        /// Path of the configuration file.
        path: PathBuf,
        /// The parser's message, with line and column.
        detail: String,
    },
    /// A key that does not exist.
    #[error("{origin}: unknown key `{key}`{}", nearest.as_ref().map(|n| format!(": did you mean `{n}`?")).unwrap_or_default())]
    UnknownKey {
        /// File or environment variable.
        origin: String,
        /// The key with its path.
        key: String,
        /// The most similar known key.
        nearest: Option<String>,
    },
    /// A value of the wrong type.
    #[error("{origin}: key `{key}`: {detail}")]
    Value {
        /// File, environment variable or flag.
        origin: String,
        /// The key with its path.
        key: String,
        /// The expected type, and the value.
        detail: String,
    },
}

/// A value of the configuration and its source.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Origin {
    /// The key with its path.
    pub key: String,
    /// The value as TOML.
    pub value: String,
    /// `default`, the path of the file, the environment variable or `flag`.
    pub origin: String,
}

/// A configuration and the source of each value.
#[derive(Debug)]
pub struct Loaded<T> {
    /// The configuration as the program's type.
    pub value: T,
    /// All keys with values and sources, sorted by key.
    pub origins: Vec<Origin>,
}

/// Loads a `T`. `prefix` is the prefix of the program's environment variables; `defaults` is the embedded TOML file; `flags` are
/// keys with values from the command line.
pub fn load<T: DeserializeOwned>(
    prefix: &str,
    defaults: &'static str,
    file: Option<&Path>,
    flags: &[(&str, toml::Value)],
) -> Result<Loaded<T>, ConfigError> {
    let known: toml::Table = defaults.parse().expect("the embedded defaults are valid TOML");
    let known = leaves(&known);
    let mut figment = Figment::from(Toml::string(defaults));
    if let Some(path) = file {
        let text =
            std::fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        let table: toml::Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
            path: path.to_owned(),
            detail: error.to_string().trim().to_owned(),
        })?;
        check(&leaves(&table), &known, &format!("`{}`", path.display()))?;
        figment = figment.merge(Toml::file_exact(path));
    }
    let variables = Env::prefixed(prefix).split("__");
    let given: Vec<String> = variables.iter().map(|(key, _)| key.to_string()).collect();
    check(&given, &known, &format!("environment variable `{prefix}...`"))?;
    figment = figment.merge(variables);
    for (key, value) in flags {
        figment = figment.merge(Serialized::global(key, value));
    }
    let value = figment.extract::<T>().map_err(|error| ConfigError::Value {
        origin: error
            .metadata
            .as_ref()
            .map_or("default".to_owned(), |metadata| origin_name(prefix, metadata, &error.path.join("."))),
        key: error.path.join("."),
        detail: error.kind.to_string(),
    })?;
    let origins = known
        .iter()
        .map(|key| {
            let name =
                figment.find_metadata(key).map_or("default".to_owned(), |metadata| origin_name(prefix, metadata, key));
            let value = figment.find_value(key).map_or_else(|_| String::new(), |value| show(&value));
            Origin { key: key.clone(), value, origin: name }
        })
        .collect();
    Ok(Loaded { value, origins })
}

fn origin_name(prefix: &str, metadata: &figment::Metadata, key: &str) -> String {
    match &metadata.source {
        Some(Source::File(path)) => path.display().to_string(),
        _ if metadata.name.contains("environment") => {
            format!("environment variable `{prefix}{}`", key.to_uppercase().replace('.', "__"))
        }
        _ if metadata.name.starts_with("TOML") => "default".to_owned(),
        _ => "flag".to_owned(),
    }
}

fn leaves(table: &toml::Table) -> Vec<String> {
    let mut keys = Vec::new();
    for (key, value) in table {
        match value {
            toml::Value::Table(inner) => keys.extend(leaves(inner).iter().map(|leaf| format!("{key}.{leaf}"))),
            _ => keys.push(key.clone()),
        }
    }
    keys.sort();
    keys
}

fn check(keys: &[String], known: &[String], origin: &str) -> Result<(), ConfigError> {
    match keys.iter().find(|key| !known.contains(key)) {
        None => Ok(()),
        Some(key) => {
            let nearest = known.iter().min_by_key(|known| (strsim::damerau_levenshtein(key, known), *known));
            let near =
                nearest.filter(|known| strsim::damerau_levenshtein(key, known) <= known.len().max(key.len()) / 2);
            Err(ConfigError::UnknownKey { origin: origin.to_owned(), key: key.clone(), nearest: near.cloned() })
        }
    }
}

fn show(value: &Value) -> String {
    match value {
        Value::String(_, text) => format!("{text:?}"),
        Value::Char(_, c) => format!("{c:?}"),
        Value::Bool(_, flag) => flag.to_string(),
        Value::Num(_, number) => number
            .to_i128()
            .map(|n| n.to_string())
            .or_else(|| number.to_f64().map(|n| n.to_string()))
            .unwrap_or_default(),
        Value::Empty(..) => String::new(),
        Value::Dict(_, dict) => show_dict(dict),
        Value::Array(_, items) => format!("[{}]", items.iter().map(show).collect::<Vec<_>>().join(", ")),
    }
}

fn show_dict(dict: &Dict) -> String {
    let items: Vec<String> = dict.iter().map(|(key, value)| format!("{key} = {}", show(value))).collect();
    format!("{{ {} }}", items.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFIX: &str = "LOCKSTEP_TEST_";
    const DEFAULTS: &str = "# Where.\nlisten = \"127.0.0.1:7070\"\nlease_ms = 10000\n[store]\npath = \"store\"\n";

    #[derive(Debug, serde::Deserialize)]
    struct Config {
        listen: String,
        lease_ms: u64,
        store: Store,
    }

    #[derive(Debug, serde::Deserialize)]
    struct Store {
        path: String,
    }

    fn file(text: &str) -> tempfile::NamedTempFile {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), text).unwrap();
        file
    }

    #[test]
    fn layers_override_each_other_and_each_value_knows_its_origin() {
        let file = file("lease_ms = 5\n");
        let flags = [("store.path", toml::Value::String("elsewhere".into()))];
        let loaded: Loaded<Config> = load(PREFIX, DEFAULTS, Some(file.path()), &flags).unwrap();
        assert_eq!((loaded.value.lease_ms, loaded.value.store.path.as_str()), (5, "elsewhere"));
        assert_eq!(loaded.value.listen, "127.0.0.1:7070");
        let origin = |key: &str| loaded.origins.iter().find(|o| o.key == key).unwrap().clone();
        assert_eq!(origin("listen").origin, "default");
        assert_eq!(origin("lease_ms").origin, file.path().display().to_string());
        assert_eq!(
            (origin("store.path").origin.as_str(), origin("store.path").value.as_str()),
            ("flag", "\"elsewhere\"")
        );
    }

    #[test]
    fn unknown_keys_and_wrong_types_are_refused_with_file_and_key() {
        let bad = file("[store]\npaht = \"x\"\n");
        let error = load::<Config>(PREFIX, DEFAULTS, Some(bad.path()), &[]).unwrap_err().to_string();
        assert!(error.contains(&bad.path().display().to_string()), "{error}");
        assert!(error.ends_with("unknown key `store.paht`: did you mean `store.path`?"), "{error}");
        let bad = file("lease_ms = \"long\"\n");
        let error = load::<Config>(PREFIX, DEFAULTS, Some(bad.path()), &[]).unwrap_err().to_string();
        assert!(error.contains("key `lease_ms`"), "{error}");
        assert!(matches!(
            load::<Config>(PREFIX, DEFAULTS, Some(Path::new("/nonexistent")), &[]),
            Err(ConfigError::Read { .. })
        ));
    }
}
