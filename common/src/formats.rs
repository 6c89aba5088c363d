//! Every format that outlives a program: its number, and the oldest one that is still read (I15).
//!
//! | format | where | earlier formats | golden bytes |
//! | --- | --- | --- | --- |
//! | job | [`crate::job::JobSpec`] | its text is kept as it was written; a key that it lacks has its default | in the manifests |
//! | manifest | [`crate::manifest::Manifest`] | read as they are: a key that one lacks is absent | `common/golden/manifest-4.json` |
//! | state | `coordinator/core/src/formats` | rewritten when a coordinator starts, with a copy beside it | `coordinator/core/golden/state-6.txt` |
//! | reports | `coordinator/src/store/blocks.rs` | protobuf: fields are only added; blocks of format 1 have no checksums | in the fixture |
//! | tracking | `coordinator/tracking` | rebuilt from the reports | in the fixture |
//!
//! The fixture is `tests/data/format-6`: the data directory of a coordinator of version 0.1.0, which today's starts on, resumes
//! from and verifies.

/// A format with a number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Format {
    /// For people, as `checkpoint manifest`.
    pub name: &'static str,
    /// The one that this program writes.
    pub written: u64,
    /// The oldest one that it reads, or rewrites.
    pub oldest: u64,
}

/// A checkpoint's manifest.
pub const MANIFEST: Format = Format { name: "checkpoint manifest", written: 5, oldest: 4 };

/// Rows and log of the coordinator's state database.
pub const STATE: Format = Format { name: "coordinator state", written: 9, oldest: 6 };

/// Blocks of reports. Databases without a number are of format 1.
pub const REPORTS: Format = Format { name: "report database", written: 1, oldest: 1 };

/// The database of numbers. One of another format is rebuilt from the reports.
pub const TRACKING: Format = Format { name: "tracking database", written: 2, oldest: 2 };

/// Bytes of a format that this program does not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the {} has format {found}, and this program reads {}: {}",
    format.name,
    format.range(),
    if *found > format.written { "a newer version of Lockstep wrote it" } else { "an older version of Lockstep wrote it" }
)]
pub struct Unreadable {
    /// The kind of bytes.
    pub format: Format,
    /// Their format.
    pub found: u64,
}

impl Format {
    /// Whether `found` is read.
    ///
    /// # Errors
    /// Names both numbers.
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
            "the coordinator state has format 10, and this program reads formats 6 to 9: a newer version of Lockstep wrote it"
        );
    }
}
