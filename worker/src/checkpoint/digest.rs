//! The digest of a whole state, computed by one process. The manifest of a checkpoint of the same state has the same digest.

use lockstep_common::manifest::{self, Piece, TensorEntry};
use lockstep_common::{Digest, Domain};
use lockstep_store::PIECE_BYTES;
use lockstep_tch_ext::memory::each_piece;
use tch::{Device, TchError};

use super::state::{State, dtype};

/// The digest of `state`'s tensors.
pub fn state_digest(state: &State) -> Result<Digest, lockstep_tch_ext::Error> {
    let steps = state.steps()?;
    let mut entries = state
        .tensors()
        .iter()
        .chain(&steps)
        .map(|named| {
            let tensor = named.tensor.f_to(Device::Cpu)?.f_contiguous()?;
            let mut pieces = Vec::new();
            let add =
                |piece: &[u8]| pieces.push(Piece { digest: Domain::Blob.digest(piece), bytes: piece.len() as u64 });
            each_piece(&tensor, PIECE_BYTES, add).expect("a contiguous tensor on the cpu has bytes");
            Ok(TensorEntry {
                name: named.name.clone(),
                dtype: dtype(&named.tensor),
                shape: named.tensor.size(),
                pieces,
            })
        })
        .collect::<Result<Vec<_>, TchError>>()?;
    entries.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(manifest::state_digest(&entries))
}
