//! Writes `model.safetensors`: the parameters and buffers of a checkpoint, with the names of a `state_dict`.
//!
//! Each export of a checkpoint has the same bytes: metadata and tensors have a fixed order here, unlike in the crate's own writer.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use lockstep_common::manifest::{Manifest, TensorEntry};
use lockstep_store::BlobStore;
use safetensors::tensor::Dtype;
use serde::Serialize;

use crate::terminal::{Exit, Failure};

/// The parameters and buffers of a checkpoint, with the names of a `state_dict`.
pub(super) fn weights(manifest: &Manifest) -> Vec<TensorEntry> {
    let plain = |entry: &TensorEntry| {
        let name = ["model/", "buffer/"].iter().find_map(|prefix| entry.name.strip_prefix(prefix))?;
        Some(TensorEntry { name: name.to_owned(), ..entry.clone() })
    };
    manifest.tensors.iter().filter_map(plain).collect()
}

/// Writes `entries`, whose pieces are in `store`, to the file `to`. Each piece is verified by its digest.
pub(super) fn write(entries: &[TensorEntry], store: &BlobStore, manifest: &Manifest, to: &Path) -> Result<(), Failure> {
    let mut tensors = entries.iter().map(Stored::new).collect::<Result<Vec<_>, Failure>>()?;
    // The layout of the crate's writer: wide elements first, so that all are aligned, then by name.
    tensors.sort_by(|a, b| b.dtype.cmp(&a.dtype).then_with(|| a.entry.name.cmp(&b.entry.name)));
    let header = header(&tensors, manifest).ok_or_else(|| {
        Failure::new(Exit::Local, "the checkpoint's tensors have more than 2^64 bytes together".to_owned())
    })?;
    let unwritten = |error: &io::Error| Failure::new(Exit::Local, format!("cannot write `{}`: {error}", to.display()));
    let file = File::create(to).map_err(|error| unwritten(&error))?;
    let mut file = BufWriter::new(file);
    file.write_all(&(header.len() as u64).to_le_bytes()).map_err(|error| unwritten(&error))?;
    file.write_all(&header).map_err(|error| unwritten(&error))?;
    for piece in tensors.iter().flat_map(|tensor| &tensor.entry.pieces) {
        let bytes = store.get(piece).map_err(|error| Failure::caused(Exit::of_blob(&error), &error))?;
        file.write_all(&bytes).map_err(|error| unwritten(&error))?;
    }
    let file = file.into_inner().map_err(|error| unwritten(error.error()))?;
    file.sync_all().map_err(|error| unwritten(&error))
}

/// The key of a file's header that is not a tensor.
const METADATA: &str = "__metadata__";

/// A tensor with its type in the file.
struct Stored<'a> {
    entry: &'a TensorEntry,
    dtype: Dtype,
    bytes: u64,
}

impl<'a> Stored<'a> {
    fn new(entry: &'a TensorEntry) -> Result<Self, Failure> {
        let TensorEntry { name, dtype: word, shape, pieces } = entry;
        if name == METADATA {
            let words = format!("a tensor is named `{METADATA}`, which safetensors reserves: rename it in the model");
            return Err(Failure::new(Exit::Local, words));
        }
        let dtype = dtype(word).ok_or_else(|| {
            Failure::new(
                Exit::Local,
                format!("tensor `{name}` has elements of type `{word}`, which safetensors cannot store"),
            )
        })?;
        let bytes = pieces.iter().try_fold(0_u64, |sum, piece| sum.checked_add(piece.bytes));
        let expected = shape
            .iter()
            .try_fold(dtype.bitsize() as u64 / 8, |product, &size| product.checked_mul(u64::try_from(size).ok()?));
        match (bytes, expected) {
            (Some(bytes), Some(expected)) if bytes == expected => Ok(Self { entry, dtype, bytes }),
            _ => {
                let pieces = bytes.map_or_else(|| "more than 2^64".to_owned(), |bytes| bytes.to_string());
                let words =
                    format!("tensor `{name}` of the manifest has type {word} and shape {shape:?}, but {pieces} bytes");
                Err(Failure::new(Exit::Local, words))
            }
        }
    }
}

#[derive(Serialize)]
struct Info<'a> {
    dtype: Dtype,
    shape: &'a [i64],
    data_offsets: [u64; 2],
}

