//! Parses TOML and overrides into a [`JobSpec`]. Errors name the key.

use serde::de::DeserializeOwned;

use super::error::JobError;
use super::schema::Job;
use super::spec::JobSpec;

/// The longest unknown key, in bytes, for which a similar known key is searched.
const LONGEST_TYPED: usize = 100;

/// Parses the job file `text`. Each `key=value` of `overrides` is set first; a value that is not valid TOML is taken as a string.
///
/// # Errors
/// `Syntax`, `Override`, `UnknownKey`, `Type`, or `Value` if a value is out of range or contradicts another key.
pub fn parse_toml(text: &str, overrides: &[String]) -> Result<JobSpec, JobError> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| JobError::Syntax { detail: error.to_string().trim().to_owned() })?;
    for text in overrides {
        set(&mut table, text)?;
    }
    let job = JobSpec::new(deserialize::<Job>(toml::Value::Table(table))?)?;
    job.check_new()?;
    Ok(job)
}

/// Sets one `a.b.c=value` in `table`.
fn set(table: &mut toml::Table, text: &str) -> Result<(), JobError> {
    let refused = || JobError::Override { text: text.to_owned() };
    let (path, value) = text.split_once('=').ok_or_else(refused)?;
    let mut keys: Vec<&str> = path.trim().split('.').collect();
    let last = keys.pop().filter(|key| !key.is_empty()).ok_or_else(refused)?;
    let mut at = table;
    for key in keys {
        let next = at.entry(key).or_insert_with(|| toml::Value::Table(toml::Table::new()));
        at = next.as_table_mut().ok_or_else(refused)?;
    }
    let value = format!("v = {value}").parse::<toml::Table>().ok().and_then(|mut parsed| parsed.remove("v"));
    let plain = || toml::Value::String(text.split_once('=').map_or("", |(_, v)| v).trim().to_owned());
    at.insert(last.to_owned(), value.unwrap_or_else(plain));
    Ok(())
}

/// Deserializes `value`. Serde's message for an unknown key becomes [`JobError::UnknownKey`].
fn deserialize<T: DeserializeOwned>(value: toml::Value) -> Result<T, JobError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.into_inner().message().to_owned();
        let mut quoted = detail.split('`').skip(1).step_by(2);
        if detail.starts_with("unknown field") {
            let field = quoted.next().unwrap_or_default().to_owned();
            let nearest = quoted
                // The distance of a very long key takes seconds to compute, and no known key is similar to it.
                .filter(|_| field.len() <= LONGEST_TYPED)
                .map(|known| (strsim::damerau_levenshtein(&field, known), known))
                .min()
                .filter(|(distance, known)| *distance <= known.len().max(field.len()) / 2)
                .map(|(_, known)| known.to_owned());
            // The path ends with the field itself or with its parent, depending on the type.
            let parent = path.strip_suffix(&field).unwrap_or(&path).trim_matches('.');
            let key = if parent.is_empty() { field } else { format!("{parent}.{field}") };
            return JobError::UnknownKey { key, nearest };
        }
        let of_parent = |field: &str| match path.trim_matches('.') {
            "" => field.to_owned(),
            parent => format!("{parent}.{field}"),
        };
        if let Some(field) = detail.strip_prefix("missing field `").and_then(|rest| rest.split('`').next()) {
            return JobError::Type { key: of_parent(field), detail: "required, but missing".to_owned() };
        }
        JobError::Type { key: path, detail: crate::quoted(&detail) }
    })
}
