//! What a block of reports may lose, and what never.

use crate::ReportBlock;

impl ReportBlock {
    /// Lets go of the telemetry, and counts it in [`ReportBlock::dropped`]: the record, evaluations, fingerprints, what is
    /// trained and what is kept in the blob store stay. How many values that were.
    pub fn shed(&mut self) -> u64 {
        let shed = |count: usize| count as u64;
        let values = self.series.drain(..).map(|series| shed(series.values.len())).sum::<u64>()
            + shed(self.layers.drain(..).count())
            + shed(self.systems.drain(..).count())
            + shed(self.histograms.drain(..).count());
        self.dropped += values;
        values
    }

    /// The greatest step that anything in it names; 0 if nothing does.
    pub fn last_step(&self) -> u64 {
        let series = |series: &crate::Series| series.steps.iter().fold(0_u64, |step, more| step.saturating_add(*more));
        let steps = (self.steps.iter().map(|one| one.step))
            .chain(self.layers.iter().map(|one| one.step))
            .chain(self.evals.iter().map(|one| one.step))
            .chain(self.systems.iter().map(|one| one.step))
            .chain(self.fingerprints.iter().map(|one| one.step))
            .chain(self.histograms.iter().map(|one| one.step))
            .chain(self.media.iter().map(|one| one.step))
            .chain(self.series.iter().map(series));
        steps.max().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{EvalReport, HistogramReport, LayerReport, MediaReport, Series, StepReport, SystemReport};

    #[test]
    fn telemetry_goes_and_is_counted_and_the_record_stays() {
        let kept = ReportBlock {
            steps: vec![StepReport::default(); 3],
            evals: vec![EvalReport::default()],
            media: vec![MediaReport::default()],
            record_before: vec![7; 32],
            dropped: 5,
            ..ReportBlock::default()
        };
        let mut block = ReportBlock {
            layers: vec![LayerReport::default()],
            systems: vec![SystemReport::default(); 2],
            histograms: vec![HistogramReport::default()],
            series: vec![Series { values: vec![0.0; 10], ..Series::default() }],
            ..kept.clone()
        };
        assert_eq!((block.shed(), block.shed()), (14, 0));
        assert_eq!(block, ReportBlock { dropped: 19, ..kept });
    }
}
