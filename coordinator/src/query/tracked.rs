//! Documents of a run's metrics, media, model and alarms: for the page, for `--json` and for the API.

use std::collections::BTreeMap;

use lockstep_common::RunId;
use lockstep_common::series::SeriesKey;
use lockstep_rpc::tracked_query::What;
use lockstep_rpc::{CurvesQuery, ModelReport};
use lockstep_tracking::{Drawn, Media, Query, SeriesSummary, Tracking, TrackingError};
use serde_json::{Value, json};

/// Default number of points per curve.
const PIXELS: usize = 1000;
/// Maximum number of points per curve: more than the width of a screen. Bounds the size of a document.
const MOST_PIXELS: usize = 20_000;
/// Maximum number of histograms in a document. If there are more, the document has every second, third, .. of them.
const HISTOGRAMS: usize = 100;
/// Bars per histogram.
const BARS: usize = 80;
/// Maximum depth of a model's tree. Deeper levels share one name.
const DEPTH: usize = 64;

/// The document that answers `what` about `run`.
pub fn answer(tracking: &Tracking, run: &RunId, what: What) -> Result<Value, TrackingError> {
    Ok(match what {
        What::Series(branch) => {
            let series = tracking.series(run, branch)?;
            let series: Vec<Value> = series.iter().map(|(key, summary)| series_row(key, summary)).collect();
            let branches = tracking.branches(run)?;
            json!({ "series": series, "branches": branches, "dropped": tracking.dropped(run)? })
        }
        What::Curves(query) => json!({ "series": curves(tracking, run, &query)? }),
        What::Histograms(name) if name.is_empty() => json!({ "names": tracking.histogram_names(run)? }),
        What::Histograms(name) => {
            let all = tracking.histograms(run, &name)?;
            let every = all.len().div_ceil(HISTOGRAMS).max(1);
            // From the end, so that the latest histogram is always included.
            let chosen = all.iter().rev().step_by(every).collect::<Vec<_>>();
            let item = |histogram: &lockstep_common::series::Histogram| {
                let (edges, counts) = histogram.bars(BARS);
                json!({
                    "step": histogram.step, "at_ms": histogram.at_ms, "count": histogram.count, "zeros": histogram.zeros,
                    "nans": histogram.nans, "infs": histogram.infs, "min": histogram.min, "max": histogram.max,
                    "mean": histogram.mean, "std": histogram.std, "edges": edges, "counts": counts,
                })
            };
            json!({ "name": name, "items": chosen.into_iter().rev().map(item).collect::<Vec<_>>() })
        }
        What::Media(_) => tracking.media(run)?.iter().map(media).collect(),
        What::Model(_) => tracking.model(run)?.map_or(Value::Null, |model| tree(&model)),
        What::Alarms(_) => json!(tracking.alarms(run)?),
    })
}

fn series_row(key: &SeriesKey, summary: &SeriesSummary) -> Value {
    json!({
        "name": key.name, "part": key.part, "count": summary.count,
        "first_step": summary.first_step, "last_step": summary.last_step,
        "first_ms": summary.first_ms, "last_ms": summary.last_ms,
        // NaN and infinity become null, because JSON has neither.
        "last": summary.last, "min": summary.min, "max": summary.max,
    })
}

/// The curves that `query` names.
fn curves(tracking: &Tracking, run: &RunId, query: &CurvesQuery) -> Result<Vec<Value>, TrackingError> {
    let pixels = if query.pixels == 0 { PIXELS } else { (query.pixels as usize).min(MOST_PIXELS) };
    let drawing = Query { branch: query.branch, from: query.from, to: query.to.unwrap_or(u64::MAX), pixels };
    let named = |key: &SeriesKey| {
        let one = |name: &String| match name.strip_suffix('*') {
            Some(beginning) => key.name.starts_with(beginning),
            None => key.name == *name,
        };
        (query.names.is_empty() || query.names.iter().any(one)) && (query.part.is_none() || query.part == key.part)
    };
    let mut drawn = Vec::new();
    for key in tracking.series(run, query.branch)?.into_keys().filter(named) {
        if let Some(curve) = tracking.curve(run, &key, &drawing)? {
            drawn.push(curve_document(&key, &curve));
        }
    }
    Ok(drawn)
}

