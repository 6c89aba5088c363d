//! A run's reports: stored blocks without the steps that were rolled back.

use lockstep_rpc::ReportBlock;
use prost::Message;

use crate::store::StoredBlock;

/// What remains of a stored block.
///
/// # Errors
/// The bytes are no `ReportBlock`: the disk is damaged.
pub fn trimmed(stored: &StoredBlock) -> Result<ReportBlock, prost::DecodeError> {
    let mut block = ReportBlock::decode(stored.bytes.as_slice())?;
    block.process = stored.process;
    if let Some(cut) = stored.cut {
        block.steps.retain(|report| report.step <= cut);
        block.layers.retain(|report| report.step <= cut);
        block.evals.retain(|report| report.step <= cut);
        block.systems.retain(|report| report.step <= cut);
        block.fingerprints.retain(|report| report.step <= cut);
        block.histograms.retain(|report| report.step <= cut);
        block.media.retain(|report| report.step <= cut);
        for series in &mut block.series {
            let kept = series.points().take_while(|point| point.step <= cut).count();
            series.steps.truncate(kept);
            series.at_ms.truncate(kept);
            series.values.truncate(kept);
        }
        block.series.retain(|series| !series.values.is_empty());
    }
    Ok(block)
}

/// Whether nothing remains.
pub fn is_empty(block: &ReportBlock) -> bool {
    block.steps.is_empty()
        && block.layers.is_empty()
        && block.evals.is_empty()
        && block.systems.is_empty()
        && block.fingerprints.is_empty()
        && block.series.is_empty()
        && block.histograms.is_empty()
        && block.media.is_empty()
        && block.model.is_none()
}

#[cfg(test)]
mod tests {
    use lockstep_common::series::{Point, SeriesKey};
    use lockstep_rpc::{
        EvalReport, FingerprintReport, HistogramReport, LayerReport, MediaReport, Series, StepReport, SystemReport,
    };

    use super::*;

    fn point(step: u64) -> Point {
        Point { step, at_ms: 7, value: 0.5 }
    }

    fn stored(cut: Option<u64>) -> StoredBlock {
        let block = ReportBlock {
            process: 0,
            steps: (1..=4).map(|step| StepReport { step, ..StepReport::default() }).collect(),
            layers: vec![LayerReport { step: 4, ..LayerReport::default() }],
            evals: vec![EvalReport { step: 2, ..EvalReport::default() }],
            systems: vec![SystemReport { step: 4, ..SystemReport::default() }],
            fingerprints: vec![FingerprintReport { step: 3, ..FingerprintReport::default() }],
            series: vec![Series::of_points(&SeriesKey::whole("mine"), &[1, 3, 4].map(point))],
            histograms: vec![HistogramReport { step: 3, ..HistogramReport::default() }],
            media: vec![MediaReport { step: 2, ..MediaReport::default() }],
            ..ReportBlock::default()
        };
        StoredBlock { index: 1, process: 2, cut, bytes: block.encode_to_vec() }
    }

    #[test]
    fn rolled_back_steps_are_left_out_of_every_kind_of_report() {
        let whole = trimmed(&stored(None)).unwrap();
        assert_eq!((whole.steps.len(), whole.layers.len(), whole.process), (4, 1, 2));
        let cut = trimmed(&stored(Some(2))).unwrap();
        assert_eq!(cut.steps.iter().map(|report| report.step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((cut.layers.len(), cut.evals.len(), cut.systems.len(), cut.fingerprints.len()), (0, 1, 0, 0));
        assert_eq!((cut.histograms.len(), cut.media.len(), cut.series[0].values.len()), (0, 1, 1));
        assert!(is_empty(&trimmed(&stored(Some(0))).unwrap()) && !is_empty(&cut));
        assert!(trimmed(&StoredBlock { bytes: vec![0xff; 9], ..stored(None) }).is_err());
    }
}
