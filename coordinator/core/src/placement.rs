//! Placement: which devices a run's processes get, or what a run waits for.
//!
//! A function of ordered maps, run inside `apply`: every replica decides alike. A run gets devices of one kind only, at
//! least as many as suffice for it and at most as many as it asks for, spread evenly over the nodes.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

/// A kind of device, the preferred one first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// An NVIDIA device.
    Cuda,
    /// A slot of a CPU.
    Cpu,
}

/// The devices of all nodes that are there, or may be back in a moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    slots: BTreeMap<NodeId, Vec<Slot>>,
}

/// A device, as placement sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index among its node's devices.
    pub device: u32,
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: DeviceKind,
    /// Whether no process has it.
    pub free: bool,
    /// Whether none may have it.
    pub fenced: bool,
    /// Whether its node is not connected now: it counts, and is not given.
    pub away: bool,
}

/// What a run asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Devices that suffice; at least 1.
    pub min: u32,
    /// Devices that it uses if they are there; at least `min`.
    pub max: u32,
    /// The kind that it must have: it began on it.
    pub kind: Option<DeviceKind>,
}

/// The device of one process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The node.
    pub node: NodeId,
    /// Index among its devices.
    pub device: u32,
    /// The device's name.
    pub name: String,
}

/// Why a run cannot be placed now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The kind that it waits for.
    pub kind: DeviceKind,
    /// Whether the demand names the kind.
    pub bound: bool,
    /// Devices that would suffice.
    pub needed: u32,
    /// Devices of the kind that are free.
    pub free: u32,
    /// Devices of the kind, free or not.
    pub total: u32,
    /// Devices of the kind that are fenced, and not counted above.
    pub fenced: u32,
    /// Devices among `total` that no process has, and whose node is not connected now.
    pub away: u32,
}

impl DeviceKind {
    /// The kind of the device with this name; none for a name of another form.
    pub fn of(name: &str) -> Option<Self> {
        match name.split_once(':') {
            None if name == "cpu" => Some(Self::Cpu),
            Some(("cuda", number)) if number.parse::<u16>().is_ok() => Some(Self::Cuda),
            _ => None,
        }
    }

    /// Its name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }
}

impl Pool {
    /// Adds a node's devices; those of no known kind are left out.
    pub fn add_node<'a>(&mut self, node: &NodeId, names: impl Iterator<Item = &'a str>) {
        let slots = (0_u32..)
            .zip(names)
            .filter_map(|(device, name)| {
                DeviceKind::of(name).map(|kind| Slot {
                    device,
                    name: name.to_owned(),
                    kind,
                    free: true,
                    fenced: false,
                    away: false,
                })
            })
            .collect();
        self.slots.insert(node.clone(), slots);
    }

    /// Marks a device as used, if it is there.
    pub fn take(&mut self, node: &NodeId, device: u32) {
        let slots = self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.device == device) {
            slot.free = false;
        }
    }

    /// A node's devices count, and none is given: its agent is not connected.
    pub fn set_away(&mut self, node: &NodeId) {
        self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice).iter_mut().for_each(|slot| slot.away = true);
    }

    /// Takes the devices of this name out of use, whether a process has them or not.
    pub fn fence(&mut self, node: &NodeId, name: &str) {
        let slots = self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice);
        slots.iter_mut().filter(|slot| slot.name == name).for_each(|slot| slot.fenced = true);
    }

    fn count(&self, which: impl Fn(&Slot) -> bool) -> u32 {
        self.slots.values().flatten().filter(|slot| which(slot)).count() as u32
    }
}

/// Processes of one run that failed on a node, from which on it is left out where that is possible.
const FAILED_OFTEN: u32 = 2;

