//! Points in columns, and their compressed form: steps, times and the bits of values, each by `pco`.

use lockstep_common::series::Point;
use pco::ChunkConfig;
use pco::standalone::{simple_compress, simple_decompress};

use crate::bucket::{Bucket, group};

/// Points of a full chunk.
pub(crate) const CHUNK: usize = 4096;
/// Points of a bucket of the level above.
pub(crate) const BUCKET: usize = 64;

/// Of `pco`: 0 to 12, of which 8 is its default; at 4 it takes half the time for 3 % more bytes.
const LEVEL: usize = 4;

/// Points in columns.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Columns {
    pub(crate) steps: Vec<u64>,
    pub(crate) at_ms: Vec<u64>,
    pub(crate) values: Vec<f64>,
}

impl Columns {
    pub(crate) fn len(&self) -> usize {
        self.steps.len()
    }

    pub(crate) fn push(&mut self, point: &Point) {
        self.steps.push(point.step);
        self.at_ms.push(point.at_ms);
        self.values.push(point.value);
    }

    pub(crate) fn points(&self) -> impl Iterator<Item = Point> {
        let values = self.at_ms.iter().zip(&self.values);
        self.steps.iter().zip(values).map(|(&step, (&at_ms, &value))| Point { step, at_ms, value })
    }

    /// All in one; `None` if there are none.
    pub(crate) fn bucket(&self) -> Option<Bucket> {
        group(self.points().map(|point| Bucket::of(&point)), |_| 0).pop()
    }

    /// The level above.
    pub(crate) fn buckets(&self) -> Vec<Bucket> {
        let mut place = 0;
        group(self.points().map(|point| Bucket::of(&point)), |_| {
            place += 1;
            (place - 1) / BUCKET as u64
        })
    }

    /// The points after `step`, which are taken away.
    pub(crate) fn split_after(&mut self, step: u64) -> Self {
        let at = self.steps.partition_point(|own| *own <= step);
        Self { steps: self.steps.split_off(at), at_ms: self.at_ms.split_off(at), values: self.values.split_off(at) }
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let config = ChunkConfig::default().with_compression_level(LEVEL);
        let bits: Vec<u64> = self.values.iter().map(|value| value.to_bits()).collect();
        // As numbers if they all are, which `pco` knows more about; NaNs keep their bits as integers only.
        let plain = self.values.iter().all(|value| !value.is_nan());
        let values = if plain { simple_compress(&self.values, &config) } else { simple_compress(&bits, &config) };
        let parts = [simple_compress(&self.steps, &config), simple_compress(&self.at_ms, &config), values];
        let mut bytes = vec![u8::from(plain)];
        for part in parts.map(column_bytes) {
            bytes.extend_from_slice(&(part.len() as u32).to_le_bytes());
            bytes.extend_from_slice(&part);
        }
        bytes
    }

    /// Reads what [`Columns::encode`] wrote; `None` if that did not.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Self> {
        let (&plain, mut rest) = bytes.split_first()?;
        let mut part = || {
            let (length, after) = rest.split_first_chunk::<4>()?;
            let (part, after) = after.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            rest = after;
            Some(part)
        };
        let steps: Vec<u64> = simple_decompress(part()?).ok()?;
        let at_ms: Vec<u64> = simple_decompress(part()?).ok()?;
        let values = if plain == 1 {
            simple_decompress(part()?).ok()?
        } else {
            let bits: Vec<u64> = simple_decompress(part()?).ok()?;
            bits.into_iter().map(f64::from_bits).collect()
        };
        let columns = Self { steps, at_ms, values };
        (columns.at_ms.len() == columns.len() && columns.values.len() == columns.len()).then_some(columns)
    }
}

fn column_bytes(compressed: pco::errors::PcoResult<Vec<u8>>) -> Vec<u8> {
    compressed.expect("the configuration is valid, and writing to memory does not fail")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn columns(count: u64, value: impl Fn(u64) -> f64) -> Columns {
        let mut columns = Columns::default();
        for step in 0..count {
            columns.push(&Point { step, at_ms: 1_795_682_816_000 + 7 * step, value: value(step) });
        }
        columns
    }

    proptest! {
        #[test]
        fn every_bit_comes_back(
            values in proptest::collection::vec(any::<u64>(), 1..200),
            damage in any::<prop::sample::Index>(),
        ) {
            let written = columns(values.len() as u64, |step| f64::from_bits(values[step as usize]));
            let bytes = written.encode();
            let read = Columns::decode(&bytes).unwrap();
            let bits = |columns: &Columns| columns.values.iter().map(|value| value.to_bits()).collect::<Vec<_>>();
            prop_assert_eq!(bits(&read), values);
            prop_assert_eq!((&read.steps, &read.at_ms), (&written.steps, &written.at_ms));
            let mut damaged = bytes.clone();
            damaged[damage.index(bytes.len())] ^= 0x55;
            let _ = Columns::decode(&damaged);
            prop_assert!(Columns::decode(&bytes[..damage.index(bytes.len())]).is_none());
        }
    }

    #[test]
    fn steps_and_times_of_a_steady_run_take_next_to_nothing() {
        let bytes = columns(CHUNK as u64, |_| 1.5).encode();
        assert!(bytes.len() < 300, "{}", bytes.len());
        let buckets = columns(CHUNK as u64, |step| step as f64).buckets();
        assert_eq!((buckets.len(), buckets[1].first_step, buckets[1].max), (CHUNK / BUCKET, 64, 127.0));
    }

    #[test]
    fn a_split_keeps_what_is_up_to_the_step() {
        let mut kept = columns(10, |step| step as f64);
        let gone = kept.split_after(6);
        assert_eq!((kept.steps.last(), gone.steps.first(), gone.len()), (Some(&6), Some(&7), 3));
    }
}
