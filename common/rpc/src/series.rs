//! Points of a series on the wire: one column for each field; steps and times as differences, which are small.

use lockstep_common::series::{Point, SeriesKey};

use crate::Series;

impl Series {
    /// Encodes `points`. Their steps must not descend.
    pub fn of_points(key: &SeriesKey, points: &[Point]) -> Self {
        let (mut step, mut at_ms) = (0, 0);
        Self {
            name: key.name.clone(),
            part: key.part,
            steps: points
                .iter()
                .map(|point| point.step.saturating_sub(std::mem::replace(&mut step, point.step)))
                .collect(),
            at_ms: points
                .iter()
                .map(|point| point.at_ms as i64 - std::mem::replace(&mut at_ms, point.at_ms as i64))
                .collect(),
            values: points.iter().map(|point| point.value).collect(),
        }
    }

    /// Decodes the points. Their number is the length of the shortest column.
    pub fn points(&self) -> impl Iterator<Item = Point> {
        let (mut step, mut at_ms) = (0_u64, 0_u64);
        self.steps.iter().zip(&self.at_ms).zip(&self.values).map(move |((more, later), value)| {
            (step, at_ms) = (step.saturating_add(*more), at_ms.saturating_add_signed(*later));
            Point { step, at_ms, value: *value }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_come_back_as_they_were() {
        let key = SeriesKey::part("mine", 3);
        let point = |step, at_ms, value| Point { step, at_ms, value };
        let points =
            [point(10, 1_795_682_816_763, 0.5), point(10, 1_795_682_816_700, -1.0), point(12, 1_795_682_816_900, 2.0)];
        let series = Series::of_points(&key, &points);
        assert_eq!((series.steps.as_slice(), series.at_ms[1], series.part), ([10, 0, 2].as_slice(), -63, Some(3)));
        assert_eq!(series.points().collect::<Vec<_>>(), points);
        // Values from the network do not overflow.
        let wild = Series { steps: vec![u64::MAX, 5], at_ms: vec![i64::MIN, 1], values: vec![0.0, 0.0], ..series };
        assert_eq!(wild.points().last(), Some(point(u64::MAX, 1, 0.0)));
    }
}
