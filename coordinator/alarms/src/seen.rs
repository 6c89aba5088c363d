//! Everything that detectors know of a run: its series, the order of its layers, and the times of its steps.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

use crate::history::Trail;
use crate::slot::{Role, Slot};

/// Largest number of watched series; further series are ignored.
const MOST_SERIES: usize = 4096;

/// The histories of all series, which detectors read.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Seen {
    /// The series in the order in which they first appeared.
    pub(crate) slots: Vec<Slot>,
    /// Indices into `slots`, sorted by key.
    sorted: Vec<u32>,
    /// Index of the last point's slot. Series arrive in the same order at each step, so the next point likely belongs to its neighbour.
    cursor: usize,
    /// Names of parameters and modules in the order of the forward pass.
    pub(crate) order: Vec<String>,
    /// Times of steps, in milliseconds of Unix time.
    pub(crate) clock: Trail<u64>,
    pub(crate) evaluations: Trail<u8>,
    pub(crate) checkpoints: Trail<u8>,
}

impl Seen {
    /// Index of the series, which is added if it is new; `None` if there are already [`MOST_SERIES`].
    pub(crate) fn slot(&mut self, key: &SeriesKey) -> Option<usize> {
        let next = if self.cursor + 1 < self.slots.len() { self.cursor + 1 } else { 0 };
        let index = if self.slots.get(next).is_some_and(|slot| slot.key == *key) {
            next
        } else {
            match self.sorted.binary_search_by(|&index| self.slots[index as usize].key.cmp(key)) {
                Ok(at) => self.sorted[at] as usize,
                Err(_) if self.slots.len() == MOST_SERIES => return None,
                Err(at) => {
                    self.sorted.insert(at, self.slots.len() as u32);
                    self.slots.push(Slot::new(key.clone()));
                    self.slots.len() - 1
                }
            }
        };
        self.cursor = index;
        Some(index)
    }

    /// The series of this role, in the order in which they first appeared.
    pub(crate) fn of(&self, role: Role) -> impl Iterator<Item = &Slot> {
        self.slots.iter().filter(move |slot| slot.role == role)
    }

    /// The series of this role and part.
    pub(crate) fn part(&self, role: Role, part: Option<u32>) -> Option<&Slot> {
        self.of(role).find(|slot| slot.key.part == part)
    }

    /// The series of this role for the same tensor as `slot`.
    pub(crate) fn beside(&self, role: Role, slot: &Slot) -> Option<&Slot> {
        self.of(role).find(|other| other.tensor() == slot.tensor())
    }

    /// Sort key by position in the forward pass: that of the name, or of the first parameter within the module. Unknown names follow
    /// all known ones, in the order in which they first appeared.
    pub(crate) fn forward(&self, slot: &Slot) -> (usize, usize) {
        let name = slot.tensor();
        let within = |known: &String| known.strip_prefix(name).is_some_and(|rest| rest.starts_with('.'));
        let known = self.order.iter().position(|known| known == name).or_else(|| self.order.iter().position(within));
        let seen = self.slots.iter().position(|other| std::ptr::eq(other, slot)).unwrap_or(usize::MAX);
        (known.unwrap_or(usize::MAX), seen)
    }

    /// Time of `step` in milliseconds of Unix time, interpolated linearly between recorded steps.
    pub(crate) fn ms(&self, step: u32) -> u64 {
        let points = self.clock.points();
        let after = points.partition_point(|point| point.0 < step);
        match (after.checked_sub(1).map(|before| points[before]), points.get(after)) {
            (Some(before), Some(after)) => {
                let part = f64::from(step - before.0) / f64::from(after.0 - before.0);
                before.1.saturating_add((part * after.1.saturating_sub(before.1) as f64) as u64)
            }
            (before, after) => after.copied().or(before).map_or(0, |known| known.1),
        }
    }

    /// The learning rate at `step`, and the highest one so far; `None` if no learning rate is recorded.
    pub(crate) fn rate(&self, step: u32) -> Option<(f64, f64)> {
        let trail = &self.of(Role::LearningRate).next()?.trail;
        let peak = trail.points().iter().map(|point| point.1).fold(0.0, f32::max);
        Some((f64::from(trail.at(step)?), f64::from(peak)))
    }

    pub(crate) fn rewind(&mut self, step: u32) {
        self.slots.iter_mut().for_each(|slot| slot.rewind(step));
        self.clock.rewind(step);
        self.evaluations.rewind(step);
        self.checkpoints.rewind(step);
    }
}
