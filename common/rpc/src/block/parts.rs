//! The kinds of reports in a block. Code that treats all kinds alike iterates over this table. A new kind is declared here, and is
//! otherwise known only to the code that measures it and to the code that displays it.

use std::any::Any;

use crate::{
    EvalReport, FingerprintReport, HistogramReport, LayerReport, MediaReport, ReportBlock, Series, StepReport,
    SystemReport,
};

/// One report of some kind.
trait Part: Any {
    /// The most values of this kind that a process keeps while they cannot be sent; it drops the oldest ones. `None` for the record,
    /// which is never dropped.
    const TELEMETRY: Option<u64> = None;

    /// The greatest step that this report names.
    fn last_step(&self) -> u64;

    /// Removes values of steps after `cut`. Returns whether anything remains.
    fn keep_until(&mut self, cut: u64) -> bool {
        self.last_step() <= cut
    }

    /// Number of values in this report.
    fn values(&self) -> u64 {
        1
    }
}

impl Part for StepReport {
    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for EvalReport {
    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for FingerprintReport {
    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for MediaReport {
    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for LayerReport {
    const TELEMETRY: Option<u64> = Some(u64::MAX);

    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for SystemReport {
    const TELEMETRY: Option<u64> = Some(60);

    fn last_step(&self) -> u64 {
        self.step
    }
}

/// A histogram takes some hundred bytes, hence the lower limit.
impl Part for HistogramReport {
    const TELEMETRY: Option<u64> = Some(4096);

    fn last_step(&self) -> u64 {
        self.step
    }
}

impl Part for Series {
    const TELEMETRY: Option<u64> = Some(100_000);

    fn last_step(&self) -> u64 {
        self.steps.iter().fold(0, |step: u64, more| step.saturating_add(*more))
    }

    fn keep_until(&mut self, cut: u64) -> bool {
        let kept = self.points().take_while(|point| point.step <= cut).count();
        self.steps.truncate(kept);
        self.at_ms.truncate(kept);
        self.values.truncate(kept);
        kept > 0
    }

    fn values(&self) -> u64 {
        self.values.len() as u64
    }
}

/// All reports of one kind, oldest first.
pub(super) trait Parts {
    /// As [`Part::TELEMETRY`].
    fn telemetry(&self) -> Option<u64>;
    fn is_empty(&self) -> bool;
    fn last_step(&self) -> u64;
    fn values(&self) -> u64;
    fn keep_until(&mut self, cut: u64);
    /// Drops the oldest reports until at most `kept` values remain. Returns the number of dropped values.
    fn drop_oldest(&mut self, kept: u64) -> u64;
    /// Moves all reports of `more`, which must be of the same kind, to the end.
    fn append(&mut self, more: &mut dyn Any);
    fn as_any(&mut self) -> &mut dyn Any;
}

impl<P: Part> Parts for Vec<P> {
    fn telemetry(&self) -> Option<u64> {
        P::TELEMETRY
    }

    fn is_empty(&self) -> bool {
        Self::is_empty(self)
    }

    fn last_step(&self) -> u64 {
        self.iter().map(Part::last_step).max().unwrap_or(0)
    }

    fn values(&self) -> u64 {
        self.iter().map(Part::values).sum()
    }

    fn keep_until(&mut self, cut: u64) {
        self.retain_mut(|part| part.keep_until(cut));
    }

    fn drop_oldest(&mut self, kept: u64) -> u64 {
        let all = Parts::values(self);
        let (mut gone, mut left) = (0, all);
        while left > kept {
            left -= self[gone].values();
            gone += 1;
        }
        self.drain(..gone);
        all - left
    }

    fn append(&mut self, more: &mut dyn Any) {
        if let Some(more) = more.downcast_mut::<Self>() {
            Self::append(self, more);
        }
    }

    fn as_any(&mut self) -> &mut dyn Any {
        self
    }
}

macro_rules! kinds {
    ($($kind:ident),*) => {
        /// Number of kinds of reports in a block.
        pub const KINDS: usize = [$(stringify!($kind)),*].len();

        impl ReportBlock {
            pub(super) fn parts(&self) -> [&dyn Parts; KINDS] {
                let Self { $($kind,)* process: _, record_before: _, model: _, dropped: _, header: _ } = self;
                [$($kind),*]
            }

            pub(super) fn parts_mut(&mut self) -> [&mut dyn Parts; KINDS] {
                [$(&mut self.$kind),*]
            }
        }
    };
}

kinds!(steps, layers, evals, systems, fingerprints, series, histograms, media);

impl ReportBlock {
    /// Whether the block has no reports.
    pub fn is_empty(&self) -> bool {
        self.model.is_none() && self.parts().iter().all(|kind| kind.is_empty())
    }

    /// The greatest step that a report in the block names; 0 if there is none.
    pub fn last_step(&self) -> u64 {
        self.parts().iter().map(|kind| kind.last_step()).max().unwrap_or(0)
    }

    /// Removes reports of steps after `cut`.
    pub fn keep_until(&mut self, cut: u64) {
        self.parts_mut().into_iter().for_each(|kind| kind.keep_until(cut));
    }

    /// Number of telemetry values by kind; 0 for kinds of the record.
    pub fn telemetry_values(&self) -> [u64; KINDS] {
        self.parts().map(|kind| kind.telemetry().map_or(0, |_| kind.values()))
    }

    /// Whether the numbers of telemetry `values`, by kind, are more than twice the limit of a kind, so that [`ReportBlock::trim`] is due.
    pub fn is_twice_too_much(&self, values: &[u64; KINDS]) -> bool {
        let kept = self.parts().map(|kind| kind.telemetry().unwrap_or(u64::MAX));
        values.iter().zip(kept).any(|(values, kept)| *values > kept.saturating_mul(2))
    }

    /// Drops the oldest telemetry beyond the limit of each kind, and counts it in [`ReportBlock::dropped`].
    pub fn trim(&mut self) {
        let dropped: u64 =
            self.parts_mut().into_iter().map(|kind| kind.telemetry().map_or(0, |kept| kind.drop_oldest(kept))).sum();
        self.dropped += dropped;
    }

    /// Appends all reports of `more`.
    pub fn append(&mut self, mut more: Self) {
        if self.steps.is_empty() {
            self.record_before = std::mem::take(&mut more.record_before);
        }
        self.model = more.model.take().or(self.model.take());
        self.dropped += more.dropped;
        for (kind, more) in self.parts_mut().into_iter().zip(more.parts_mut()) {
            kind.append(more.as_any());
        }
    }

    /// Moves the telemetry into a block of its own.
    pub(super) fn take_telemetry(&mut self) -> Self {
        let mut taken = Self::default();
        for (kind, taken) in self.parts_mut().into_iter().zip(taken.parts_mut()) {
            if kind.telemetry().is_some() {
                taken.append(kind.as_any());
            }
        }
        taken
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::series::{Point, SeriesKey};

    use super::*;

    fn many(name: &str, values: usize) -> Series {
        Series { name: name.to_owned(), values: vec![0.0; values], ..Series::default() }
    }

    #[test]
    fn a_joined_block_names_what_its_first_step_follows() {
        let mut last = ReportBlock { systems: vec![SystemReport::default()], ..ReportBlock::default() };
        let steps = |step: u64| ReportBlock {
            steps: vec![StepReport { step, ..StepReport::default() }],
            record_before: vec![step as u8],
            ..ReportBlock::default()
        };
        last.append(steps(7));
        last.append(steps(8));
        assert_eq!((last.record_before.as_slice(), last.steps.len(), last.systems.len()), ([7].as_slice(), 2, 1));
    }

    #[test]
    fn the_oldest_telemetry_goes_first_and_is_counted_and_the_record_stays() {
        let kept = 100_000;
        let mut block = ReportBlock {
            steps: vec![StepReport::default(); 200_000],
            series: vec![many("old", kept), many("new", kept)],
            systems: (0..100).map(|step| SystemReport { step, ..SystemReport::default() }).collect(),
            ..ReportBlock::default()
        };
        assert!(!block.is_twice_too_much(&block.telemetry_values()));
        block.series.push(many("newest", 1));
        assert!(block.is_twice_too_much(&block.telemetry_values()));
        block.series.pop();
        block.trim();
        assert_eq!((block.series.len(), block.series[0].name.as_str()), (1, "new"));
        assert_eq!((block.systems.len(), block.systems[0].step, block.steps.len()), (60, 40, 200_000));
        assert_eq!(block.dropped, kept as u64 + 40);
    }

    #[test]
    fn rolled_back_steps_are_left_out_of_every_kind_of_report() {
        let point = |step| Point { step, at_ms: 7, value: 0.5 };
        let whole = ReportBlock {
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
        let until = |cut| {
            let mut block = whole.clone();
            block.keep_until(cut);
            block
        };
        assert_eq!(until(4), whole);
        let cut = until(2);
        assert_eq!(cut.steps.iter().map(|report| report.step).collect::<Vec<_>>(), [1, 2]);
        assert_eq!((cut.layers.len(), cut.evals.len(), cut.systems.len(), cut.fingerprints.len()), (0, 1, 0, 0));
        assert_eq!((cut.histograms.len(), cut.media.len(), cut.series[0].values.len()), (0, 1, 1));
        assert!(until(0).is_empty() && !cut.is_empty());
    }
}
