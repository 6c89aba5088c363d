//! How long each process takes for the phases of a step, according to its newest blocks.

use std::collections::BTreeMap;

use crate::seen::Seen;
use crate::slot::{Phase, Role, Slot};

/// Number of newest blocks that must agree: about fifty recorded steps.
pub(crate) const ROW: usize = 6;

/// Smallest number of blocks: the first two contain start-up, compilation and the search for algorithms.
const ENOUGH: usize = 8;

/// Phases of a process's own work. Waiting for other processes is part of the phase `reduction`.
pub(crate) const OWN: [(Phase, &str); 3] =
    [(Phase::Data, "data"), (Phase::Forward, "forward"), (Phase::Backward, "backward")];

/// Seconds per step of one process, by age of the block, the newest first.
pub(crate) struct Pace<'a> {
    pub(crate) part: u32,
    /// Seconds per step of each phase in [`OWN`].
    pub(crate) own: [[f64; ROW]; OWN.len()],
    /// Seconds per step of all phases except `checkpoint`.
    pub(crate) step: [f64; ROW],
    /// The series of each phase in [`OWN`].
    pub(crate) slots: [Option<&'a Slot>; OWN.len()],
    /// First step of these blocks, first step of their newer half, and last step.
    pub(crate) from: u32,
    pub(crate) half: u32,
    to: u32,
}

impl Pace<'_> {
    /// Whether each recorded phase of the process's own work has enough blocks. A phase may be one block behind the others; without
    /// it, the process would seem faster than it is.
    fn is_whole(&self) -> bool {
        let mut slots = self.slots.iter().flatten().peekable();
        slots.peek().is_some() && slots.all(|slot| slot.blocks.len() >= ENOUGH)
    }

    /// Seconds per step of its own work, in the block of this age.
    pub(crate) fn work(&self, age: usize) -> f64 {
        self.own.iter().map(|phase| phase[age]).sum()
    }
}

/// The paces of all processes that still report, by process index.
pub(crate) fn paces(seen: &Seen) -> Vec<Pace<'_>> {
    let mut all: BTreeMap<u32, Pace<'_>> = BTreeMap::new();
    for slot in &seen.slots {
        let Role::Phase(phase) = slot.role else { continue };
        let own = OWN.iter().position(|own| own.0 == phase);
        let [Some(oldest), Some(half), Some(newest)] = [ROW - 1, ROW / 2 - 1, 0].map(|age| slot.blocks.back(age))
        else {
            continue;
        };
        let pace = all.entry(slot.part()).or_insert(Pace {
            part: slot.part(),
            own: Default::default(),
            step: Default::default(),
            slots: Default::default(),
            from: oldest.from,
            half: half.from,
            to: newest.to,
        });
        pace.to = pace.to.max(newest.to);
        for age in 0..ROW {
            let seconds = slot.blocks.back(age).map_or(0.0, |block| block.value());
            pace.step[age] += seconds;
            if let Some(own) = own {
                pace.own[own][age] = seconds;
            }
        }
        if let Some(own) = own {
            pace.slots[own] = Some(slot);
        }
    }
    // A process that no longer reports is gone: the run may continue on fewer processes.
    let newest = all.values().map(|pace| pace.to).max().unwrap_or(0);
    let speaks = |pace: &Pace<'_>| newest - pace.to <= (pace.to - pace.from) / 2 + 1;
    all.into_values().filter(|pace| pace.is_whole() && speaks(pace)).collect()
}
