//! Points gathered until all are there.

use std::collections::BTreeMap;

use lockstep_common::series::{Point, SeriesKey};

use crate::Item;

/// The points of a run, by series.
#[derive(Debug, Default)]
pub(crate) struct Rows {
    series: BTreeMap<SeriesKey, Vec<Point>>,
}

impl Rows {
    /// Takes what has points.
    pub(crate) fn take(&mut self, item: &Item<'_>) {
        match *item {
            Item::Points { key, points } => match self.series.get_mut(key) {
                Some(series) => series.extend_from_slice(points),
                None => drop(self.series.insert(key.clone(), points.to_vec())),
            },
            Item::Rewind { step } => {
                self.series.values_mut().for_each(|points| points.retain(|point| point.step <= step));
            }
            _ => {}
        }
    }

    /// Sorts by step; of points that came again, the last one stays.
    pub(crate) fn sort(&mut self) {
        for points in self.series.values_mut() {
            points.reverse();
            points.sort_by_key(|point| point.step);
            points.dedup_by_key(|point| point.step);
        }
        self.series.retain(|_, points| !points.is_empty());
    }

    /// By series, then step. Sort first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&SeriesKey, &Point)> {
        self.series.iter().flat_map(|(key, points)| points.iter().map(move |point| (key, point)))
    }

    /// By series. Sort first.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&SeriesKey, &[Point])> {
        self.series.iter().map(|(key, points)| (key, &**points))
    }
}
