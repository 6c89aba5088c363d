//! How a measurement ends that cannot be made.

use std::time::Duration;

/// Why, for whoever measures.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// For all that has to happen at all.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
