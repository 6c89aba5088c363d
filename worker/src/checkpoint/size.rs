//! Computes before the first step how long the description of a share will be. The coordinator rejects a longer one than its limit, and
//! then the whole training would be lost.

use lockstep_common::Digest;
use lockstep_common::manifest::{Piece, RankState, TensorEntry};
use lockstep_store::PIECE_BYTES;
use serde::Serialize;

use super::rank_state::RankDraft;

/// Upper limit for the bytes of a description beside tensors, ranks and preprocessing.
pub(super) const REST_BYTES: usize = 512;

/// Bytes that describe a tensor of `bytes` bytes.
pub(super) fn tensor(name: &str, dtype: String, shape: Vec<i64>, bytes: usize) -> usize {
    let cuts = (0..bytes).step_by(PIECE_BYTES);
    let pieces = cuts.map(|begin| piece(PIECE_BYTES.min(bytes - begin))).collect();
    described(&TensorEntry { name: name.to_owned(), dtype, shape, pieces })
}

/// Bytes that describe a rank like `draft`.
pub(super) fn rank(draft: &RankDraft) -> usize {
    let generators = draft.generators.iter().map(|(device, state)| (device.clone(), piece(state.len())));
    described(&RankState { generators: generators.collect(), ..draft.state.clone() })
}

/// Bytes of `part` in a description, with the comma after it.
pub(super) fn described(part: &impl Serialize) -> usize {
    serde_json::to_vec(part).map_or(0, |json| json.len() + 1)
}

/// A piece with any digest: all digests are equally long.
fn piece(bytes: usize) -> Piece {
    Piece { digest: Digest::from_bytes([0; 32]), bytes: bytes as u64 }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use lockstep_common::manifest::Share;

    use super::*;

    #[test]
    fn a_description_is_about_as_long_as_was_said_before() {
        let bytes = 3 * PIECE_BYTES + 5;
        let pieces = vec![piece(PIECE_BYTES), piece(PIECE_BYTES), piece(PIECE_BYTES), piece(5)];
        let entry = TensorEntry { name: "model/w".to_owned(), dtype: "float".to_owned(), shape: vec![2, 3], pieces };
        let seeds = BTreeMap::from([("forward".to_owned(), u64::MAX)]);
        let state =
            RankState { rank: 9, seeds, epoch: 1, consumed: 100, next_position: 7, generators: BTreeMap::new() };
        let draft = RankDraft { state: state.clone(), generators: [("cpu".to_owned(), vec![0; 5056])].into() };
        let state = RankState { generators: [("cpu".to_owned(), piece(5056))].into(), ..state };
        let share = Share {
            step: 1000,
            epoch: 1,
            tensors: vec![entry.clone(); 10],
            ranks: vec![state; 1000],
            record: None,
            preprocessing: None,
        };
        let before = 10 * tensor("model/w", entry.dtype, entry.shape, bytes) + 1000 * rank(&draft) + REST_BYTES;
        let after = serde_json::to_vec(&share).unwrap().len();
        assert!((after..after + REST_BYTES).contains(&before), "{before} and {after}");
    }
}
