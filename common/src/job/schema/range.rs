//! Ranges and defaults of numbers in several sections.

/// Whether `value` is at least 0 and below 1.
pub(super) fn is_fraction(value: f64) -> bool {
    (0.0..1.0).contains(&value)
}

/// Whether `value` is finite and above 0.
pub(super) fn is_positive(value: f64) -> bool {
    value.is_finite() && value > 0.0
}

/// Whether `value` is finite and at least 0.
pub(super) fn is_not_negative(value: f64) -> bool {
    value.is_finite() && value >= 0.0
}

/// The default of a count.
pub(super) fn one() -> u32 {
    1
}
