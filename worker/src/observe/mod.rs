//! Measurements and reports of a run: steps of the record, telemetry, evaluations, logged values of the model's code.

mod device;
mod error;
pub(crate) mod evaluation;
pub(crate) mod importance;
mod inspect;
mod media;
mod non_finite;
mod outbox;
mod reporter;
pub(crate) mod usage;

pub use device::{device_name, parse_device};
pub(crate) use error::MeasureError;
pub(crate) use importance::MOST_FEATURES;
pub(crate) use inspect::{Inspection, model_report};
pub(crate) use media::MediaWriter;
pub(crate) use non_finite::NonFinite;
pub use outbox::{Closed, Message, Outbox};
pub use reporter::LogError;
pub(crate) use reporter::{LogSource, Phase, Reporter, StepNumbers};
