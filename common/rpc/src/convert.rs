//! Conversions between wire types and types of `lockstep-common`.

use lockstep_common::Digest;
use lockstep_common::manifest::{self, Piece};

use crate::{BlobRef, CodeVersion, DataFile};

impl From<&manifest::CodeVersion> for CodeVersion {
    fn from(code: &manifest::CodeVersion) -> Self {
        Self {
            commit: code.commit.clone(),
            branch: code.branch.clone().unwrap_or_default(),
            remote: code.remote.clone().unwrap_or_default(),
            dirty: code.dirty,
            tags: code.tags.clone(),
            directory: code.directory.clone(),
            tree: code.tree.as_ref().map(Into::into),
            source: code.source.as_ref().map(Into::into),
        }
    }
}

impl TryFrom<CodeVersion> for manifest::CodeVersion {
    type Error = BadDigest;

    fn try_from(code: CodeVersion) -> Result<Self, BadDigest> {
        let some = |text: String| (!text.is_empty()).then_some(text);
        Ok(Self {
            commit: code.commit,
            branch: some(code.branch),
            remote: some(code.remote),
            dirty: code.dirty,
            tags: code.tags,
            directory: code.directory,
            tree: code.tree.map(TryInto::try_into).transpose()?,
            source: code.source.map(TryInto::try_into).transpose()?,
        })
    }
}

impl From<&Piece> for BlobRef {
    fn from(piece: &Piece) -> Self {
        Self { digest: piece.digest.as_bytes().to_vec(), bytes: piece.bytes }
    }
}

impl TryFrom<BlobRef> for Piece {
    type Error = BadDigest;

    fn try_from(blob: BlobRef) -> Result<Self, BadDigest> {
        let digest: [u8; 32] = blob.digest.try_into().map_err(|_| BadDigest)?;
        Ok(Self { digest: Digest::from_bytes(digest), bytes: blob.bytes })
    }
}

impl From<&manifest::DataFile> for DataFile {
    fn from(file: &manifest::DataFile) -> Self {
        Self { path: file.path.clone(), bytes: file.bytes, digest: file.digest.as_bytes().to_vec() }
    }
}

/// A digest field does not have 32 bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BadDigest;

impl TryFrom<DataFile> for manifest::DataFile {
    type Error = BadDigest;

    fn try_from(file: DataFile) -> Result<Self, BadDigest> {
        let digest: [u8; 32] = file.digest.try_into().map_err(|_| BadDigest)?;
        Ok(Self { path: file.path, bytes: file.bytes, digest: Digest::from_bytes(digest) })
    }
}