/// The file's header, padded to a multiple of 8 bytes. `None` if offsets overflow.
fn header(tensors: &[Stored], manifest: &Manifest) -> Option<Vec<u8>> {
    let text = |value: &dyn Fn(&mut Vec<u8>) -> serde_json::Result<()>| {
        let mut bytes = Vec::new();
        value(&mut bytes).expect("texts and numbers are JSON");
        bytes
    };
    let metadata = BTreeMap::from([
        ("format", "pt".to_owned()),
        ("lockstep.checkpoint", Manifest::id(&manifest.encode()).to_string()),
        ("lockstep.run", manifest.run.to_string()),
        ("lockstep.step", manifest.step.to_string()),
    ]);
    let mut bytes = format!("{{\"{METADATA}\":").into_bytes();
    bytes.extend(text(&|to| serde_json::to_writer(to, &metadata)));
    let mut at = 0_u64;
    for Stored { entry, dtype, bytes: length } in tensors {
        let end = at.checked_add(*length)?;
        let info = Info { dtype: *dtype, shape: &entry.shape, data_offsets: [at, end] };
        bytes.push(b',');
        bytes.extend(text(&|to| serde_json::to_writer(to, &entry.name)));
        bytes.push(b':');
        bytes.extend(text(&|to| serde_json::to_writer(to, &info)));
        at = end;
    }
    bytes.push(b'}');
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Some(bytes)
}

/// The safetensors type for libtorch's name of an element type; `None` if there is none.
fn dtype(name: &str) -> Option<Dtype> {
    Some(match name {
        "float" => Dtype::F32,
        "double" => Dtype::F64,
        "half" => Dtype::F16,
        "bfloat16" => Dtype::BF16,
        "int64" => Dtype::I64,
        "int" => Dtype::I32,
        "int16" => Dtype::I16,
        "int8" => Dtype::I8,
        "uint8" => Dtype::U8,
        "bool" => Dtype::BOOL,
        "float8e4m3fn" => Dtype::F8_E4M3,
        "float8e5m2" => Dtype::F8_E5M2,
        "float8e4m3fnuz" => Dtype::F8_E4M3FNUZ,
        "float8e5m2fnuz" => Dtype::F8_E5M2FNUZ,
        "complexfloat" => Dtype::C64,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use lockstep_common::manifest::{Piece, TensorEntry};

    use super::*;

    fn entry(shape: &[i64], bytes: &[u64]) -> TensorEntry {
        let digest = lockstep_common::Domain::Blob.digest(b"x");
        let pieces = bytes.iter().map(|&bytes| Piece { digest, bytes }).collect();
        TensorEntry { name: "w".to_owned(), dtype: "float".to_owned(), shape: shape.to_vec(), pieces }
    }

    #[test]
    fn a_tensor_that_lies_about_its_size_is_refused_by_name() {
        assert!(Stored::new(&entry(&[2, 3], &[20, 4])).is_ok());
        for (shape, bytes) in
            [(vec![2, 3], vec![23]), (vec![-1], vec![4]), (vec![1 << 62, 8], vec![0]), (vec![1], vec![u64::MAX, 5])]
        {
            let refused = Stored::new(&entry(&shape, &bytes)).err().unwrap().render();
            assert!(refused.contains("tensor `w`"), "{refused}");
        }
    }

    #[test]
    fn a_tensor_has_a_type_and_a_name_that_the_file_can_hold() {
        let named = |name: &str, dtype: &str, bytes| TensorEntry {
            name: name.to_owned(),
            dtype: dtype.to_owned(),
            ..entry(&[3], &[bytes])
        };
        for (dtype, bytes) in [("float8e4m3fn", 3), ("float8e5m2", 3), ("complexfloat", 24), ("bool", 3), ("int16", 6)]
        {
            assert!(Stored::new(&named("w", dtype, bytes)).is_ok(), "{dtype}");
        }
        for (name, dtype, words) in
            [("__metadata__", "float", "reserves: rename"), ("w", "qint8", "elements of type `qint8`")]
        {
            let refused = Stored::new(&named(name, dtype, 12)).err().unwrap().render();
            assert!(refused.contains(words), "{refused}");
        }
    }
}
