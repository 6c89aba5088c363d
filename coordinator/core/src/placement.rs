//! Placement: assigns devices to a run's processes, or states what the run waits for.
//!
//! Placement runs inside `apply` and uses only ordered maps, so all replicas decide alike. A run gets devices of one kind: at least
//! [`Demand::min`] and at most [`Demand::max`], spread evenly over the nodes.

use std::collections::BTreeMap;
use std::fmt;

use lockstep_common::NodeId;
use serde::{Deserialize, Serialize};

/// Kind of device, in order of preference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeviceKind {
    /// NVIDIA GPU, for one process each.
    Cuda,
    /// CPU slot: room for one process. The slots of a node share its processor.
    Cpu,
}

/// The devices of all connected nodes, and of nodes whose lease has not ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    slots: BTreeMap<NodeId, Vec<Slot>>,
}

/// A device in the pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slot {
    /// Index in [`crate::state::Node::devices`].
    pub device: u32,
    /// `cpu` or `cuda:N`.
    pub name: String,
    /// Kind, derived from `name`.
    pub kind: DeviceKind,
    /// No process runs on the device.
    pub free: bool,
    /// The device is out of use.
    pub fenced: bool,
    /// The node's agent is not connected. The device counts for the choice of the kind, but gets no process.
    pub away: bool,
}

/// The devices that a run requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Minimum number of devices; at least 1.
    pub min: u32,
    /// Maximum number of devices; at least `min`.
    pub max: u32,
    /// Required kind: the kind that the run started on. `None` before its first placement.
    pub kind: Option<DeviceKind>,
}

/// The device that one process gets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Allocation {
    /// The node that has the device.
    pub node: NodeId,
    /// Index in [`crate::state::Node::devices`].
    pub device: u32,
    /// `cpu` or `cuda:N`.
    pub name: String,
}

/// Too few devices are free for a run. Its text is the reason that users see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shortage {
    /// The kind of device that the run waits for.
    pub kind: DeviceKind,
    /// Whether the run requires this kind.
    pub bound: bool,
    /// Minimum number of devices.
    pub needed: u32,
    /// Number of devices of this kind that can be given now.
    pub free: u32,
    /// Number of devices of this kind, without fenced ones.
    pub total: u32,
    /// Number of fenced devices of this kind.
    pub fenced: u32,
    /// Number of unoccupied devices in `total` whose node is not connected.
    pub away: u32,
}

impl DeviceKind {
    /// The kind of the device `name`; `None` unless it is `cpu` or `cuda:N`.
    pub fn of(name: &str) -> Option<Self> {
        match name.split_once(':') {
            None if name == "cpu" => Some(Self::Cpu),
            Some(("cuda", number)) if number.parse::<u16>().is_ok() => Some(Self::Cuda),
            _ => None,
        }
    }

    /// Name in messages and documents.
    pub fn word(self) -> &'static str {
        match self {
            Self::Cuda => "cuda",
            Self::Cpu => "cpu",
        }
    }
}

impl Pool {
    /// Adds the devices of a node. Devices of unknown kind are ignored.
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

    /// Marks a device as occupied. Does nothing if the pool does not contain it.
    pub fn take(&mut self, node: &NodeId, device: u32) {
        let slots = self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice);
        if let Some(slot) = slots.iter_mut().find(|slot| slot.device == device) {
            slot.free = false;
        }
    }

    /// Marks a node as not connected: its devices count for the choice of the kind, but get no process.
    pub fn set_away(&mut self, node: &NodeId) {
        self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice).iter_mut().for_each(|slot| slot.away = true);
    }

    /// Takes all devices of `node` with this name out of use, occupied or not.
    pub fn fence(&mut self, node: &NodeId, name: &str) {
        let slots = self.slots.get_mut(node).map_or(&mut [][..], Vec::as_mut_slice);
        slots.iter_mut().filter(|slot| slot.name == name).for_each(|slot| slot.fenced = true);
    }

    fn count(&self, which: impl Fn(&Slot) -> bool) -> u32 {
        self.slots.values().flatten().filter(|slot| which(slot)).count() as u32
    }
}

/// Number of failed processes of a run on one node, from which on the run avoids the node.
const FAILED_OFTEN: u32 = 2;

/// Chooses devices for the processes `0..`, in order. The caller marks them as occupied ([`Pool::take`]).
///
/// The run gets the first kind that has enough devices, free or not, and waits until enough of them are free. So a run does not move to
/// CPUs because GPUs are busy for a moment. Processes on one node have consecutive indices.
///
/// Nodes on which processes of the run `failed` are used last. Nodes with two or more failures are used only if the other nodes have fewer
/// than [`Demand::min`] free devices.
///
/// # Errors
/// [`Shortage`] if fewer than [`Demand::min`] devices are free.
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
    // Nodes with the most free devices first. The sort is stable: nodes with equally many stay sorted by name.
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

/// How many devices of each node are taken: evenly, and first from nodes without failures.
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
    /// Whether there would be too few devices even if all were free.
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
