//! What shows that two runs computed the same: words of samples, the record, what is known to change bits.

pub mod contents;
pub mod numerics;
pub mod record;
