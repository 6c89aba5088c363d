//! Mean and standard deviation of a table's column, by which its values are standardised.

/// A column is constant if all its training values are within this many units in the last place of their mean.
const CONSTANT_ULPS: f64 = 4.0;

/// Mean and deviation of a column: values are standardised by `(value - mean) / deviation`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Moments {
    /// The mean of the training values.
    pub(crate) mean: f64,
    /// Their standard deviation (of the population); 1 for a constant column.
    pub(crate) deviation: f64,
    /// Whether the training values are equal up to rounding.
    pub(crate) constant: bool,
}

impl Moments {
    /// The moments of training values: at least one, all finite. Sums are in the order of the values.
    ///
    /// # Errors
    /// The reason why the column cannot be standardised: a sum overflows, or squares underflow.
    pub(crate) fn of(values: impl Iterator<Item = f64> + Clone) -> Result<Self, &'static str> {
        let count = values.clone().count() as f64;
        if let Some(mean) = constant(values.clone(), count) {
            return Ok(Self { mean, deviation: 1.0, constant: true });
        }
        let mean = values.clone().sum::<f64>() / count;
        let variance = values.map(|value| (value - mean).powi(2)).sum::<f64>() / count;
        match (mean.is_finite(), variance.is_finite(), variance > 0.0) {
            (false, ..) => Err("the sum of the column's training values is not a finite 64-bit number"),
            (_, false, _) => Err("the variance of the column's training values is not a finite 64-bit number"),
            (.., false) => Err("the squares of the column's training values are too small for 64-bit numbers"),
            _ => Ok(Self { mean, deviation: variance.sqrt(), constant: false }),
        }
    }

    /// `value` standardised, in 64 bits.
    pub(crate) fn standardise(self, value: f64) -> f64 {
        (value - self.mean) / self.deviation
    }
}

/// The mean of a constant column; `None` if the column is not constant.
///
/// Sums the differences to the lowest value. In a constant column they are exact; a plain sum of a million equal values is wrong
/// by many units in the last place.
fn constant(values: impl Iterator<Item = f64> + Clone, count: f64) -> Option<f64> {
    let (low, high) = values.clone().fold((f64::MAX, f64::MIN), |(low, high), value| (value.min(low), value.max(high)));
    let mean = low + values.map(|value| value - low).sum::<f64>() / count;
    let ulp = mean.abs().next_up() - mean.abs();
    let near = |value: f64| (value - mean).abs() <= CONSTANT_ULPS * ulp;
    (near(low) && near(high)).then_some(mean)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: &[f64]) -> Result<Moments, &'static str> {
        Moments::of(values.iter().copied())
    }

    #[test]
    fn a_column_is_constant_within_four_units_in_the_last_place() {
        let ulp = 0.1_f64.next_up() - 0.1;
        for values in [vec![0.1; 50], vec![0.1; 1_000_000], vec![5.0], vec![0.0, -0.0], vec![-7.5; 3]] {
            assert_eq!(
                of(&values),
                Ok(Moments { mean: values[0], deviation: 1.0, constant: true }),
                "{} values",
                values.len()
            );
        }
        let near = of(&[0.1, 0.1 + 8.0 * ulp]).unwrap();
        assert_eq!(near, Moments { mean: 0.1 + 4.0 * ulp, deviation: 1.0, constant: true });
        let apart = of(&[0.1, 0.1 + 10.0 * ulp]).unwrap();
        assert!(apart.deviation > 0.0 && apart.deviation < 1e-15, "{apart:?}");
        assert_ne!(of(&[1.0, 1.0 + 1e-12]).unwrap().deviation, 1.0);
    }

    #[test]
    fn other_columns_have_the_moments_of_their_values_in_order() {
        // The formulas, in the order of the values: trained models depend on these bits.
        let values = [3.25, -1.0, 1e9, 0.1, 7.0];
        let mean = values.iter().sum::<f64>() / 5.0;
        let deviation = (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / 5.0).sqrt();
        assert_eq!(of(&values), Ok(Moments { mean, deviation, constant: false }));
        assert_eq!((mean.to_bits(), deviation.to_bits()), (0x41a7_d784_03bd_70a4, 0x41b7_d783_ff10_a3d7));
    }

    #[test]
    fn what_has_no_moments_in_64_bits_is_said() {
        assert!(of(&[1e308, 1e308, 1.0]).unwrap_err().contains("sum"));
        assert!(of(&[f64::MAX, f64::MIN]).unwrap_err().contains("variance"));
        assert!(of(&[1e200, 0.0]).unwrap_err().contains("variance"));
        assert!(of(&[1e-200, 0.0]).unwrap_err().contains("squares"));
    }
}
