//! Finishing the tree between processes: who gives what to whom, what is added to what. Planned once, over tensors that
//! stay.
//!
//! With little to send, one round: everybody sends all its subtrees to all and finishes the whole tree. With much, each
//! process finishes the tree on one slice, and everybody gathers the slices: through two rounds of messages, or, when
//! all processes see each other's memory, by reading it where it lies. With each strategy, every element goes through the same
//! additions in the same order.

use std::ops::Range;

use lockstep_common::reduction::{cover, merges};
use lockstep_common::world::hosted;
use tch::{TchError, Tensor};

use super::layout::ALIGN;
use super::{Exchange, ExchangeError};

/// On the CPU, so many elements go through all additions before the next ones begin: what is added up stays in the
/// processor's own caches. Few enough for that, and enough that the calls do not count.
const BLOCK: i64 = 32 << 10;

/// Who the processes are, and how much each rank brings.
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

/// The plan of one reduction's last part. The mean ends in this process's first row.
#[derive(Debug)]
pub(super) struct Finish(Vec<Step>);

#[derive(Debug)]
enum Step {
    /// The back end's own sum over processes.
    AllReduce(Tensor),
    /// One round of the exchange; of nothing, it is a barrier.
    Exchange { outgoing: Vec<Tensor>, incoming: Vec<Tensor> },
    /// `into = lower + upper`; `into` may be one of the two.
    Add { into: Tensor, lower: Tensor, upper: Tensor },
    /// By the number of ranks.
    Divide(Tensor, f64),
    /// Out of another process's memory.
    Copy { into: Tensor, from: Tensor },
}

impl Finish {
    /// For a process that is alone: its first row holds the sum already.
    pub(super) fn alone(world: World, rows: &Tensor) -> Result<Self, TchError> {
        Ok(Self(tree(world, &[unbind(rows, 1)?], &rows.f_get(0)?)?))
    }

    /// Everybody's subtrees to all; this process's are the first of its `rows`.
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

    /// Slices of everybody's subtrees to the slice's process, and its mean to all.
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

    /// The same without messages: each process finishes its slice out of everybody's `rows` (by process, and every
    /// process's own are its own to write), and copies the others' means out of their first rows.
    ///
    /// Nobody touches another's memory but between the first barrier and the last: the first says that all rows are
    /// complete, the second that all means are, and that no other slice of a row is needed any more; the last that all
    /// have their copies.
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

    /// By the back end: everything that this process hosts goes into one sum, and the back end adds the processes' sums.
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

    /// The same after these rows have been added up: the upper to the lower, pair by pair.
    pub(super) fn after(self, pairs: &[(usize, usize)], rows: &Tensor) -> Result<Self, TchError> {
        let row = |index: usize| rows.f_get(index as i64);
        let add = |(lower, upper): &(usize, usize)| {
            Ok(Step::Add { into: row(*lower)?, lower: row(*lower)?, upper: row(*upper)? })
        };
        let mut steps = pairs.iter().map(add).collect::<Result<Vec<_>, TchError>>()?;
        steps.extend(self.0);
        Ok(Self(steps))
    }

    /// Exchanges, adds, divides. `exchange` may be absent for one process.
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

/// The additions that finish the tree over `subtrees`, by process, and the division: from tensors of one length to
/// `result`, which may share memory with any of them. Nothing else is written to.
fn tree(world: World, subtrees: &[Vec<Tensor>], result: &Tensor) -> Result<Vec<Step>, TchError> {
    let length = result.size()[0];
    let block = if result.device().is_cuda() { length.max(1) } else { BLOCK };
    let last = subtrees.iter().map(Vec::len).sum::<usize>() - 1;
    // A sum lies in the scratch row of its place on the stack, which is never higher than the tree; only the last goes
    // where the result is wanted.
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

/// The slice of each process: as even as whole [`ALIGN`]s allow; some may be empty.
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
