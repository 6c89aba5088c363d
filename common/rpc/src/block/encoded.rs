//! An encoded block: the process encodes it once, and others forward the bytes.

use prost::Message;
use prost::bytes::Bytes;

use crate::{BlockHeader, EncodedBlock, ReportBlock};

impl BlockHeader {
    /// The header that describes `block`.
    pub(super) fn of(block: &ReportBlock) -> Self {
        let (first, last) = (block.steps.first(), block.steps.last());
        Self {
            first_step: first.map_or(0, |step| step.step),
            last_step: last.map_or(0, |step| step.step),
            loss: last.map_or(0, |step| step.loss),
            grad_norm: last.map_or(0, |step| step.grad_norm),
            micros: block.steps.iter().fold(0, |all, step| all.saturating_add(step.micros)),
            reach: block.last_step(),
            telemetry_values: block.telemetry_values().iter().sum(),
            dropped: block.dropped,
        }
    }
}

impl EncodedBlock {
    /// Encodes `block`: record and telemetry separately.
    pub fn of(mut block: ReportBlock) -> Self {
        let header = Some(BlockHeader::of(&block));
        block.dropped = 0;
        let telemetry = block.take_telemetry();
        Self { header, record: block.encode_to_vec().into(), telemetry: telemetry.encode_to_vec().into() }
    }

    /// The header; all zeros if the sender left it out.
    pub fn known(&self) -> BlockHeader {
        self.header.unwrap_or_default()
    }

    /// Bytes of record and telemetry together, without the header.
    pub fn num_bytes(&self) -> usize {
        self.record.len() + self.telemetry.len()
    }

    /// Drops the telemetry and counts it in the header. Returns the number of dropped values.
    pub fn drop_telemetry(&mut self) -> u64 {
        let header = self.header.get_or_insert_default();
        let values = std::mem::take(&mut header.telemetry_values);
        header.dropped = header.dropped.saturating_add(values);
        self.telemetry = Bytes::new();
        values
    }

    /// The stored form: one encoded `ReportBlock` that includes the header.
    pub fn into_stored(self) -> Vec<u8> {
        let header = ReportBlock { header: Some(self.known()), ..ReportBlock::default() };
        let mut bytes = Vec::with_capacity(header.encoded_len() + self.num_bytes());
        header.encode_raw(&mut bytes);
        bytes.extend_from_slice(&self.record);
        bytes.extend_from_slice(&self.telemetry);
        bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        EvalReport, HistogramReport, LayerReport, MediaReport, Series, StepReport, SystemReport, decode_block,
    };

    #[test]
    fn telemetry_goes_undecoded_and_is_counted_and_the_record_stays() {
        let step = |step| StepReport { step, micros: 5, loss: step, ..StepReport::default() };
        let kept = ReportBlock {
            steps: vec![step(7), step(8)],
            evals: vec![EvalReport { step: 8, ..EvalReport::default() }],
            media: vec![MediaReport { step: 9, ..MediaReport::default() }],
            record_before: vec![7; 32],
            dropped: 5,
            ..ReportBlock::default()
        };
        let whole = ReportBlock {
            layers: vec![LayerReport::default()],
            systems: vec![SystemReport::default(); 2],
            histograms: vec![HistogramReport::default()],
            series: vec![Series { steps: vec![11], values: vec![0.0; 10], ..Series::default() }],
            ..kept.clone()
        };
        let mut encoded = EncodedBlock::of(whole.clone());
        let known = encoded.known();
        assert_eq!((known.first_step, known.last_step, known.loss, known.micros), (7, 8, 8, 10));
        assert_eq!((known.reach, known.telemetry_values, known.dropped), (11, 14, 5));
        assert_eq!(decode_block(0, &encoded.clone().into_stored()).unwrap().block, whole);
        assert_eq!((encoded.drop_telemetry(), encoded.drop_telemetry()), (14, 0));
        assert_eq!(decode_block(0, &encoded.into_stored()).unwrap().block, ReportBlock { dropped: 19, ..kept });
    }
}