fn curve_document(key: &SeriesKey, curve: &Drawn) -> Value {
    let Drawn { exact, steps, at_ms, values, min, max } = curve;
    let mut document = json!({
        "name": key.name, "part": key.part, "exact": exact, "steps": steps, "times_ms": at_ms, "values": values,
    });
    if !exact && let Some(document) = document.as_object_mut() {
        document.insert("min".to_owned(), json!(min));
        document.insert("max".to_owned(), json!(max));
    }
    document
}

fn media(media: &Media) -> Value {
    let (url, bytes) = match &media.blob {
        Some((digest, bytes)) => (Some(format!("/api/blobs/{digest}")), Some(bytes)),
        None => (None, None),
    };
    json!({
        "name": media.name, "step": media.step, "at_ms": media.at_ms, "kind": media.kind,
        "text": (media.kind == "text" && url.is_none()).then_some(&media.text),
        "url": url, "bytes": bytes, "file_name": media.file_name,
    })
}

/// A module of a model. Dots in the parameters' names separate the levels.
#[derive(Default)]
struct Module {
    parameters: i64,
    shape: Option<Vec<i64>>,
    trainable: bool,
    children: Vec<(String, Module)>,
    /// Index in `children`, by name.
    places: BTreeMap<String, usize>,
}

impl Module {
    fn add(&mut self, path: &[&str], shape: &[i64], trainable: bool) {
        let count = shape.iter().fold(1_i64, |count, length| count.saturating_mul(*length));
        self.parameters = self.parameters.saturating_add(if trainable { count } else { 0 });
        let Some((name, rest)) = path.split_first() else {
            (self.shape, self.trainable) = (Some(shape.to_vec()), trainable);
            return;
        };
        let next = self.children.len();
        let at = *self.places.entry((*name).to_owned()).or_insert(next);
        if at == next {
            self.children.push(((*name).to_owned(), Self::default()));
        }
        self.children[at].1.add(rest, shape, trainable);
    }

    fn document(&self, name: &str) -> Value {
        let children: Vec<Value> = self.children.iter().map(|(name, child)| child.document(name)).collect();
        let mut document = BTreeMap::from([
            ("name", json!(name)),
            ("parameters", json!(self.parameters)),
            ("children", json!(children)),
        ]);
        if let Some(shape) = &self.shape {
            document.extend([("shape", json!(shape)), ("trainable", json!(self.trainable))]);
        }
        json!(document)
    }
}

fn tree(model: &ModelReport) -> Value {
    let mut root = Module::default();
    for parameter in &model.parameters {
        let path: Vec<&str> = parameter.name.splitn(DEPTH, '.').collect();
        root.add(&path, &parameter.shape, parameter.trainable);
    }
    json!({ "kind": model.kind, "parameters": root.parameters, "tree": root.document("") })
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::ParameterReport;

    use super::*;

    #[test]
    fn a_model_is_a_tree_by_the_dots_of_its_names() {
        let parameter = |name: &str, shape: &[i64], trainable| ParameterReport {
            name: name.to_owned(),
            shape: shape.to_vec(),
            trainable,
        };
        let parameters = vec![
            parameter("l1.weight", &[2, 3], true),
            parameter("l1.bias", &[2], true),
            parameter("bn.mean", &[2], false),
        ];
        let document = tree(&ModelReport { kind: "mlp".to_owned(), parameters });
        assert_eq!((&document["parameters"], &document["tree"]["children"][0]["parameters"]), (&json!(8), &json!(8)));
        let bias = &document["tree"]["children"][0]["children"][1];
        assert_eq!(*bias, json!({"name": "bias", "parameters": 2, "children": [], "shape": [2], "trainable": true}));
        assert_eq!(document["tree"]["children"][1]["children"][0]["trainable"], json!(false));
    }

    #[test]
    fn a_model_that_cannot_be_is_shown_all_the_same() {
        let parameter = |name: String, shape: &[i64]| ParameterReport { name, shape: shape.to_vec(), trainable: true };
        let deep = parameter("a.".repeat(100_000), &[1]);
        let huge = [parameter("h".to_owned(), &[i64::MAX, 2]), parameter("i".to_owned(), &[i64::MAX])];
        let many = (0..50_000).map(|index| parameter(format!("m{index}"), &[1]));
        let parameters = many.chain([deep]).chain(huge).collect();
        let document = tree(&ModelReport { kind: "lie".to_owned(), parameters });
        assert_eq!(document["parameters"], json!(i64::MAX));
        assert_eq!(document["tree"]["children"].as_array().unwrap().len(), 50_003);
    }
}
