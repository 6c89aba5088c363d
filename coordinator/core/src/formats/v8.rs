//! Formats 7 and 8 of the state: they have rows for manifests and shares, and the row of a run contains its processes and numerics.
//!
//! The conversion writes manifests and shares to the store as blobs; rows of the present format contain the blobs' digests.

use std::collections::BTreeMap;

use lockstep_common::manifest::{Manifest, Piece, Share};
use rmpv::Value;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::encoding::{EncodingError, decode, encode};
use crate::state::{Measured, Owed, StateError};

/// Stores a blob durably and returns its digest and length.
type Put<'a> = &'a mut dyn FnMut(&[u8]) -> Result<Piece, Box<dyn std::error::Error + Send + Sync>>;

/// Encoded values of rows, by key.
type Rows = BTreeMap<String, Vec<u8>>;

/// Names and values of a row's fields, in order.
type Fields = Vec<(Value, Value)>;

/// A state of an earlier format cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    /// A row is not of this format, or needs another row that is missing.
    #[error(transparent)]
    Rows(#[from] StateError),
    /// A manifest or share could not be written to the store.
    #[error("cannot write a manifest or share to the store")]
    Store(#[source] Box<dyn std::error::Error + Send + Sync>),
}

/// Converts rows of format 7 or 8 to the present format. `put` must store a blob durably.
pub fn upgrade_rows(rows: &Rows, put: Put<'_>) -> Result<Rows, UpgradeError> {
    let mut put = |bytes: &[u8]| put(bytes).map_err(UpgradeError::Store);
    let (mut manifests, mut last) = (BTreeMap::new(), BTreeMap::new());
    for (key, value) in rows {
        if let Some(id) = key.strip_prefix("manifest/") {
            let manifest = Manifest::decode(value).map_err(|_| contradiction(key, "its value is not a manifest"))?;
            if Manifest::id(value).to_hex() != id {
                return Err(contradiction(key, "its key is not the digest of its manifest"));
            }
            manifests.insert(id.to_owned(), (put(value)?, manifest.numerics));
        }
    }
    let mut upgraded = Rows::new();
    for (key, value) in rows {
        let mut parts = key.split('/');
        let (kind, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        match kind {
            "manifest" => {}
            "checkpoint" => {
                let mut fields = read(key, value)?;
                let manifest = text(&fields, "id").unwrap_or_default().to_owned();
                let (piece, numerics) =
                    manifests.get(&manifest).ok_or_else(|| contradiction(key, &no_manifest(&manifest)))?;
                fields.push(("manifest".into(), of(piece)));
                // Keys are sorted by step, so the last checkpoint's numerics remain.
                last.insert(id, numerics);
                upgraded.insert(key.clone(), written(&fields));
            }
            "share" => {
                let share: Share = typed(key, value)?;
                upgraded.insert(key.clone(), encode(&put(&share.encode())?));
            }
            "owed" => {
                let mut fields = read(key, value)?;
                let (generation, manifest) = (taken(&mut fields, "generation"), taken(&mut fields, "manifest"));
                let manifest =
                    manifest.as_ref().and_then(Value::as_slice).and_then(|bytes| Manifest::decode(bytes).ok());
                let (Some(generation), Some(manifest)) = (generation.and_then(|value| value.as_u64()), manifest) else {
                    return Err(contradiction(key, "it contains no generation or no valid manifest"));
                };
                upgraded.insert(key.clone(), encode(&owed(generation, manifest, &mut put)?));
            }
            _ => drop(upgraded.insert(key.clone(), value.clone())),
        }
    }
    for (key, value) in rows.iter().filter(|(key, _)| key.starts_with("run/")) {
        let restored =
            |checkpoint: &str| manifests.get(checkpoint).ok_or_else(|| contradiction(key, &no_manifest(checkpoint)));
        let id = &key["run/".len()..];
        let mut fields = read(key, value)?;
        let mut numerics = last.get(id).copied();
        if let Some(Value::Map(restore)) = field(&mut fields, "restore") {
            let (piece, of_it) = restored(text(restore, "checkpoint").unwrap_or_default())?;
            restore.push(("manifest".into(), of(piece)));
            numerics = numerics.or(Some(of_it));
        }
        split_run(key, id, fields, numerics.unwrap_or(&BTreeMap::new()), &mut upgraded)?;
    }
    Ok(upgraded)
}

/// Converts a written checkpoint into one share that gives the same manifest.
fn owed(
    generation: u64,
    manifest: Manifest,
    put: &mut impl FnMut(&[u8]) -> Result<Piece, UpgradeError>,
) -> Result<Owed, UpgradeError> {
    let Manifest { step, epoch, tensors, ranks, record, preprocessing, environment, numerics, overrides, .. } =
        manifest;
    let share = Share { step, epoch, tensors, ranks, record: Some(record), preprocessing };
    let shares = BTreeMap::from([(0, put(&share.encode())?)]);
    Ok(Owed { generation, shares, environment, numerics, overrides })
}

/// Splits the row of a run into several rows.
fn split_run(
    key: &str,
    id: &str,
    mut fields: Fields,
    restored: &BTreeMap<String, String>,
    rows: &mut Rows,
) -> Result<(), UpgradeError> {
    let mut measured = Fields::new();
    for name in ["numerics", "environment", "overrides"] {
        measured.extend(taken(&mut fields, name).map(|value| (name.into(), value)));
    }
    measured.push(("restored".into(), of(restored)));
    let measured = written(&measured);
    // Checks that the fields have the right types.
    typed::<Measured>(key, &measured)?;
    rows.insert(format!("measured/{id}"), measured);
    let progress =
        ["progress", "heard_at_ms"].map(|name| (name.into(), taken(&mut fields, name).unwrap_or(Value::Nil)));
    rows.insert(format!("progress/{id}"), written(&progress));
    if let Some(Value::Map(placement)) = taken(&mut fields, "placement") {
        for (process, placed) in placement {
            let (Some(process), Value::Map(mut placed)) = (process.as_u64(), placed) else {
                return Err(contradiction(key, "its field `placement` is invalid"));
            };
            let sequence = taken(&mut placed, "sequence").unwrap_or(Value::from(0));
            rows.insert(format!("process/{id}/{process:010}"), written(&placed));
            rows.insert(format!("reported/{id}/{process:010}"), bytes(&sequence));
        }
    }
    rows.insert(key.to_owned(), written(&fields));
    Ok(())
}

fn no_manifest(id: &str) -> String {
    format!("the row `manifest/{id}` is missing")
}

fn contradiction(key: &str, detail: &str) -> UpgradeError {
    StateError::Contradiction { key: key.to_owned(), detail: detail.to_owned() }.into()
}

fn typed<T: DeserializeOwned>(key: &str, value: &[u8]) -> Result<T, UpgradeError> {
    decode(value).map_err(|source| StateError::Value { key: key.to_owned(), source }.into())
}

fn read(key: &str, mut value: &[u8]) -> Result<Fields, UpgradeError> {
    match rmpv::decode::read_value(&mut value) {
        Ok(Value::Map(fields)) if value.is_empty() => Ok(fields),
        _ => Err(contradiction(key, "its value is not a map of fields")),
    }
}

fn field<'a>(fields: &'a mut Fields, name: &str) -> Option<&'a mut Value> {
    fields.iter_mut().find(|(key, _)| key.as_str() == Some(name)).map(|(_, value)| value)
}

