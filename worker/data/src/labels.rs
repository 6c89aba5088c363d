//! Checks all class numbers of a file when it is opened.

use std::path::Path;

use tch::Kind;

use super::DataError;
use super::column::Column;

/// The highest class number plus 1.
///
/// # Errors
/// `Label` if one is negative or not below `outputs`; `Format` if the array has another shape or type.
pub(crate) fn check(path: &Path, labels: &Column, outputs: Option<u32>) -> Result<i64, DataError> {
    if !matches!(labels.row_shape(), [] | [1]) {
        let detail = format!("each label has the shape {:?}", labels.row_shape());
        return Err(DataError::format(path, "an array of class numbers", detail));
    }
    let data = labels.data();
    let (low, high) = match labels.kind() {
        Kind::Uint8 => bounds(data, |[byte]| i64::from(byte)),
        Kind::Int8 => bounds(data, |bytes| i64::from(i8::from_le_bytes(bytes))),
        Kind::Int16 => bounds(data, |bytes| i64::from(i16::from_le_bytes(bytes))),
        Kind::Int => bounds(data, |bytes| i64::from(i32::from_le_bytes(bytes))),
        Kind::Int64 => bounds(data, i64::from_le_bytes),
        other => {
            return Err(DataError::format(path, "an array of class numbers", format!("its elements are {other:?}")));
        }
    };
    let limit = outputs.map_or(i64::MAX, i64::from);
    for (value, position) in [low, high] {
        if !(0..limit).contains(&value) {
            let below =
                |outputs: u32| format!("a class from 0 to {} (`model.outputs` = {outputs})", outputs.saturating_sub(1));
            let allowed = outputs.map_or_else(|| "a class (a whole number from 0)".to_owned(), below);
            return Err(DataError::Label { path: path.to_owned(), position, value, allowed });
        }
    }
    Ok(high.0 + 1)
}

/// Lowest and highest value, each with the position of its first occurrence. `data` must not be empty.
fn bounds<const N: usize>(data: &[u8], read: impl Fn([u8; N]) -> i64) -> ((i64, u64), (i64, u64)) {
    let (mut low, mut high) = ((i64::MAX, 0), (i64::MIN, 0));
    for (position, bytes) in data.as_chunks::<N>().0.iter().enumerate() {
        let value = read(*bytes);
        if value < low.0 {
            low = (value, position as u64);
        }
        if value > high.0 {
            high = (value, position as u64);
        }
    }
    (low, high)
}
