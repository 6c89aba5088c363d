//! Names in the directory of a store.

/// Directory of what is being written.
pub(crate) const TMP: &str = "tmp";

/// Behind the digest of a blob of which a part is there.
pub(crate) const PART: &str = ".part";
