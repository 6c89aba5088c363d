//! Where a run comes from: code and data, measured at submit and brought back.

pub(crate) mod checkout;
pub(crate) mod data;
pub(crate) mod lineage;
pub(crate) mod measure;
pub(crate) mod tracked;
