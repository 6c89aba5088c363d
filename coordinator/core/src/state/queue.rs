//! The queue: runs are placed in the order of submission.
//!
//! A waiting run blocks later runs that need devices of the same kind, so that small runs do not starve it. A run that would not fit even
//! if all devices were free blocks no other run.

use std::collections::BTreeMap;

use lockstep_common::RunId;

use super::cluster::ClusterState;
use super::node::Presence;
use super::runs::{ProcessPhase, ProcessState, Status};
use crate::placement::{self, Allocation, Demand, DeviceKind, Pool};

impl ClusterState {
    /// Places all queued runs that can be placed, and updates the reasons of the others.
    pub(crate) fn place_queued(&mut self) {
        let mut pool = self.pool();
        let mut held_by: BTreeMap<DeviceKind, RunId> = BTreeMap::new();
        let queued: Vec<RunId> = self
            .runs()
            .into_iter()
            .filter(|run| matches!(run.state.status, Status::Queued { .. }))
            .map(|run| run.id().clone())
            .collect();
        for id in queued {
            let Some(run) = self.runs.get(&id) else { continue };
            if let Some(reason) = run.pause() {
                // It needs no device now, so it blocks no other run.
                self.set_queued(&id, reason);
                continue;
            }
            if let Some(reason) = run.waits_for_owed() {
                // It blocks later runs: the wait is short, and it had devices before.
                if let Some(kind) = run.state.kind {
                    held_by.entry(kind).or_insert_with(|| id.clone());
                }
                self.set_queued(&id, reason);
                continue;
            }
            let demand = Demand { min: run.job.min_processes(), max: run.job.processes(), kind: run.state.kind };
            let reason = match placement::place(&pool, demand, &run.state.failed_on) {
                Ok(allocations) => {
                    if let Some(before) = kind_of(&allocations).and_then(|kind| held_by.get(&kind)) {
                        format!("waits for run `{before}`, which is before it in the queue")
                    } else {
                        for allocation in &allocations {
                            pool.take(&allocation.node, allocation.device);
                        }
                        self.assign(&id, allocations);
                        continue;
                    }
                }
                Err(shortage) => {
                    if !shortage.too_large() {
                        held_by.entry(shortage.kind).or_insert_with(|| id.clone());
                    }
                    shortage.to_string()
                }
            };
            self.set_queued(&id, reason);
        }
    }

    fn set_queued(&mut self, id: &RunId, reason: String) {
        let status = Status::Queued { reason };
        if self.runs.get(id).is_some_and(|run| run.state.status != status)
            && let Some(run) = self.run_mut(id)
        {
            run.state.status = status;
        }
    }

    /// The devices of alive and detached nodes, with fenced and occupied ones marked.
    fn pool(&self) -> Pool {
        let mut pool = Pool::default();
        for node in self.nodes.values() {
            match node.presence {
                Presence::Alive => pool.add_node(&node.id, node.devices.iter().map(|device| device.name.as_str())),
                Presence::Detached => {
                    pool.add_node(&node.id, node.devices.iter().map(|device| device.name.as_str()));
                    pool.set_away(&node.id);
                }
                Presence::Leaving | Presence::Gone | Presence::Lost => continue,
            }
            node.fences.keys().for_each(|name| pool.fence(&node.id, name));
        }
        for run in self.runs.values().filter(|run| !run.state.status.is_final()) {
            for placed in run.state.placement.values() {
                pool.take(&placed.node, placed.device);
            }
        }
        pool
    }

    fn assign(&mut self, id: &RunId, allocations: Vec<Allocation>) {
        let Some(run) = self.run_mut(id) else { return };
        run.state.kind = kind_of(&allocations).or(run.state.kind);
        run.state.status = Status::Starting;
        let placed = allocations.into_iter().map(|allocation| ProcessState {
            node: allocation.node,
            device: allocation.device,
            device_name: allocation.name,
            phase: ProcessPhase::Assigned,
            address: None,
            sequence: 0,
        });
        run.state.placement = (0..).zip(placed).collect();
        self.placement_changed(id);
    }
}

fn kind_of(allocations: &[Allocation]) -> Option<DeviceKind> {
    allocations.first().and_then(|allocation| DeviceKind::of(&allocation.name))
}
