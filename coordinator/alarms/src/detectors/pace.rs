//! How long each process takes for the parts of a step, by its newest blocks.

use std::collections::BTreeMap;

use crate::seen::Seen;
use crate::slot::{Phase, Role, Slot};

/// Blocks that must agree, which are some fifty records.
pub(crate) const ROW: usize = 6;

/// Blocks there must have been: the first hold start-up, compilation and the search for algorithms.
const ENOUGH: usize = 8;

/// The process's own phases. Its waiting for others is in its reduction.
pub(crate) const OWN: [(Phase, &str); 3] =
    [(Phase::Data, "data"), (Phase::Forward, "forward"), (Phase::Backward, "backward")];

/// Seconds a step of one process, by age of the block: the newest first.
pub(crate) struct Pace<'a> {
    pub(crate) part: u32,
    /// As in [`OWN`].
    pub(crate) own: [[f64; ROW]; OWN.len()],
    /// All phases but the rare ones.
    pub(crate) step: [f64; ROW],
    /// Its series, as in [`OWN`].
    pub(crate) slots: [Option<&'a Slot>; OWN.len()],
    /// The first step of these blocks, that of their newer half, and the last.
    pub(crate) from: u32,
    pub(crate) half: u32,
    to: u32,
}

impl Pace<'_> {
    /// Whether there is enough of each of its own phases. One may be a block behind the others: without it the process would
    /// seem faster than it is.
    fn is_whole(&self) -> bool {
        let mut slots = self.slots.iter().flatten().peekable();
        slots.peek().is_some() && slots.all(|slot| slot.blocks.len() >= ENOUGH)
    }

    /// Its own work, in the block of this age.
    pub(crate) fn work(&self, age: usize) -> f64 {
        self.own.iter().map(|phase| phase[age]).sum()
    }
}

/// Of all processes that are there, by number.
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
    // One that says nothing any more is gone: the run may go on with fewer.
    let newest = all.values().map(|pace| pace.to).max().unwrap_or(0);
    let speaks = |pace: &Pace<'_>| newest - pace.to <= (pace.to - pace.from) / 2 + 1;
    all.into_values().filter(|pace| pace.is_whole() && speaks(pace)).collect()
}
