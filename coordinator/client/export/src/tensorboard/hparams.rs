//! A run's parameters and end for the plugin `hparams`.
//!
//! Source: `plugin_data.proto` and `api.proto` of `tensorboard/plugins/hparams`. There is no event of an experiment: TensorBoard
//! takes the first one that it finds for all runs beside it, and without one it gathers parameters and metrics from them all.

use std::collections::BTreeMap;

use prost::Message as _;

use super::event::{Dim, FLOAT, Metadata, Shape, Tensor, Value};
use crate::{Run, Status};

/// Where the plugin looks for a run's parameters.
const START_TAG: &str = "_hparams_/session_start_info";

/// Where it looks for its end.
pub(super) const END_TAG: &str = "_hparams_/session_end_info";

/// Integers beyond are not all `f64`s.
const EXACT: i128 = 1 << 53;

#[derive(Clone, PartialEq, prost::Message)]
struct PluginData {
    #[prost(message, optional, tag = "3")]
    session_start_info: Option<SessionStart>,
    #[prost(message, optional, tag = "4")]
    session_end_info: Option<SessionEnd>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct SessionStart {
    #[prost(btree_map = "string, message", tag = "1")]
    hparams: BTreeMap<String, Parameter>,
    #[prost(double, tag = "5")]
    start_time_secs: f64,
}

#[derive(Clone, Copy, PartialEq, prost::Message)]
struct SessionEnd {
    #[prost(int32, tag = "1")]
    status: i32,
    #[prost(double, tag = "2")]
    end_time_secs: f64,
}

/// `google.protobuf.Value`.
#[derive(Clone, PartialEq, prost::Message)]
struct Parameter {
    #[prost(double, optional, tag = "2")]
    number: Option<f64>,
    #[prost(string, optional, tag = "3")]
    string: Option<String>,
    #[prost(bool, optional, tag = "4")]
    bool: Option<bool>,
}

/// The parameters of `run`.
pub(super) fn start(run: &Run) -> Value {
    let hparams = run.parameters.iter().map(|(name, value)| (name.clone(), parameter(value))).collect();
    let start_time_secs = run.started_at_ms.unwrap_or(0) as f64 / 1e3;
    let session_start_info = Some(SessionStart { hparams, start_time_secs });
    value(START_TAG, &PluginData { session_start_info, session_end_info: None })
}

/// The end of `run`; none if it has not ended.
pub(super) fn end(run: &Run) -> Option<Value> {
    let status = match run.status {
        Status::Running => return None,
        Status::Finished => 1,
        Status::Failed | Status::Cancelled => 2,
    };
    let end_time_secs = run.ended_at_ms.unwrap_or(0) as f64 / 1e3;
    let session_end_info = Some(SessionEnd { status, end_time_secs });
    Some(value(END_TAG, &PluginData { session_start_info: None, session_end_info }))
}

/// The plugin reads the metadata only, but wants a tensor: the smallest.
fn value(tag: &str, data: &PluginData) -> Value {
    let shape = Some(Shape { dim: vec![Dim { size: 0 }] });
    let tensor = Tensor { dtype: FLOAT, shape, string_val: Vec::new() };
    let metadata = Some(Metadata::of("hparams", data.encode_to_vec()));
    Value { tag: tag.to_owned(), tensor: Some(tensor), metadata, ..Value::default() }
}

/// Numbers can be filtered and drawn as axes, so what is exactly a number becomes one.
fn parameter(text: &str) -> Parameter {
    let is_exact = text.parse::<i128>().is_ok_and(|integer| integer.abs() <= EXACT) || text.contains(['.', 'e', 'E']);
    match (text.parse::<f64>(), text.parse::<bool>()) {
        (Ok(number), _) if number.is_finite() && is_exact => Parameter { number: Some(number), ..Parameter::default() },
        (_, Ok(bool)) => Parameter { bool: Some(bool), ..Parameter::default() },
        _ => Parameter { string: Some(text.to_owned()), ..Parameter::default() },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_exactly_a_number_becomes_one() {
        for (text, number) in
            [("0.1", 0.1), ("1e-3", 1e-3), ("-7", -7.0), ("9007199254740992", 9_007_199_254_740_992.0)]
        {
            assert_eq!(parameter(text).number, Some(number), "{text}");
        }
        for text in ["9007199254740993", "nan", "inf", "infinity", "1e999", "", "0x10", "adam"] {
            assert_eq!(parameter(text).string.as_deref(), Some(text));
        }
        assert_eq!(parameter("true").bool, Some(true));
    }
}
