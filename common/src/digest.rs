//! Digests: blake3, domain-separated, written as 64 hexadecimal characters.
//!
//! Values of different kinds never share a digest, even if their bytes are equal: each kind hashes in its own [`Domain`].
//! The exception is [`Domain::Blob`], which is plain blake3, so that `b3sum FILE` prints a blob's name.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// The kind of a hashed value. The context strings are frozen; a new format gets a new version in its string.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Domain {
    /// File and tensor contents: plain blake3.
    Blob,
    /// A validated job in canonical form.
    Job,
    /// A checkpoint manifest.
    Manifest,
    /// All trainable and optimizer state of a run at one step.
    State,
    /// One step of a run's record, chained to the previous step's digest.
    Record,
    /// Sample positions of one step, in rank order.
    Samples,
    /// Fingerprints of all tensors of a state.
    Fingerprint,
    /// A data set: paths, sizes and digests of its files.
    Data,
    /// A run's id: index of the log entry that created the run, and id of the request.
    Run,
    /// The secret of a generation; its processes prove to each other that they know it.
    Secret,
    /// A program's sources and build instructions.
    Program,
    /// A row of the coordinator's databases, for its checksum.
    Row,
    /// The contents of a client's command.
    Request,
    /// The digests of a checkpoint's shares.
    Shares,
}

impl Domain {
    fn context(self) -> Option<&'static str> {
        match self {
            Self::Blob => None,
            Self::Job => Some("lockstep job v1"),
            Self::Manifest => Some("lockstep manifest v1"),
            Self::State => Some("lockstep state v1"),
            Self::Record => Some("lockstep record v2"),
            Self::Samples => Some("lockstep samples v1"),
            Self::Fingerprint => Some("lockstep fingerprint v1"),
            Self::Data => Some("lockstep data v1"),
            Self::Run => Some("lockstep run v1"),
            Self::Secret => Some("lockstep secret v1"),
            Self::Program => Some("lockstep program v1"),
            Self::Row => Some("lockstep row v1"),
            Self::Request => Some("lockstep request v1"),
            Self::Shares => Some("lockstep shares v1"),
        }
    }

    /// A new hasher in this domain.
    pub fn hasher(self) -> blake3::Hasher {
        self.context().map_or_else(blake3::Hasher::new, blake3::Hasher::new_derive_key)
    }

    /// The digest of `bytes` in this domain.
    pub fn digest(self, bytes: &[u8]) -> Digest {
        Digest::of(self.hasher().update(bytes))
    }
}

/// A 256-bit blake3 digest.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

impl Digest {
    /// Wraps the 32 raw bytes of a digest.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The digest of all bytes that `hasher` has consumed so far.
    pub fn of(hasher: &blake3::Hasher) -> Self {
        Self(*hasher.finalize().as_bytes())
    }

    /// The digest as 32 raw bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The digest as 64 lower-case hexadecimal characters.
    pub fn to_hex(&self) -> String {
        blake3::Hash::from_bytes(self.0).to_hex().to_string()
    }

    /// The first 12 hexadecimal characters: the form in messages and tables, which commands also accept.
    pub fn short(&self) -> String {
        self.to_hex()[..12].to_owned()
    }
}

/// A text that is not a digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a digest: expected 64 lower-case hexadecimal characters")]
pub struct NotADigest(String);

impl FromStr for Digest {
    type Err = NotADigest;

    fn from_str(text: &str) -> Result<Self, NotADigest> {
        let lower = text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        match blake3::Hash::from_hex(text) {
            Ok(hash) if lower => Ok(Self(*hash.as_bytes())),
            _ => Err(NotADigest(text.chars().take(80).collect())),
        }
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.to_hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.short())
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_hex())
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_blob_is_plain_blake3_and_domains_differ() {
        // `printf abc | b3sum`
        let blob = Domain::Blob.digest(b"abc");
        assert_eq!(blob.to_hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        assert_ne!(blob, Domain::Job.digest(b"abc"));
        assert_eq!(blob.to_hex().parse::<Digest>(), Ok(blob));
    }

    #[test]
    fn only_64_lower_case_hex_characters_are_a_digest() {
        let hex = Domain::Blob.digest(b"").to_hex();
        for bad in [hex[1..].to_owned(), hex.to_uppercase(), format!("{hex}0"), "../../etc/passwd".into()] {
            assert!(bad.parse::<Digest>().is_err(), "{bad}");
        }
    }
}
