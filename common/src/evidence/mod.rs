//! Evidence that two runs computed the same bits: hashes of samples, the record, and the numerics fingerprint's variables.

pub mod contents;
pub mod numerics;
pub mod record;
