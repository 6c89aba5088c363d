//! Statistics that a few outliers do not move, and the format of numbers in alarms.

/// Ratio of the standard deviation and the median absolute deviation of a normal distribution.
const MAD_TO_STD: f64 = 1.4826;

/// The middle value, or the mean of the two middle values; 0 if there are none.
pub(crate) fn median(values: impl IntoIterator<Item = f64>) -> f64 {
    let mut sorted: Vec<f64> = values.into_iter().collect();
    if sorted.is_empty() {
        return 0.0;
    }
    let middle = sorted.len() / 2;
    let even = sorted.len().is_multiple_of(2);
    let (below, &mut upper, _) = sorted.select_nth_unstable_by(middle, f64::total_cmp);
    if even { below.iter().copied().fold(f64::MIN, f64::max).midpoint(upper) } else { upper }
}

/// The standard deviation, estimated from the median distance to the median.
pub(crate) fn spread(values: impl IntoIterator<Item = f64> + Clone) -> f64 {
    let middle = median(values.clone());
    MAD_TO_STD * median(values.into_iter().map(|value| (value - middle).abs()))
}

/// The standard deviation of the noise in a sequence, estimated from its differences, in which a trend is a constant.
pub(crate) fn noise(values: &[f64]) -> f64 {
    spread(values.windows(2).map(|pair| pair[1] - pair[0])) / std::f64::consts::SQRT_2
}

/// The Theil-Sen slope of `points`: the median of the slopes of all pairs.
pub(crate) fn slope(points: &[(f64, f64)]) -> f64 {
    let pairs = points.iter().enumerate().flat_map(|(at, first)| {
        points[at + 1..]
            .iter()
            .filter(|second| second.0 > first.0)
            .map(|second| (second.1 - first.1) / (second.0 - first.0))
    });
    median(pairs)
}

/// A number for a sentence, with three or four significant digits.
pub(crate) fn figure(value: f64) -> String {
    let size = value.abs();
    if value == 0.0 {
        "0".into()
    } else if !(1e-3..1e6).contains(&size) {
        format!("{value:.2e}")
    } else {
        format!(
            "{value:.*}",
            if size >= 1000.0 {
                0
            } else if size >= 10.0 {
                1
            } else if size >= 1.0 {
                2
            } else {
                4
            }
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_and_slopes() {
        assert_eq!(median([]), 0.0);
        assert_eq!(median([3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median([4.0, 1.0, 3.0, 2.0]), 2.5);
        let mut line: Vec<(f64, f64)> = (0..20).map(|x| (f64::from(x), 2.0 * f64::from(x) + 1.0)).collect();
        line[7].1 = 1e9;
        assert_eq!(slope(&line), 2.0);
        assert_eq!(noise(&line.iter().map(|point| point.1).collect::<Vec<_>>()), 0.0);
    }

    #[test]
    fn figures_are_short() {
        let shown = [0.0, 0.0123, 1.234, 12.34, 1234.5, 1e-9, 3.2e8].map(figure);
        assert_eq!(shown, ["0", "0.0123", "1.23", "12.3", "1234", "1.00e-9", "3.20e8"]);
    }
}
