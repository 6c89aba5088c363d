//! The numbers of runs: kept in columns with levels for the eye, watched for what goes wrong.
//!
//! ```text
//!   report blocks, rewinds ──▶ Writer ──▶ tails in memory ──flush──▶ tracking.redb
//!      (the log's order)                        │                       │
//!                                               └──────▶ Tracking ◀─────┘   queries
//! ```
//!
//! It is made of what `reports.redb` holds, and can be made again from it: so nothing here needs to be durable before
//! anything else happens, and a crash costs the reading of the blocks since the last flush. A database that is damaged is set aside as
//! `tracking.redb.damaged`, and a new one takes its place. It knows nothing of cluster state.

mod bucket;
mod column;
mod database;
mod error;
mod file;
mod points;
mod query;
mod quota;
mod tail;
mod writer;

pub use database::{Branch, Media, SeriesSummary};
pub use error::{TrackingError, is_damage};
pub use lockstep_alarms::{Alarm, Facts, Kind, Severity};
pub use points::{BlockMetrics, Unfit, metrics_of};
pub use query::{Drawn, Query, Tracking};
pub use quota::Quota;
pub use writer::{Event, Writer};