/// Devices for the processes `0..`, in order; the caller takes them out of the pool.
///
/// Capacity decides the kind (the first that has enough devices, free or not), and what is free decides the time: a run
/// does not end up on CPUs because the GPUs were busy for a moment. Processes of one node have consecutive numbers.
///
/// Nodes on which the run's processes have `failed` come last; those on which two did are left out if the others suffice for the
/// smallest number of processes.
///
/// # Errors
/// What is missing.
pub fn place(pool: &Pool, demand: Demand, failed: &BTreeMap<NodeId, u32>) -> Result<Vec<Allocation>, Shortage> {
    let total = |kind: DeviceKind| pool.count(|slot| slot.kind == kind && !slot.fenced);
    let kind = demand.kind.unwrap_or_else(|| {
        let fits = [DeviceKind::Cuda, DeviceKind::Cpu].into_iter().find(|&kind| total(kind) >= demand.min);
        fits.unwrap_or(if total(DeviceKind::Cuda) > total(DeviceKind::Cpu) {
            DeviceKind::Cuda
        } else {
            DeviceKind::Cpu
        })
    });
    let usable = |slot: &Slot| slot.kind == kind && slot.free && !slot.fenced && !slot.away;
    let free = pool.count(usable);
    if free < demand.min {
        let bound = demand.kind.is_some();
        let fenced = pool.count(|slot| slot.kind == kind && slot.fenced);
        let away = pool.count(|slot| slot.kind == kind && slot.free && !slot.fenced && slot.away);
        return Err(Shortage { kind, bound, needed: demand.min, free, total: total(kind), fenced, away });
    }
    let mut nodes: Vec<(&NodeId, Vec<&Slot>)> =
        pool.slots.iter().map(|(node, slots)| (node, slots.iter().filter(|slot| usable(slot)).collect())).collect();
    // The emptiest nodes first; the sort is stable, so that names decide between equals.
    nodes.sort_by_key(|(_, slots)| std::cmp::Reverse(slots.len()));
    let shares = shares(&nodes, demand, failed);
    let allocations = nodes.iter().zip(shares).flat_map(|((node, slots), share)| {
        slots[..share].iter().map(|slot| Allocation {
            node: (*node).clone(),
            device: slot.device,
            name: slot.name.clone(),
        })
    });
    Ok(allocations.collect())
}

/// How many devices of each node are taken: evenly, those first that have not failed.
fn shares(nodes: &[(&NodeId, Vec<&Slot>)], demand: Demand, failed: &BTreeMap<NodeId, u32>) -> Vec<usize> {
    let times = |node: &NodeId| failed.get(node).copied().unwrap_or(0).min(FAILED_OFTEN);
    let free_below = |limit: u32| {
        let here = nodes.iter().filter(|(node, _)| times(node) < limit);
        here.map(|(_, slots)| slots.len() as u32).sum::<u32>()
    };
    let limit = if free_below(FAILED_OFTEN) >= demand.min { FAILED_OFTEN } else { FAILED_OFTEN + 1 };
    let mut shares = vec![0_usize; nodes.len()];
    let mut left = demand.max.min(free_below(limit));
    for group in 0..limit {
        while left > 0 {
            let before = left;
            for (share, (node, slots)) in shares.iter_mut().zip(nodes) {
                if left > 0 && times(node) == group && *share < slots.len() {
                    *share += 1;
                    left -= 1;
                }
            }
            if left == before {
                break;
            }
        }
    }
    shares
}

impl Shortage {
    /// Whether it would not fit even if every device was free.
    pub fn too_large(&self) -> bool {
        self.total < self.needed
    }
}

