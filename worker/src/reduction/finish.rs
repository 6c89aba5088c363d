//! Finishing the tree between processes: who sends what, what is added to what. Planned once, over tensors that stay.
//!
//! With little to send, one round: everybody sends all its subtrees to all and finishes the whole tree. With much, two:
//! each process receives one slice of everybody's subtrees, finishes the tree on it, and gives the result to all. Either
//! way every element goes through the same additions in the same order.

use std::ops::Range;

use lockstep_common::reduction::{cover, merges};
use lockstep_common::world::hosted;
use tch::{TchError, Tensor};

use super::layout::ALIGN;
use crate::exchange::{Exchange, ExchangeError};

/// Up to this many bytes of one subtree, one round: a second round costs some 30 µs on loopback, about what it costs to
/// add this much; with more, it pays that each process receives and adds only its slice.
const ONE_ROUND_BYTES: i64 = 256 << 10;

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

/// The plan of one reduction's last part; the tensors in it are views of buffers that are used at every step.
#[derive(Debug)]
pub(super) struct Finish {
    rounds: Vec<Round>,
    additions: Vec<(Tensor, Tensor)>,
    /// What this process divides, and by how many ranks; `None` for one rank.
    mean: Option<(Tensor, f64)>,
    gather: Option<Round>,
    result: Tensor,
}

#[derive(Debug)]
struct Round {
    outgoing: Vec<Tensor>,
    incoming: Vec<Tensor>,
}

impl Finish {
    /// A plan for `world`, whose process holds its subtrees in the first rows of `rows`.
    pub(super) fn new(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let bytes = rows.size()[1] * rows.kind().elt_size_in_bytes() as i64;
        if bytes <= ONE_ROUND_BYTES || world.processes == 1 {
            Self::in_one_round(world, rows)
        } else {
            Self::in_two_rounds(world, rows)
        }
    }

    pub(super) fn in_one_round(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let stride = rows.size()[1];
        let own = world.process as usize;
        let blocks = (0..world.processes)
            .map(|process| {
                if process as usize == own {
                    rows.f_narrow(0, 0, world.subtrees(process))
                } else {
                    Tensor::f_zeros([world.subtrees(process), stride], (rows.kind(), rows.device()))
                }
            })
            .collect::<Result<Vec<_>, _>>()?;
        let outgoing = blocks.iter().map(|_| blocks[own].f_view([-1])).collect::<Result<_, _>>()?;
        let incoming = blocks.iter().map(|block| block.f_view([-1])).collect::<Result<_, _>>()?;
        let result = blocks[0].f_get(0)?;
        let mut subtrees = Vec::new();
        for block in &blocks {
            subtrees.push((0..block.size()[0]).map(|row| block.f_get(row)).collect::<Result<Vec<_>, _>>()?);
        }
        let rounds = if world.processes == 1 { Vec::new() } else { vec![Round { outgoing, incoming }] };
        let mean = (world.ranks > 1).then(|| (result.shallow_clone(), f64::from(world.ranks)));
        Ok(Self { rounds, additions: additions(world, subtrees), mean, gather: None, result })
    }

    pub(super) fn in_two_rounds(world: World, rows: &Tensor) -> Result<Self, TchError> {
        let stride = rows.size()[1];
        let slices = slices(stride, world.processes);
        let narrow = |tensor: &Tensor, slice: &Range<i64>| tensor.f_narrow(0, slice.start, slice.end - slice.start);
        let empty = || rows.f_get(0)?.f_narrow(0, 0, 0);
        let own = world.process as usize;
        let length = slices[own].end - slices[own].start;
        // Process 0's first subtree is what all else is added to: it is received where the result is wanted.
        let result = match own {
            0 => rows.f_get(0)?,
            _ => Tensor::f_zeros([stride], (rows.kind(), rows.device()))?,
        };
        let mut subtrees = Vec::new();
        for process in 0..world.processes {
            let mut parts = Vec::new();
            for row in 0..world.subtrees(process) {
                parts.push(match (process as usize, row) {
                    (process, row) if process == own => narrow(&rows.f_get(row)?, &slices[own])?,
                    (0, 0) => narrow(&result, &slices[own])?,
                    _ => Tensor::f_zeros([length], (rows.kind(), rows.device()))?,
                });
            }
            subtrees.push(parts);
        }
        let mut rounds = Vec::new();
        for row in 0..(0..world.processes).map(|process| world.subtrees(process)).max().unwrap_or(0) {
            let mut round = Round { outgoing: Vec::new(), incoming: Vec::new() };
            for (process, slice) in slices.iter().enumerate() {
                let mine = row < world.subtrees(world.process);
                round.outgoing.push(if mine { narrow(&rows.f_get(row)?, slice)? } else { empty()? });
                round.incoming.push(match subtrees[process].get(row as usize) {
                    Some(part) => part.shallow_clone(),
                    None => empty()?,
                });
            }
            rounds.push(round);
        }
        let mine = narrow(&result, &slices[own])?;
        let gather = Round {
            outgoing: slices.iter().map(|_| mine.shallow_clone()).collect(),
            incoming: slices.iter().map(|slice| narrow(&result, slice)).collect::<Result<_, _>>()?,
        };
        let mean = (world.ranks > 1).then(|| (mine, f64::from(world.ranks)));
        Ok(Self { rounds, additions: additions(world, subtrees), mean, gather: Some(gather), result })
    }

    /// Where the mean stands after [`Finish::run`].
    pub(super) fn result(&self) -> &Tensor {
        &self.result
    }

    /// Exchanges, adds, divides. `exchange` may be absent for one process.
    pub(super) fn run(&mut self, mut exchange: Option<&mut dyn Exchange>) -> Result<(), ExchangeError> {
        if let Some(exchange) = exchange.as_deref_mut() {
            for round in &mut self.rounds {
                exchange.exchange(&round.outgoing, &mut round.incoming)?;
            }
        }
        for (lower, upper) in &mut self.additions {
            let _ = lower.f_add_(upper)?;
        }
        if let Some((sum, ranks)) = &mut self.mean {
            let _ = sum.f_div_scalar_(*ranks)?;
        }
        if let (Some(round), Some(exchange)) = (&mut self.gather, exchange) {
            exchange.exchange(&round.outgoing, &mut round.incoming)?;
        }
        Ok(())
    }
}

/// The additions `lower += upper` that finish the tree, in order; the sum ends in the first process's first subtree.
fn additions(world: World, subtrees: Vec<Vec<Tensor>>) -> Vec<(Tensor, Tensor)> {
    let (mut stack, mut additions): (Vec<Tensor>, Vec<_>) = (Vec::new(), Vec::new());
    for (process, parts) in subtrees.into_iter().enumerate() {
        let nodes = cover(&hosted(process as u32, world.processes, world.ranks), world.ranks);
        for (node, part) in nodes.into_iter().zip(parts) {
            stack.push(part);
            for _ in 0..merges(node, &(0..world.ranks), world.ranks) {
                let upper = stack.pop().expect("the tree merges what was pushed");
                let lower = stack.last().expect("the tree merges what was pushed").shallow_clone();
                additions.push((lower, upper));
            }
        }
    }
    assert_eq!(stack.len(), 1, "the tree has one root");
    additions
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
