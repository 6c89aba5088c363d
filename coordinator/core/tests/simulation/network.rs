//! The network between replicas: it loses, duplicates and delays messages, and has partitions.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_core::replica::PeerMessage;

use super::random::Random;
use super::world::Faults;

#[derive(Default)]
pub(crate) struct Network {
    /// Messages under way with their senders, sorted by time of delivery, then by order of sending.
    flying: BTreeMap<(u64, u64), (u64, PeerMessage)>,
    sent: u64,
    /// Directed links (from, to) that lose all messages.
    cut: BTreeSet<(u64, u64)>,
}

impl Network {
    pub(crate) fn send(&mut self, now: u64, from: u64, message: &PeerMessage, faults: &Faults, random: &mut Random) {
        if self.cut.contains(&(from, message.to)) || random.chance(faults.lost) {
            return;
        }
        let copies = 1 + u64::from(random.chance(faults.doubled));
        for _ in 0..copies {
            // Most messages arrive in the next tick, in order. Late ones are overtaken.
            let delay = if random.chance(faults.late) { 1 + random.below(30) } else { 1 };
            self.sent += 1;
            self.flying.insert((now + delay, self.sent), (from, message.clone()));
        }
    }

    /// The next message whose time of delivery has come, with its sender.
    pub(crate) fn receive(&mut self, now: u64) -> Option<(u64, PeerMessage)> {
        let (&(due, _), _) = self.flying.first_key_value()?;
        if due > now { None } else { self.flying.pop_first().map(|(_, message)| message) }
    }

    /// Chooses new cut links: all links of one replica, all links from it, one link in both directions, or none.
    pub(crate) fn repartition(&mut self, ids: &[u64], random: &mut Random) {
        self.cut.clear();
        let Some(&one) = random.pick(ids) else { return };
        let others = ids.iter().filter(|&&id| id != one);
        match random.below(4) {
            0 => self.cut.extend(others.flat_map(|&other| [(one, other), (other, one)])),
            1 => self.cut.extend(others.map(|&other| (one, other))),
            2 => self.cut.extend(others.take(1).flat_map(|&other| [(one, other), (other, one)])),
            _ => {}
        }
    }

    pub(crate) fn heal(&mut self) {
        self.cut.clear();
    }
}