impl fmt::Display for Shortage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = if self.bound { format!("{} ", self.kind.word()) } else { String::new() };
        let devices = if self.needed == 1 { "device" } else { "devices" };
        let are = if self.free == 1 { "is" } else { "are" };
        write!(f, "needs {} {kind}{devices}, {} {are} free", self.needed, self.free)?;
        if self.too_large() {
            write!(f, " and the nodes have {} in all", self.total)?;
        }
        if self.away > 0 {
            let are = if self.away == 1 { "is on a node" } else { "are on nodes" };
            write!(f, "; {} more {are} whose worker is not connected", self.away)?;
        }
        if self.fenced > 0 {
            write!(
                f,
                "; {} more {} fenced, as `coord nodes` shows",
                self.fenced,
                if self.fenced == 1 { "is" } else { "are" }
            )?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(nodes: &[(&str, &[&str])]) -> Pool {
        let mut pool = Pool::default();
        for (node, names) in nodes {
            pool.add_node(&node.parse().unwrap(), names.iter().copied());
        }
        pool
    }

    fn place(pool: &Pool, demand: Demand) -> Result<Vec<Allocation>, Shortage> {
        super::place(pool, demand, &BTreeMap::new())
    }

    fn nodes_of(allocations: &[Allocation]) -> Vec<&str> {
        allocations.iter().map(|allocation| allocation.node.as_str()).collect()
    }

    const ANY: Demand = Demand { min: 1, max: 4, kind: None };

    #[test]
    fn processes_spread_evenly_and_stay_together_by_node() {
        let pool = pool(&[("a", &["cpu"; 4]), ("b", &["cpu"; 4]), ("c", &["cpu"; 1])]);
        let allocations = place(&pool, Demand { max: 5, ..ANY }).unwrap();
        assert_eq!(nodes_of(&allocations), ["a", "a", "b", "b", "c"]);
        assert_eq!(allocations[1].device, 1);
    }

    #[test]
    fn where_a_process_failed_comes_last_and_where_two_did_only_without_another_place() {
        let pool = pool(&[("a", &["cpu"; 2]), ("b", &["cpu"; 2])]);
        let placed = |min, max, times| {
            let failed = BTreeMap::from([("a".parse().unwrap(), times)]);
            let allocations = super::place(&pool, Demand { min, max, kind: None }, &failed).unwrap();
            nodes_of(&allocations).concat()
        };
        assert_eq!([placed(1, 1, 0), placed(1, 2, 0)], ["a", "ab"]);
        assert_eq!([placed(1, 1, 1), placed(1, 2, 1), placed(1, 3, 1), placed(1, 4, 1)], ["b", "bb", "abb", "aabb"]);
        assert_eq!([placed(1, 4, 2), placed(2, 4, 9), placed(3, 4, 2)], ["bb", "bb", "aabb"]);
    }

    #[test]
    fn what_is_taken_is_not_given_again_and_the_reason_counts_it() {
        let mut pool = pool(&[("a", &["cpu"; 2]), ("b", &["cpu"; 2])]);
        for allocation in place(&pool, Demand { max: 2, ..ANY }).unwrap() {
            pool.take(&allocation.node, allocation.device);
        }
        assert_eq!(place(&pool, ANY).unwrap().len(), 2);
        let shortage = place(&pool, Demand { min: 4, ..ANY }).unwrap_err();
        assert_eq!((shortage.to_string().as_str(), shortage.too_large()), ("needs 4 devices, 2 are free", false));
        let shortage = place(&pool, Demand { min: 5, max: 5, kind: None }).unwrap_err();
        assert_eq!(shortage.to_string(), "needs 5 devices, 2 are free and the nodes have 4 in all");
    }

    #[test]
    fn a_fenced_device_is_not_given_and_the_reason_names_it() {
        let mut pool = pool(&[("a", &["cpu"; 2]), ("b", &["cpu"])]);
        pool.fence(&"a".parse().unwrap(), "cpu");
        assert_eq!(nodes_of(&place(&pool, ANY).unwrap()), ["b"]);
        let shortage = place(&pool, Demand { min: 2, ..ANY }).unwrap_err();
        assert!(shortage.too_large());
        assert_eq!(
            shortage.to_string(),
            "needs 2 devices, 1 is free and the nodes have 1 in all; 2 more are fenced, as `coord nodes` shows"
        );
    }

    #[test]
    fn one_run_is_on_one_kind_and_a_run_that_began_on_it_stays() {
        let mut pool = pool(&[("a", &["cuda:0", "cpu", "cpu", "tpu"]), ("b", &["cpu"])]);
        assert_eq!(place(&pool, ANY).unwrap()[0].name, "cuda:0");
        assert_eq!(place(&pool, Demand { min: 2, ..ANY }).unwrap().len(), 3, "no two cuda devices exist: cpu");
        let bound = Demand { min: 2, max: 2, kind: Some(DeviceKind::Cuda) };
        assert!(place(&pool, bound).unwrap_err().to_string().starts_with("needs 2 cuda devices, 1 is free"));
        pool.take(&"a".parse().unwrap(), 0);
        assert!(place(&pool, ANY).is_err(), "waits for the cuda device that is busy");
    }
}
