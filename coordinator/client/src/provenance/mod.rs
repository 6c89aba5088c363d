//! Code and data of runs: recorded at submit, shown, and rebuilt.

pub(crate) mod checkout;
pub(crate) mod data;
pub(crate) mod lineage;
pub(crate) mod measure;
pub(crate) mod tracked;