fn text<'a>(fields: &'a Fields, name: &str) -> Option<&'a str> {
    fields.iter().find(|(key, _)| key.as_str() == Some(name))?.1.as_str()
}

fn taken(fields: &mut Fields, name: &str) -> Option<Value> {
    let at = fields.iter().position(|(key, _)| key.as_str() == Some(name))?;
    Some(fields.remove(at).1)
}

fn of<T: Serialize>(value: &T) -> Value {
    rmpv::decode::read_value(&mut encode(value).as_slice()).expect("what was just encoded is a value")
}

fn written(fields: &[(Value, Value)]) -> Vec<u8> {
    bytes(&Value::Map(fields.to_vec()))
}

fn bytes(value: &Value) -> Vec<u8> {
    let mut bytes = Vec::new();
    rmpv::encode::write_value(&mut bytes, value).expect("memory does not run out");
    bytes
}

/// Converts a log entry of an earlier format that was not applied yet. `None` for commands that have other contents in the present format:
/// only the build that wrote them can apply them.
///
/// # Errors
/// `Postcard` or `Trailing` if the bytes are not of their format.
pub fn upgrade_entry(data: &[u8]) -> Result<Option<Vec<u8>>, EncodingError> {
    let command = match data {
        [] => return Ok(Some(Vec::new())),
        [1, command @ ..] => super::v6::command(command)?,
        [_, command @ ..] => command.to_vec(),
    };
    let mut rest = command.as_slice();
    let value = rmpv::decode::read_value(&mut rest).unwrap_or(Value::Nil);
    let variant = |value: &Value| value.as_map().and_then(|map| Some(map.first()?.0.as_str()?.to_owned()));
    let is_other = match variant(&value).as_deref() {
        Some("Resume" | "Replay" | "Commit") => true,
        Some("Report") => {
            let body = value["Report"]["body"].clone();
            variant(&body).as_deref() == Some("Share")
        }
        _ => false,
    };
    Ok((!is_other).then(|| [&[super::COMMAND_VERSION], command.as_slice()].concat()))
}
