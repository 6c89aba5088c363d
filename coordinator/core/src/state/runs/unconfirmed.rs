//! What the processes of one node alone say of all.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::state::reports::ReportBody;

/// A report that no process of another node has confirmed yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// Who sent it, all on one node.
    pub processes: BTreeSet<u32>,
    /// What: [`ReportBody::Corrupt`] or [`ReportBody::Agreed`].
    #[serde(rename = "said")]
    pub body: ReportBody,
}
