//! Ranges of numbers that several sections ask for.

/// From 0 to below 1.
pub(super) fn is_fraction(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}

/// Above 0.
pub(super) fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// 0 or above.
pub(super) fn is_not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// What a count is that a job need not say.
pub(super) fn one() -> u32 {
    1
}
