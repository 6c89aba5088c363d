//! Takes a run's numbers, updates the histories, and runs a detector when its histories have a new block.

use lockstep_common::series::{Histogram, Point, SeriesKey};
use serde::{Deserialize, Serialize};

use crate::alarm::Alarm;
use crate::board::Board;
use crate::detectors::{
    dead, divergence, memory, not_finite, overfitting, plateau, starvation, stragglers, throttling, vanishing,
};
use crate::history::{Trail, short};
use crate::seen::Seen;
use crate::slot::{MEMORY_BLOCK, Phase, Role};

/// Points of a layer's gradient norm between two examinations of all layers.
const LAYER_LOOK: u64 = 32;

/// Samples of a device between two examinations.
const DEVICE_LOOK: u64 = 8;

/// Watches one run. Equal numbers in equal order give equal alarms. A saved watch continues as if it had not been saved.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Watch {
    seen: Seen,
    not_finite: not_finite::Bad,
    board: Board,
}

impl Watch {
    /// A watch of a new run; `layers` as for [`Self::layers`], empty if they are not known yet.
    pub fn new(layers: &[String]) -> Self {
        let mut watch = Self::default();
        watch.layers(layers);
        watch
    }

    /// Sets the names of parameters, and of modules if known, in the order of the forward pass. Alarms name the *first* layer in
    /// this order.
    ///
    /// A module that is not in `names` has the position of its first parameter.
    pub fn layers(&mut self, names: &[String]) {
        self.seen.order = names.to_vec();
    }

    /// Adds the next value of a series. Its step must be larger than that of the series' last value, else it is ignored; series
    /// may interleave.
    #[expect(clippy::too_many_lines, reason = "an arm for each role")]
    pub fn point(&mut self, key: &SeriesKey, point: &Point) {
        let step = short(point.step);
        let Some(index) = self.take(key, step, point.at_ms) else { return };
        let slot = &mut self.seen.slots[index];
        let role = slot.role;
        if !point.value.is_finite() {
            if role.must_be_finite() {
                self.not_finite.note(index, step, &self.seen, &mut self.board);
            }
            return;
        }
        slot.count += 1;
        let (count, value) = (slot.count, role.kept(point.value));
        match role {
            Role::Loss => {
                let Some(block) = slot.blocks.push(step, value) else { return };
                let window = slot.windows.push(block);
                self.not_finite.settle(block.from, &mut self.board);
                divergence::look(&self.seen, &mut self.board);
                if window {
                    plateau::look(&self.seen, &mut self.board);
                }
            }
            Role::GradNorm => {
                if slot.blocks.push(step, value).is_some() {
                    divergence::look(&self.seen, &mut self.board);
                }
            }
            Role::Phase(Phase::Checkpoint) => {
                if value > 0.0 {
                    mark(&mut self.seen.checkpoints, step);
                }
            }
            Role::Phase(phase) => {
                let full = slot.blocks.push(step, value).is_some();
                // All processes are examined together, when the first one completes a block.
                if full && phase == Phase::Backward && self.is_first(index) {
                    stragglers::look(&self.seen, &mut self.board);
                    starvation::look(&self.seen, &mut self.board);
                }
            }
            Role::Memory(_) => {
                let Some(block) = slot.blocks.push(step, value) else { return };
                slot.windows.push(block);
                // The longer the history, the rarer the examination, because it reads all of the history.
                if count >= slot.due {
                    slot.due = count + (count / 16).max(MEMORY_BLOCK as u64);
                    memory::look(&self.seen, &self.seen.slots[index], &mut self.board);
                }
            }
            Role::EvalLoss => {
                slot.trail.push(step, value);
                mark(&mut self.seen.evaluations, step);
                overfitting::look(&self.seen, &mut self.board);
            }
            Role::Eval => mark(&mut self.seen.evaluations, step),
            Role::LayerGrad => {
                slot.trail.push(step, value);
                if count.is_multiple_of(LAYER_LOOK) && self.is_first(index) {
                    vanishing::look(&self.seen, &mut self.board);
                }
            }
            Role::Throttle | Role::SmClock => {
                slot.trail.push(step, value);
                if count.is_multiple_of(DEVICE_LOOK) {
                    let part = slot.key.part;
                    throttling::look(&self.seen, part, &mut self.board);
                }
            }
            Role::LearningRate | Role::RankNorm | Role::LayerWeight | Role::LayerUpdate | Role::Utilisation => {
                slot.trail.push(step, value);
            }
            Role::Origin => {
                if value > 0.0 {
                    self.not_finite.note(index, step, &self.seen, &mut self.board);
                }
            }
            Role::Activation | Role::GradHistogram | Role::WeightHistogram | Role::Other => {}
        }
    }

    /// Adds the next distribution of a series `weight/..`, `grad/..` or `activation/..`.
    pub fn histogram(&mut self, key: &SeriesKey, histogram: &Histogram) {
        let step = short(histogram.step);
        let Some(index) = self.take(key, step, histogram.at_ms) else { return };
        let slot = &mut self.seen.slots[index];
        if (histogram.nans > 0 || histogram.infs > 0) && slot.role.must_be_finite() {
            self.not_finite.note(index, step, &self.seen, &mut self.board);
        } else if slot.role == Role::Activation && histogram.count >= dead::FEWEST {
            slot.trail.push(step, (histogram.zeros as f64 / histogram.count as f64) as f32);
            dead::look(&self.seen, &mut self.board);
        }
    }

    /// Rolls back to `step`: removes all later values, and the alarms that began later.
    pub fn rewind(&mut self, step: u64) {
        self.seen.rewind(short(step));
        self.not_finite.rewind(short(step));
        self.board.rewind(step);
    }

    /// All alarms, active and ended, by the step at which they began.
    pub fn alarms(&self) -> Vec<Alarm> {
        self.board.alarms()
    }

    /// Alarms that were raised since the last call, so that each is sent once.
    pub fn take_raised(&mut self) -> Vec<Alarm> {
        self.board.take_raised()
    }

    /// Number of active alarms.
    pub fn count_standing(&self) -> usize {
        self.board.count_standing()
    }

    /// The slot of a new point, after its step and time are noted; `None` if the point is not used.
    fn take(&mut self, key: &SeriesKey, step: u32, at_ms: u64) -> Option<usize> {
        let index = self.seen.slot(key)?;
        let slot = &mut self.seen.slots[index];
        if slot.role == Role::Other || slot.last.is_some_and(|last| last >= step) {
            return None;
        }
        slot.last = Some(step);
        if self.seen.clock.newest(1).first().is_none_or(|last| last.0 < step) {
            self.seen.clock.push(step, at_ms);
        }
        Some(index)
    }

    /// Whether the series is the first of its role.
    fn is_first(&self, index: usize) -> bool {
        let role = self.seen.slots[index].role;
        self.seen.slots[..index].iter().all(|other| other.role != role)
    }
}

/// Notes an event at `step`, once.
fn mark(marks: &mut Trail<u8>, step: u32) {
    if marks.newest(1).first().is_none_or(|last| last.0 < step) {
        marks.push(step, 0);
    }
}
