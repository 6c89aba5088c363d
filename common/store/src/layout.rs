//! Names in the directory of a store.

/// Directory of unfinished files.
pub(crate) const TMP: &str = "tmp";

/// Suffix of a partial blob's file; the digest of the whole blob comes before it.
pub(crate) const PART: &str = ".part";
