//! The store: blobs of shares and manifests. All tests share it, because the name of a blob is its digest.

use std::collections::BTreeMap;
use std::sync::Mutex;

use lockstep_common::manifest::{Manifest, Piece};
use lockstep_common::{Digest, Domain};

static BLOBS: Mutex<BTreeMap<Digest, Vec<u8>>> = Mutex::new(BTreeMap::new());

pub(crate) fn put(bytes: &[u8]) -> Piece {
    let digest = Domain::Blob.digest(bytes);
    BLOBS.lock().unwrap().insert(digest, bytes.to_vec());
    Piece { digest, bytes: bytes.len() as u64 }
}

pub(crate) fn get(piece: &Piece) -> Vec<u8> {
    BLOBS.lock().unwrap()[&piece.digest].clone()
}

pub(crate) fn manifest(piece: &Piece) -> Manifest {
    Manifest::decode(&get(piece)).unwrap()
}
