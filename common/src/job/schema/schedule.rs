//! `[schedule]`: how the learning rate changes. The type is [`Schedule`]'s own module's.

use super::range::{is_not_negative, is_positive};
use crate::job::error::JobError;
use crate::schedule::Schedule;

pub(super) fn check(schedule: &Schedule) -> Result<(), JobError> {
    match *schedule {
        Schedule::Linear { end_factor, .. } | Schedule::Cosine { end_factor, .. } if !is_not_negative(end_factor) => {
            Err(JobError::value("schedule.end_factor", format!("{end_factor} is not 0 or above")))
        }
        Schedule::Step { every_steps: 0, .. } => Err(JobError::value("schedule.every_steps", "0 is not at least 1")),
        Schedule::Step { factor, .. } if !is_positive(factor) => {
            Err(JobError::value("schedule.factor", format!("{factor} is not above 0")))
        }
        _ => Ok(()),
    }
}
