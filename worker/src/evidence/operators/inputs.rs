//! Inputs for operators. They come from integer arithmetic alone, so that neither a generator nor rounding can change them.

use tch::{TchError, Tensor};

/// The range of the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Of {
    /// Uniform between -1 and 1.
    Unit,
    /// Of many magnitudes, up to about 64. Of each 16 numbers one is subnormal, one is 0 and one is far below 1.
    Mixed,
    /// The magnitudes of `Mixed`, all greater than 0.
    Positive,
}

/// A tensor of `shape`. Tensors with different seeds have different numbers.
pub(super) fn tensor(of: Of, shape: &[i64], seed: u64) -> Result<Tensor, TchError> {
    let count = shape.iter().product::<i64>() as u64;
    let values: Vec<f32> = (0..count).map(|index| value(of, index, seed)).collect();
    Tensor::f_from_slice(&values)?.f_view(shape)
}

/// Integers from 0 to `most - 1`.
pub(super) fn indices(most: u64, shape: &[i64], seed: u64) -> Result<Tensor, TchError> {
    let count = shape.iter().product::<i64>() as u64;
    let values: Vec<i64> = (0..count).map(|index| (mix(index, seed) % most) as i64).collect();
    Tensor::f_from_slice(&values)?.f_view(shape)
}

fn value(of: Of, index: u64, seed: u64) -> f32 {
    let bits = mix(index, seed);
    // 24 bits, so that the quotient is exact.
    let unit = (bits >> 40) as f32 / 8_388_608.0 - 1.0;
    let mixed = match index % 16 {
        3 => f32::from_bits((bits >> 41) as u32),
        7 => 0.0,
        11 => f32::from_bits(((bits >> 41) as u32) | 20 << 23),
        12 | 13 => unit * 64.0,
        _ => unit * 4.0,
    };
    match of {
        Of::Unit => unit,
        Of::Mixed => mixed,
        Of::Positive => mixed.abs().max(f32::from_bits(1)),
    }
}

/// The finaliser of `SplitMix64`.
fn mix(index: u64, seed: u64) -> u64 {
    let mut bits = (index + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ seed.wrapping_mul(0xd6e8_feb8_6659_fd93);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mixed_numbers_are_subnormal_zero_large_and_negative_and_none_is_not_finite() {
        let values: Vec<f32> = (0..4096).map(|index| value(Of::Mixed, index, 1)).collect();
        assert!(values.iter().all(|value| value.is_finite()));
        assert!(values.iter().any(|value| value.is_subnormal()) && values.contains(&0.0));
        assert!(values.iter().any(|value| *value < -30.0) && values.iter().any(|value| *value > 30.0));
        assert!((0..4096).all(|index| value(Of::Positive, index, 1) > 0.0));
        assert_ne!(value(Of::Unit, 0, 1).to_bits(), value(Of::Unit, 0, 2).to_bits());
    }
}
