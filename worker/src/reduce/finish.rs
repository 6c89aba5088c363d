//! The last part of the reduction, between processes: which tensors are sent and which are added. The plan is made once, over fixed
//! tensors.
//!
//! - Few bytes: one round. Every process sends all its subtrees to all others, and each of them finishes the whole tree.
//! - Many bytes: each process finishes the tree on one slice, and all processes gather the slices. This takes two rounds of messages; with
//!   shared memory, the processes read each other's memory instead.
//!
//! With every strategy each element goes through the same additions in the same order.

use std::ops::Range;

use lockstep_common::reduction::{cover, merges};
use lockstep_common::world::hosted;
use tch::{TchError, Tensor};

use super::layout::ALIGN;
use super::{Exchange, ExchangeError};

/// On the CPU this many elements go through all additions before the next ones begin. Small enough for the sums to stay in the processor's
/// caches, and large enough for the cost of calls not to matter.
const BLOCK: i64 = 32 << 10;

/// This process, the number of processes, and the number of ranks.
#[derive(Clone, Copy, Debug)]
pub(super) struct World {
    pub(super) process: u32,
    pub(super) processes: u32,
    pub(super) ranks: u32,
}

impl World {
    fn subtrees(self, process: u32) -> i64 {
        cover(&hosted(process, self.processes, self.ranks), self.ranks).len() as i64
    }
}

/// The plan of the last part of a reduction. The mean is stored in this process's first row.
#[derive(Debug)]
pub(super) struct Finish(Vec<Step>);

#[derive(Debug)]
enum Step {
    /// The back end's own sum over processes.
    AllReduce(Tensor),
    /// One round of the exchange; with empty tensors it is a barrier.
    Exchange { outgoing: Vec<Tensor>, incoming: Vec<Tensor> },
    /// `into = lower + upper`; `into` may be one of the two.
    Add { into: Tensor, lower: Tensor, upper: Tensor },
    /// Division by the number of ranks.
    Divide(Tensor, f64),
    /// A copy from another process's memory.
    Copy { into: Tensor, from: Tensor },
}

impl Finish {
    /// For a single process: its first row has the sum already.
    pub(super) fn alone(world: World, rows: &Tensor) -> Result<Self, TchError> {
        Ok(Self(tree(world, &[unbind(rows, 1)?], &rows.f_get(0)?)?))
    }

    /// Every process sends its subtrees to all others; those of this process are the first of its `rows`.
    pub(super) fn in_one_round(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let own = rows.f_narrow(0, 0, world.subtrees(world.process))?;
        let (mut outgoing, mut incoming, mut subtrees) = (Vec::new(), Vec::new(), Vec::new());
        for process in 0..world.processes {
            let count = world.subtrees(process);
            let block = if process == world.process {
                own.shallow_clone()
            } else {
                Tensor::f_zeros([count, rows.size()[1]], (rows.kind(), rows.device()))?
            };
            outgoing.push(own.f_view([-1])?);
            incoming.push(block.f_view([-1])?);
            subtrees.push(unbind(&block, count)?);
        }
        let mut steps = vec![Step::Exchange { outgoing, incoming }];
        steps.extend(tree(world, &subtrees, &rows.f_get(0)?)?);
        Ok(Self(steps))
    }

