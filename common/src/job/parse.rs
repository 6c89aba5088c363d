//! From text to [`JobSpec`]: TOML, overrides, and errors that name the key.

use serde::de::DeserializeOwned;

use super::error::JobError;
use super::schema::Job;
use super::validate::{JobSpec, check_new};

/// Parses a job file, after setting each `key=value` of `overrides` (a value is TOML, or else a plain string).
pub fn parse_toml(text: &str, overrides: &[String]) -> Result<JobSpec, JobError> {
    let mut table: toml::Table = text
        .parse()
        .map_err(|error: toml::de::Error| JobError::Syntax { detail: error.to_string().trim().to_owned() })?;
    for text in overrides {
        set(&mut table, text)?;
    }
    let job = JobSpec::new(deserialize::<Job>(toml::Value::Table(table))?)?;
    check_new(&job)?;
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

/// Deserializes, and turns serde's words for an unknown key into [`JobError::UnknownKey`].
fn deserialize<T: DeserializeOwned>(value: toml::Value) -> Result<T, JobError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let path = error.path().to_string();
        let detail = error.into_inner().message().to_owned();
        let mut quoted = detail.split('`').skip(1).step_by(2);
        if detail.starts_with("unknown field") {
            let field = quoted.next().unwrap_or_default().to_owned();
            let nearest = quoted
                .map(|known| (strsim::damerau_levenshtein(&field, known), known))
                .min()
                .filter(|(distance, known)| *distance <= known.len().max(field.len()) / 2)
                .map(|(_, known)| known.to_owned());
            // For some types the path ends with the field itself, for some with its parent.
            let parent = path.strip_suffix(&field).unwrap_or(&path).trim_matches('.');
            let key = if parent.is_empty() { field } else { format!("{parent}.{field}") };
            return JobError::UnknownKey { key, nearest };
        }
        JobError::Type { key: path, detail }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = r#"
        name = "t"
        steps = 10
        ranks = 4
        batch = { size = 8 }
        model = { kind = "mlp", hidden = [8], outputs = 2 }
        data = { kind = "csv", path = "x.csv", target = "y" }
        optimizer = { kind = "sgd", lr = 0.1 }
    "#;

    fn refused(from: &str, to: &str) -> String {
        assert!(MINIMAL.contains(from), "{from}");
        parse_toml(&MINIMAL.replace(from, to), &[]).unwrap_err().to_string()
    }

    #[test]
    fn an_unknown_key_is_refused_with_its_path_and_the_nearest_known_one() {
        assert_eq!(refused("steps = 10", "step = 10"), "unknown key `step`: did you mean `steps`?");
        assert_eq!(
            refused("lr = 0.1", "lr = 0.1, momentun = 1.0"),
            "unknown key `optimizer.momentun`: did you mean `momentum`?"
        );
        assert_eq!(
            refused("hidden = [8]", "hidden = [8], droput = 0.1"),
            "unknown key `model.droput`: did you mean `dropout`?"
        );
    }

    #[test]
    fn a_wrong_type_and_a_missing_key_are_refused_with_the_key() {
        assert!(refused("steps = 10", "steps = \"ten\"").starts_with("key `steps`: invalid type: string \"ten\""));
        assert!(refused("lr = 0.1", "lr = []").starts_with("key `optimizer.lr`: invalid type: sequence"));
        assert!(refused("batch = { size = 8 }", "batch = { last = \"pad\" }").contains("missing field `size`"));
        assert!(refused("\"mlp\"", "\"mpl\"").contains("unknown variant `mpl`"));
        assert!(refused("steps = 10", "steps = = 10").starts_with("not valid TOML"));
    }

    #[test]
    fn overrides_set_nested_keys_with_their_types() {
        let set = |text: &str| parse_toml(MINIMAL, &[text.to_owned()]);
        assert_eq!(set("steps=20").unwrap().steps, 20);
        assert_eq!(set("optimizer.clip_norm=1.5").unwrap().optimizer.clip_norm, Some(1.5));
        assert_eq!(set("name=other").unwrap().name, "other");
        assert_eq!(set("checkpoint.every_steps=5").unwrap().checkpoint.every_steps, 5);
        assert!(matches!(set("steps"), Err(JobError::Override { .. })));
        assert!(matches!(set("steps.x=1"), Err(JobError::Override { .. })));
        assert!(matches!(set("optimizer.rl=1"), Err(JobError::UnknownKey { .. })));
    }

    #[test]
    fn the_canonical_form_is_the_same_whatever_was_left_to_defaults() {
        let spelled = MINIMAL.replace("steps = 10", "steps = 10\nseed = 0\ncheckpoint = { every_steps = 0 }");
        let (a, b) = (parse_toml(MINIMAL, &[]).unwrap(), parse_toml(&spelled, &[]).unwrap());
        assert_eq!(a.canonical(), b.canonical());
        assert_eq!(JobSpec::from_canonical(&a.canonical()).unwrap().digest(), a.digest());
        let other = parse_toml(MINIMAL, &["seed=1".into()]).unwrap();
        assert_ne!(other.digest(), a.digest());
    }
}
