//! The norm of the mean gradient. Hot: one pass over all gradients at every step.

use lockstep_tch_ext::{Error, fold};
use tch::Tensor;

/// The L2 norm of the flat tensor `gradients`, summed in 64 bits. On the CPU the order of additions depends only on the length.
pub fn norm(gradients: &Tensor) -> Result<f64, Error> {
    Ok(fold::norm(gradients)?.f_double_value(&[])?)
}

#[cfg(test)]
mod tests {
    use tch::{Device, Kind};

    use super::*;

    #[test]
    fn every_element_counts_once_whatever_the_length() {
        for length in [0, 1, 15, 16, 17, 1000] {
            let values: Vec<f32> = (0..length).map(|index| (index as f32 - 3.5) * 0.25).collect();
            let exact: f64 = values.iter().map(|value| f64::from(*value).powi(2)).sum();
            let found = norm(&Tensor::from_slice(&values)).unwrap();
            assert!((found - exact.sqrt()).abs() <= 1e-12 * exact.sqrt(), "{length}: {found} {}", exact.sqrt());
        }
        assert!(norm(&Tensor::from_slice(&[1.0_f32, f32::NAN])).unwrap().is_nan());
        assert_eq!(
            norm(&Tensor::from_slice(&[f32::MAX, f32::MAX])).unwrap(),
            (2.0 * f64::from(f32::MAX).powi(2)).sqrt()
        );
    }

    #[test]
    fn other_types_take_the_general_way() {
        let values = Tensor::from_slice(&[3.0_f64, 4.0]);
        assert_eq!(norm(&values).unwrap(), 5.0);
        assert_eq!(norm(&values.to_kind(Kind::Float).to_device(Device::Cpu)).unwrap(), 5.0);
    }
}
