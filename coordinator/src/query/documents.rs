//! The JSON documents that the API returns and `--json` prints.
//!
//! A run's document is flat. The key of its id is `run`, as in every other document:
//! `{"run": .., "status": .., "step": .., .., "checkpoints": [..]}`.

use lockstep_core::view::{RunRow, RunView};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::page::Page;

/// The text is not a document of the expected kind.
#[derive(Debug, thiserror::Error)]
#[error("cannot decode the coordinator's answer")]
pub struct DocumentError(#[from] serde_json::Error);

/// Encodes rows of runs: an array of objects.
pub fn encode_rows(rows: &[RunRow]) -> String {
    Value::Array(rows.iter().map(|row| Value::Object(row_object(row))).collect()).to_string()
}

/// Encodes a page of rows: `{"runs": [..], "before": .., "older": ..}`.
pub fn encode_page(page: &Page<RunRow>) -> String {
    let runs: Vec<Value> = page.runs.iter().map(|row| Value::Object(row_object(row))).collect();
    encode(&Page { runs, before: page.before, older: page.older })
}

/// Encodes one row: an object.
pub fn encode_row(row: &RunRow) -> String {
    Value::Object(row_object(row)).to_string()
}

/// Encodes a run: the keys of its row and of its view in one object.
pub fn encode_run(view: &RunView) -> String {
    let mut object = row_object(&view.row);
    let mut rest = object_of(view);
    rest.remove("row");
    object.extend(rest);
    Value::Object(object).to_string()
}

/// Encodes any other document. Its keys are the field names.
pub fn encode<T: Serialize>(value: &T) -> String {
    to_value(value).to_string()
}

/// Decodes the document of [`encode_rows`].
pub fn decode_rows(text: &str) -> Result<Vec<RunRow>, DocumentError> {
    rows_of(serde_json::from_str(text)?)
}

/// Decodes the document of [`encode_page`].
pub fn decode_page(text: &str) -> Result<Page<RunRow>, DocumentError> {
    let Page { runs, before, older } = serde_json::from_str(text)?;
    Ok(Page { runs: rows_of(runs)?, before, older })
}

/// Decodes the document of [`encode_run`].
pub fn decode_run(text: &str) -> Result<RunView, DocumentError> {
    let object: Map<String, Value> = serde_json::from_str(text)?;
    let mut view = object.clone();
    view.insert("row".to_owned(), with_id(object));
    Ok(serde_json::from_value(Value::Object(view))?)
}

/// Decodes the document of [`encode`].
pub fn decode<T: DeserializeOwned>(text: &str) -> Result<T, DocumentError> {
    Ok(serde_json::from_str(text)?)
}

fn row_object(row: &RunRow) -> Map<String, Value> {
    let mut object = Map::new();
    for (key, value) in object_of(row) {
        object.insert(if key == "id" { "run".to_owned() } else { key }, value);
    }
    object
}

fn rows_of(objects: Vec<Map<String, Value>>) -> Result<Vec<RunRow>, DocumentError> {
    Ok(objects.into_iter().map(|object| serde_json::from_value(with_id(object))).collect::<Result<_, _>>()?)
}

fn with_id(mut object: Map<String, Value>) -> Value {
    if let Some(id) = object.get("run").cloned() {
        object.insert("id".to_owned(), id);
    }
    Value::Object(object)
}

fn object_of<T: Serialize>(value: &T) -> Map<String, Value> {
    match to_value(value) {
        Value::Object(object) => object,
        _ => unreachable!("our views are structs"),
    }
}

fn to_value<T: Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("our own views have string keys")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockstep_common::Domain;
    use lockstep_core::view::Number;

    use super::*;

    fn view() -> RunView {
        let row = RunRow {
            id: "0123456789".parse().unwrap(),
            number: 5,
            name: "x".into(),
            status: lockstep_core::state::StatusKind::Running,
            reason: None,
            step: 3,
            steps: 9,
            ranks: 2,
            processes: 1,
            generation: 1,
            loss: Some(Number::from_bits(1.5_f64.to_bits())),
            grad_norm: None,
            samples_per_second: Some(2.0),
            created_at_ms: 1,
            started_at_ms: Some(2),
            ended_at_ms: None,
            parent: None,
            overrides: Vec::new(),
            replay_of: None,
            final_state_digest: None,
            tags: vec!["mine".into()],
            alarms: Some(2),
            checkpoint_failed: None,
        };
        RunView {
            row,
            job_digest: Domain::Job.digest(b"x"),
            job: "{}".into(),
            base_dir: "/x".into(),
            code: None,
            data: vec![],
            numerics: BTreeMap::new(),
            environment: BTreeMap::new(),
            restored_from: None,
            heard_at_ms: 4,
            restarts: 0,
            crashes: 0,
            transients: 0,
            last_exit: None,
            placement: vec![],
            checkpoints: vec![],
            corruptions: Vec::new(),
            failed_checkpoints: vec![],
            note: "n".into(),
        }
    }

    #[test]
    fn a_run_is_flat_and_reads_back_as_itself() {
        let text = encode_run(&view());
        let value: Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&value["run"], &value["step"], &value["base_dir"]),
            (&"0123456789".into(), &3.into(), &"/x".into())
        );
        assert!(value.get("id").is_none() && value.get("row").is_none());
        assert_eq!(decode_run(&text).unwrap(), view());
        let rows = [view().row];
        assert_eq!(decode_rows(&encode_rows(&rows)).unwrap(), rows);
        let page = Page { runs: rows.to_vec(), before: 5, older: 3 };
        let text = encode_page(&page);
        assert!(text.contains(r#""before":5"#) && text.contains(r#""run":"0123456789""#), "{text}");
        assert_eq!(decode_page(&text).unwrap(), page);
        assert!(decode_run("{}").is_err() && decode_rows("[{}]").is_err());
    }
}
