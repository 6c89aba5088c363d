//! Errors and time limits of measurements.

use std::time::Duration;

/// Any error that ends a measurement.
pub(crate) type Failure = Box<dyn std::error::Error + Send + Sync>;

/// Limit for each wait.
pub(crate) const PATIENCE: Duration = Duration::from_mins(2);
