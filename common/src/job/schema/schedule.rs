//! `[schedule]`: checks of the learning rate schedule. The type is [`crate::schedule::Schedule`].

use super::range::{is_not_negative, is_positive};
use crate::job::error::JobError;
use crate::schedule::Schedule;

pub(super) fn check(schedule: &Schedule) -> Result<(), JobError> {
    match *schedule {
        Schedule::Linear { end_factor, .. } | Schedule::Cosine { end_factor, .. } if !is_not_negative(end_factor) => {
            Err(JobError::value("schedule.end_factor", format!("must be finite and at least 0, not {end_factor}")))
        }
        Schedule::Step { every_steps: 0, .. } => {
            Err(JobError::value("schedule.every_steps", "must be at least 1, not 0"))
        }
        Schedule::Step { factor, .. } if !is_positive(factor) => {
            Err(JobError::value("schedule.factor", format!("{factor} is not above 0")))
        }
        _ => Ok(()),
    }
}
