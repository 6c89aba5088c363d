//! Comparisons of replicas that wait for confirmation.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::state::reports::ReportBody;

/// A comparison of all replicas that no process on another node has confirmed yet.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Unconfirmed {
    /// The processes that sent it; all are on one node.
    pub processes: BTreeSet<u32>,
    /// A [`ReportBody::Corrupt`] or [`ReportBody::Agreed`].
    #[serde(rename = "said")]
    pub body: ReportBody,
}
