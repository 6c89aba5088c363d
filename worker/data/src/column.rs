//! One array of equal rows in memory, from which batches are gathered.
//!
//! Hot: copies each sample once, from the file's pages into the batch's tensor, with one allocation for each batch.

use lockstep_common::contents::Contents;
use lockstep_tch_ext::memory::filled;
use lockstep_tch_ext::transfers::upload;
use tch::{Device, Kind, Tensor};

use super::DataError;
use super::mapped::Bytes;

const _: () = assert!(cfg!(target_endian = "little"), "files are little-endian, and their bytes are used unchanged");

/// Rows of one shape and element type, one for each sample.
pub(crate) struct Column {
    bytes: Bytes,
    start: usize,
    kind: Kind,
    row_shape: Vec<i64>,
    row_bytes: usize,
    rows: u64,
}

impl Column {
    /// An array of `rows` rows that begins at byte `start`. `None` if `bytes` is too short, or a row has no element.
    pub(crate) fn new(bytes: Bytes, start: usize, kind: Kind, row_shape: Vec<i64>, rows: u64) -> Option<Self> {
        let elements = row_shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(usize::try_from(size).ok().filter(|&s| s > 0)?))?;
        let row_bytes = elements.checked_mul(kind.elt_size_in_bytes())?;
        let end = usize::try_from(rows).ok()?.checked_mul(row_bytes)?.checked_add(start)?;
        (end <= bytes.len()).then_some(Self { bytes, start, kind, row_shape, row_bytes, rows })
    }

    pub(crate) fn rows(&self) -> u64 {
        self.rows
    }

    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn row_shape(&self) -> &[i64] {
        &self.row_shape
    }

    /// All rows, one after another.
    pub(crate) fn data(&self) -> &[u8] {
        &self.bytes[self.start..self.start + self.rows as usize * self.row_bytes]
    }

    /// The rows at `indices`, each below [`Column::rows`], as a tensor `[B, ..]` of the file's element type. Their bytes are
    /// added to `contents`, under the given number of the array in the batch.
    pub(crate) fn gather(
        &self,
        indices: impl ExactSizeIterator<Item = u64>,
        device: Device,
        mut contents: Option<(&mut Contents, u64)>,
    ) -> Result<Tensor, DataError> {
        let mut shape = Vec::with_capacity(1 + self.row_shape.len());
        shape.push(indices.len() as i64);
        shape.extend_from_slice(&self.row_shape);
        let data = self.data();
        let rows = filled(&shape, self.kind, |bytes| -> Result<(), DataError> {
            for (target, index) in bytes.chunks_exact_mut(self.row_bytes).zip(indices) {
                target.copy_from_slice(&data[index as usize * self.row_bytes..][..self.row_bytes]);
                if let Some((contents, array)) = &mut contents {
                    contents.add(*array, index, target);
                }
            }
            Ok(())
        })?;
        Ok(upload(rows, device)?)
    }
}
