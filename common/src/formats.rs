//! The numbered formats of stored bytes: for each, the version that is written and the oldest one that is still read (I15).
//!
//! | format | where | earlier formats | golden bytes |
//! | --- | --- | --- | --- |
//! | job | [`crate::job::JobSpec`] | the stored text stays unchanged; a missing key has its default | in the manifests |
//! | manifest | [`crate::manifest::Manifest`] | read unchanged: a missing key is absent | `common/golden/manifest-4.json` |
//! | state | `coordinator/core/src/formats` | copied and rewritten when a coordinator starts | `coordinator/core/golden/state-6.txt` |
//! | reports | `coordinator/src/store/blocks.rs` | protobuf: fields are only added; blocks of format 1 have no checksums | in the fixture |
//! | tracking | `coordinator/tracking` | rebuilt from the reports | in the fixture |
//!
//! The fixture is `tests/data/format-6`: the data directory of a coordinator of version 0.1.0. Tests start the present coordinator
//! on a copy of it, resume its run and verify it.

/// A format with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// Name in messages, such as `checkpoint manifest`.
    pub name: &'static str,
    /// Version that this program writes.
    pub written: u64,
    /// Oldest version that this program reads or converts.
    pub oldest: u64,
}

/// A checkpoint's manifest.
pub const MANIFEST: Format = Format { name: "checkpoint manifest", written: 5, oldest: 4 };

/// Rows and log of the coordinator's state database.
pub const STATE: Format = Format { name: "coordinator state", written: 9, oldest: 6 };

/// Blocks of reports. A database without a format number has format 1.
pub const REPORTS: Format = Format { name: "report database", written: 1, oldest: 1 };

/// The tracking database. A database of another format is rebuilt from the reports.
pub const TRACKING: Format = Format { name: "tracking database", written: 2, oldest: 2 };

/// Bytes whose format version this program cannot read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {} has format {found}, but this program reads {}: {}",
    format.name,
    format.range(),
    if *found > format.written { "a newer version of Lockstep wrote it" } else { "an older version of Lockstep wrote it" }
)]
pub struct Unreadable {
    /// The expected format, with the versions that this program reads.
    pub format: Format,
    /// The version of the bytes.
    pub found: u64,
}

impl Format {
    /// Checks that this program can read version `found`.
    ///
    /// # Errors
    /// [`Unreadable`], with `found` and the readable versions.
    pub fn check(self, found: u64) -> Result<(), Unreadable> {
        if (self.oldest..=self.written).contains(&found) { Ok(()) } else { Err(Unreadable { format: self, found }) }
    }

    fn range(self) -> String {
        match self {
            Self { written, oldest, .. } if written == oldest => format!("format {written}"),
            Self { written, oldest, .. } => format!("formats {oldest} to {written}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_from_the_oldest_to_the_newest_are_read_and_others_named() {
        for format in [MANIFEST, STATE, REPORTS, TRACKING] {
            assert_eq!(format.check(format.written), Ok(()));
            assert_eq!(format.check(format.oldest), Ok(()));
            assert!(format.check(format.oldest - 1).is_err());
        }
        assert_eq!(
            STATE.check(10).unwrap_err().to_string(),
            "the coordinator state has format 10, but this program reads formats 6 to 9: a newer version of Lockstep wrote it"
        );
    }
}