    /// First round: the slices of all subtrees go to the process of the slice. Second round: the mean of each slice goes to all processes.
    pub(super) fn in_two_rounds(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let slices = slices(rows.size()[1], world.processes);
        let (own, result) = (&slices[world.process as usize], rows.f_get(0)?);
        let mut subtrees = Vec::new();
        for process in 0..world.processes {
            subtrees.push(if process == world.process {
                unbind(&cut(rows, 1, own)?, world.subtrees(process))?
            } else {
                let size = [world.subtrees(process), own.end - own.start];
                unbind(&Tensor::f_zeros(size, (rows.kind(), rows.device()))?, size[0])?
            });
        }
        let mut steps = Vec::new();
        for row in 0..(0..world.processes).map(|process| world.subtrees(process)).max().unwrap_or(0) {
            let (mut outgoing, mut incoming) = (Vec::new(), Vec::new());
            for (process, slice) in slices.iter().enumerate() {
                let mine = if row < world.subtrees(world.process) { slice } else { &(0..0) };
                outgoing.push(cut(&rows.f_get(row.min(rows.size()[0] - 1))?, 0, mine)?);
                incoming.push(match subtrees[process].get(row as usize) {
                    Some(part) => part.shallow_clone(),
                    None => cut(&result, 0, &(0..0))?,
                });
            }
            steps.push(Step::Exchange { outgoing, incoming });
        }
        let mean = cut(&result, 0, own)?;
        steps.extend(tree(world, &subtrees, &mean)?);
        let outgoing = slices.iter().map(|_| mean.shallow_clone()).collect();
        let incoming = slices.iter().map(|slice| cut(&result, 0, slice)).collect::<Result<_, _>>()?;
        steps.push(Step::Exchange { outgoing, incoming });
        Ok(Self(steps))
    }

    /// As in two rounds, but through shared memory: each process finishes its slice from the `rows` of all processes (by process index;
    /// each process writes only to its own), and copies the means of the other slices from their processes' first rows.
    ///
    /// Processes access each other's memory only between the first barrier and the last. After the first barrier all rows are complete.
    /// After the second one all means are complete, and no other slice of a row is needed. After the last one all copies are made.
    pub(super) fn in_place(world: World, rows: &[Tensor]) -> Result<Self, TchError> {
        let result = rows[world.process as usize].f_get(0)?;
        let slices = slices(result.size()[0], world.processes);
        let own = &slices[world.process as usize];
        let mut subtrees = Vec::new();
        for (process, rows) in rows.iter().enumerate() {
            subtrees.push(unbind(&cut(rows, 1, own)?, world.subtrees(process as u32))?);
        }
        let barrier = || {
            let nothing = || rows.iter().map(|_| cut(&result, 0, &(0..0))).collect::<Result<Vec<_>, _>>();
            Ok::<_, TchError>(Step::Exchange { outgoing: nothing()?, incoming: nothing()? })
        };
        let mut steps = vec![barrier()?];
        steps.extend(tree(world, &subtrees, &cut(&result, 0, own)?)?);
        steps.push(barrier()?);
        for (process, slice) in slices.iter().enumerate().filter(|(process, _)| *process != world.process as usize) {
            let from = cut(&rows[process].f_get(0)?, 0, slice)?;
            steps.push(Step::Copy { into: cut(&result, 0, slice)?, from });
        }
        steps.push(barrier()?);
        Ok(Self(steps))
    }

    /// By the back end: this process adds the leaves of its ranks, and the back end adds the sums of the processes.
    pub(super) fn native(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let sum = rows.f_get(0)?;
        let mut steps = Vec::new();
        for row in 1..world.subtrees(world.process) {
            let into = sum.shallow_clone();
            steps.push(Step::Add { into, lower: sum.shallow_clone(), upper: rows.f_get(row)? });
        }
        steps.push(Step::AllReduce(sum.shallow_clone()));
        if world.ranks > 1 {
            steps.push(Step::Divide(sum, f64::from(world.ranks)));
        }
        Ok(Self(steps))
    }

    /// This plan, preceded by the additions of the given pairs of rows: the upper row is added to the lower one.
    pub(super) fn after(self, pairs: &[(usize, usize)], rows: &Tensor) -> Result<Self, TchError> {
        let row = |index: usize| rows.f_get(index as i64);
        let add = |(lower, upper): &(usize, usize)| {
            Ok(Step::Add { into: row(*lower)?, lower: row(*lower)?, upper: row(*upper)? })
        };
        let mut steps = pairs.iter().map(add).collect::<Result<Vec<_>, TchError>>()?;
        steps.extend(self.0);
        Ok(Self(steps))
    }

