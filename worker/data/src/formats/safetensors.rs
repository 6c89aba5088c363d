//! Two tensors of a safetensors file, memory-mapped.

use std::path::Path;

use safetensors::Dtype;
use safetensors::tensor::Metadata;
use tch::Kind;

use crate::array::Pair;
use crate::column::Column;
use crate::dataset::DataSets;
use crate::mapped::Source;
use crate::{DataError, split};

const FORMAT: &str = "a safetensors file";

/// A file, and the names of two tensors in it.
pub(crate) struct Tensors<'a> {
    pub(crate) file: &'a Source<'a>,
    pub(crate) inputs: &'a str,
    pub(crate) targets: &'a str,
}

/// Opens inputs and targets, and sets the fraction `validation` apart, chosen by the root seed.
pub(crate) fn open(tensors: &Tensors, validation: f64, seed: u64, outputs: Option<u32>) -> Result<DataSets, DataError> {
    let path = tensors.file.path();
    let inputs = column(tensors.file, tensors.inputs)?;
    let targets = column(tensors.file, tensors.targets)?;
    let pair = Pair::new((path, inputs), (path, targets), outputs)?;
    let split = split::by_seed(path, pair.samples(), validation, seed)?;
    Ok(pair.split(split))
}

fn column(file: &Source, name: &str) -> Result<Column, DataError> {
    let (path, bytes) = (file.path(), file.bytes()?);
    let (metadata, data_start) = metadata(path, &bytes)?;
    let Some(info) = metadata.info(name) else {
        let mut names = metadata.offset_keys();
        names.sort_unstable();
        let known = names.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        return Err(DataError::Name { path: path.to_owned(), what: "tensor", name: name.to_owned(), known });
    };
    let kind = match info.dtype {
        Dtype::F32 => Kind::Float,
        Dtype::U8 => Kind::Uint8,
        Dtype::I8 => Kind::Int8,
        Dtype::I16 => Kind::Int16,
        Dtype::I32 => Kind::Int,
        Dtype::I64 => Kind::Int64,
        other => {
            let detail = format!("tensor `{name}` has elements of {other}: only F32, U8 and I8 to I64 are supported");
            return Err(DataError::format(path, "a safetensors file to train on", detail));
        }
    };
    let Some((&rows, row_shape)) = info.shape.split_first() else {
        let detail = format!("tensor `{name}` has no axes");
        return Err(DataError::format(path, "a safetensors file to train on", detail));
    };
    if info.shape.contains(&0) {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    // The crate has checked that offsets, shapes and types agree, and `metadata` that the last tensor ends with the file.
    let row_shape = row_shape.iter().map(|&size| size as i64).collect();
    Column::new(bytes, data_start + info.data_offsets.0, kind, row_shape, rows as u64)
        .ok_or_else(|| DataError::format(path, FORMAT, format!("tensor `{name}` is outside the file")))
}

/// The checked header, and the offset of the tensors' bytes.
fn metadata(path: &Path, bytes: &[u8]) -> Result<(Metadata, usize), DataError> {
    let refuse = |detail: String| DataError::format(path, FORMAT, detail);
    let (length, rest) = bytes.split_first_chunk().ok_or_else(|| refuse("it is shorter than 8 bytes".into()))?;
    let length = u64::from_le_bytes(*length);
    let header = usize::try_from(length)
        .ok()
        .and_then(|length| rest.get(..length))
        .ok_or_else(|| refuse(format!("its first 8 bytes announce a header of {length} bytes")))?;
    let metadata: Metadata = serde_json::from_slice(header).map_err(|error| refuse(error.to_string()))?;
    let start = 8 + header.len();
    let (expected, found) = ((start as u64).saturating_add(metadata.data_len() as u64), bytes.len() as u64);
    if expected != found {
        return Err(DataError::Length { path: path.to_owned(), expected, found });
    }
    Ok((metadata, start))
}