    /// Carries out the plan. `exchange` may be absent if there is only one process.
    pub(super) fn run(&mut self, mut exchange: Option<&mut dyn Exchange>) -> Result<(), ExchangeError> {
        for step in &mut self.0 {
            match step {
                Step::Exchange { outgoing, incoming } => {
                    if let Some(exchange) = exchange.as_deref_mut() {
                        exchange.exchange(outgoing, incoming)?;
                    }
                }
                Step::AllReduce(sum) => {
                    if let Some(exchange) = exchange.as_deref_mut() {
                        exchange.all_reduce(sum)?;
                    }
                }
                Step::Add { into, lower, upper } => drop(lower.f_add_out(into, upper)?),
                Step::Divide(sum, ranks) => drop(sum.f_div_scalar_(*ranks)?),
                Step::Copy { into, from } => into.f_copy_(from)?,
            }
        }
        Ok(())
    }
}

/// The additions that finish the tree over `subtrees` (by process), and the division. All tensors have the length of `result`, which may
/// share memory with any of them. No other tensor is written to.
fn tree(world: World, subtrees: &[Vec<Tensor>], result: &Tensor) -> Result<Vec<Step>, TchError> {
    let length = result.size()[0];
    let block = if result.device().is_cuda() { length.max(1) } else { BLOCK };
    let last = subtrees.iter().map(Vec::len).sum::<usize>() - 1;
    // A sum is stored in the scratch row of its position on the stack, which is never higher than the tree. Only the last sum goes to the
    // result.
    let height = i64::from(world.ranks.next_power_of_two().ilog2());
    let scratch = Tensor::f_zeros([height, block.min(length)], (result.kind(), result.device()))?;
    let mut steps = Vec::new();
    for start in (0..length).step_by(block as usize) {
        let here = start..length.min(start + block);
        let root = cut(result, 0, &here)?;
        let (mut stack, mut added): (Vec<Tensor>, usize) = (Vec::new(), 0);
        for (process, parts) in subtrees.iter().enumerate() {
            let nodes = cover(&hosted(process as u32, world.processes, world.ranks), world.ranks);
            for (node, part) in nodes.into_iter().zip(parts) {
                stack.push(cut(part, 0, &here)?);
                for _ in 0..merges(node, &(0..world.ranks), world.ranks) {
                    let upper = stack.pop().expect("the tree merges what was pushed");
                    let lower = stack.pop().expect("the tree merges what was pushed");
                    added += 1;
                    let into = if added == last {
                        root.shallow_clone()
                    } else {
                        cut(&scratch.f_get(stack.len() as i64)?, 0, &(0..here.end - here.start))?
                    };
                    stack.push(into.shallow_clone());
                    steps.push(Step::Add { into, lower, upper });
                }
            }
        }
        assert_eq!((stack.len(), added), (1, last), "the tree has one root");
        if world.ranks > 1 {
            steps.push(Step::Divide(root, f64::from(world.ranks)));
        }
    }
    Ok(steps)
}

fn unbind(rows: &Tensor, count: i64) -> Result<Vec<Tensor>, TchError> {
    (0..count).map(|row| rows.f_get(row)).collect()
}

pub(super) fn cut(tensor: &Tensor, dim: i64, range: &Range<i64>) -> Result<Tensor, TchError> {
    tensor.f_narrow(dim, range.start, range.end - range.start)
}

/// The slice of each process: as equal as multiples of [`ALIGN`] allow; some may be empty.
fn slices(stride: i64, processes: u32) -> Vec<Range<i64>> {
    let units = stride / ALIGN;
    let bound = |process: u32| units * i64::from(process) / i64::from(processes) * ALIGN;
    (0..processes)
        .map(|process| bound(process)..if process + 1 == processes { stride } else { bound(process + 1) })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slices_cover_everything_once_and_begin_at_cache_lines() {
        for stride in [16, 32, 48, 1600] {
            for processes in 1..9 {
                let slices = slices(stride, processes);
                assert_eq!((slices[0].start, slices[slices.len() - 1].end), (0, stride));
                assert!(slices.windows(2).all(|pair| pair[0].end == pair[1].start && pair[0].end % ALIGN == 0));
            }
        }
    }
}
