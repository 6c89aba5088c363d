//! The reduction tree over flat tensors. Hot: every tensor is a view made before the first step.

use std::ops::Range;

use lockstep_common::job::Reduction;
use lockstep_common::reduction::{Node, merges};
use lockstep_common::world::hosted;
use lockstep_tch_ext::fold::grads_into;
use tch::{Device, Kind, TchError, Tensor};

use super::Layout;
use super::finish::{Finish, World, cut};
use super::overlap::{Overlap, Parts};
use super::used::{Used, join};
use super::{Exchange, ExchangeError};

/// Up to this many bytes of one subtree, one round: more rounds cost more than it costs to add this much; with more, it
/// pays that each process reads and adds only its slice.
const ONE_ROUND_BYTES: i64 = 128 << 10;

/// Bytes of a bucket, at least: on the CPU so few that what is left after the backward pass is little, and enough that a
/// link between machines does not become slower by it (measured with 256 KiB to 4 MiB over 1 Gbit/s); on GPUs as many as
/// DDP has, for NCCL needs more (not measured).
pub(crate) fn bucket_bytes(device: Device) -> i64 {
    if device.is_cuda() { 25 << 20 } else { 512 << 10 }
}

/// Elements of [`Leaf::sample`], about: enough that a changed weight shows in some, few enough to be copied at every step.
pub(super) const SAMPLE: i64 = 64;

/// Where one rank's gradient and loss go.
#[derive(Debug)]
pub struct Leaf {
    /// All gradients, flat: [`Layout::elements`] long.
    pub gradients: Tensor,
    /// The loss: one element.
    pub loss: Tensor,
    /// Some of the gradients, evenly spaced, and the loss.
    pub sample: Tensor,
    /// For each parameter 1 if the rank's loss depends on it, else 0.
    used: Used,
}

/// Adds the ranks' leaves in tree order, over all processes, and gives the mean.
#[derive(Debug)]
pub struct Reducer {
    /// One place for each height of the stack that the hosted ranks are folded on.
    leaves: Vec<Leaf>,
    /// For each hosted rank: its place on the stack, and the additions after it has come.
    folds: Vec<(usize, Vec<(Tensor, Tensor)>)>,
    /// What brings the processes together, part by part of the flat tensor; after it the mean is there.
    buckets: Vec<Finish>,
    /// Where they lie; empty if the whole is one, in windows.
    pub(super) ranges: Vec<Range<i64>>,
    overlap: Option<Overlap>,
    /// The last hosted rank's sample, where the rank's leaf may be changed already.
    sample: Tensor,
    gradients: Tensor,
    loss: Tensor,
    /// The share of all ranks that used each parameter.
    shares: Tensor,
    /// Scratch: one byte for each parameter.
    used: Vec<u8>,
    /// For each parameter 1 if one of this step's hosted ranks used it.
    used_here: Vec<u8>,
    /// Each parameter's gradient in the parameter's dtype; where that is not the layout's, a copy to be filled.
    parts: Vec<Tensor>,
    casts: Vec<(usize, Tensor)>,
}

/// How the processes' sums are brought together. All give the same bits but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Alone,
    OneRound,
    Slices {
        /// Read where they lie, if the exchange has windows.
        in_place: bool,
    },
    Native,
}

impl Strategy {
    fn new(layout: &Layout, order: Reduction, processes: u32) -> Self {
        let bytes = layout.stride() * layout.kind().elt_size_in_bytes() as i64;
        match order {
            Reduction::Native => Self::Native,
            Reduction::Tree if processes == 1 => Self::Alone,
            Reduction::Tree if bytes <= ONE_ROUND_BYTES => Self::OneRound,
            Reduction::Tree => Self::Slices { in_place: true },
        }
    }
}

impl Reducer {
    /// A reducer for `process` of `processes`, which share `ranks`. Every process of `exchange` makes one at the same
    /// time; one that is alone needs none.
    pub fn new(
        layout: &Layout,
        order: Reduction,
        (process, processes): (u32, u32),
        ranks: u32,
        device: Device,
        exchange: Option<&mut dyn Exchange>,
    ) -> Result<Self, ExchangeError> {
        let world = World { process, processes, ranks };
        Self::build(layout, world, device, Strategy::new(layout, order, processes), bucket_bytes(device), exchange)
    }

    pub(super) fn build(
        layout: &Layout,
        world: World,
        device: Device,
        strategy: Strategy,
        bucket_bytes: i64,
        exchange: Option<&mut dyn Exchange>,
    ) -> Result<Self, ExchangeError> {
        let mine = hosted(world.process, world.processes, world.ranks);
        let (mut plan, highest) = order(&mine, world.ranks);
        let stride = layout.stride();
        let windows = match exchange {
            Some(exchange) if strategy == (Strategy::Slices { in_place: true }) => {
                exchange.windows(highest as i64 * stride, layout.kind())?
            }
            _ => None,
        };
        // What the last hosted rank is added to belongs to its bucket: until then its leaf is as it came.
        let last = plan.last_mut().map(|(_, pairs)| std::mem::take(pairs)).unwrap_or_default();
        let (rows, buckets, ranges) = if let Some(windows) = windows {
            let rows = windows.iter().map(|window| window.f_view([-1, stride])).collect::<Result<Vec<_>, _>>()?;
            let own = rows[world.process as usize].shallow_clone();
            let whole = Finish::in_place(world, &rows)?.after(&last, &own)?;
            (own, vec![whole], Vec::new())
        } else {
            let rows = Tensor::f_zeros([highest as i64, stride], (layout.kind(), device))?;
            let ranges = match strategy {
                Strategy::Alone | Strategy::OneRound => layout.buckets(i64::MAX),
                Strategy::Slices { .. } | Strategy::Native => layout.buckets(bucket_bytes),
            };
            let finish = |range: &Range<i64>| {
                let rows = cut(&rows, 1, range)?;
                let finish = match strategy {
                    Strategy::Alone => Finish::alone(world, &rows)?,
                    Strategy::OneRound => Finish::in_one_round(world, &rows)?,
                    Strategy::Slices { .. } => Finish::in_two_rounds(world, &rows)?,
                    Strategy::Native => Finish::native(world, &rows)?,
                };
                finish.after(&last, &rows)
            };
            let buckets = ranges.iter().map(finish).collect::<Result<Vec<_>, TchError>>()?;
            (rows, buckets, ranges)
        };
        let row = |index: usize| rows.f_get(index as i64);
        let leaves = (0..highest).map(|index| leaf(layout, &row(index)?)).collect::<Result<Vec<_>, TchError>>()?;
        let mut folds = Vec::new();
        for (place, pairs) in plan {
            let pairs = pairs.into_iter().map(|(lower, upper)| Ok((row(lower)?, row(upper)?)));
            folds.push((place, pairs.collect::<Result<_, TchError>>()?));
        }
        // The mean ends in the first row, whatever the strategy.
        let (gradients, loss) = (leaves[0].gradients.shallow_clone(), leaves[0].loss.shallow_clone());
        let (mut parts, mut casts) = (Vec::new(), Vec::new());
        for (index, (part, kind)) in layout.parts(&gradients)?.into_iter().enumerate() {
            if kind == layout.kind() {
                parts.push(part);
            } else {
                parts.push(part.f_to_kind(kind)?);
                casts.push((index, part));
            }
        }
        let sample = leaves[0].sample.copy();
        let shares = leaves[0].used.place.shallow_clone();
        let (used, used_here) = (vec![0; parts.len()], vec![0; parts.len()]);
        let overlap = None;
        Ok(Self {
            leaves,
            folds,
            buckets,
            ranges,
            overlap,
            sample,
            gradients,
            loss,
            shares,
            used,
            used_here,
            parts,
            casts,
        })
    }

    /// Lets [`Reducer::backward_beside`] reduce while the backward pass goes on, if there is more than one bucket, which is
    /// where gradients go to other machines or GPUs. The parameters are those of `layout`.
    pub fn overlap(&mut self, layout: &Layout, parameters: &[Tensor]) -> Result<(), ExchangeError> {
        if self.ranges.len() < 2 {
            return Ok(());
        }
        let leaf = &self.leaves[self.folds[self.folds.len() - 1].0];
        let places = layout.parts(&leaf.gradients)?.into_iter().map(|(place, _)| place);
        let head = layout.head();
        let ranges = layout.offsets().windows(2).map(|offsets| head + offsets[0]..head + offsets[1]);
        let spacing = layout.elements() / SAMPLE + 1;
        // How many of a sample's elements lie before this one of what is reduced.
        let before = |at: i64| ((at - head - layout.elements() % spacing).max(0) + spacing - 1) / spacing;
        let sample = |range: &Range<i64>| {
            let part = before(range.start)..before(range.end).min(self.sample.numel() as i64);
            Ok((cut(&leaf.sample, 0, &part)?, cut(&self.sample, 0, &part)?))
        };
        let samples = self.ranges.iter().map(sample).collect::<Result<_, TchError>>()?;
        let used = leaf.used.share();
        let parts = Parts { places: places.zip(ranges).collect(), buckets: self.ranges.clone(), samples, used };
        self.overlap = Some(Overlap::new(parameters, parts, leaf.gradients.device())?);
        Ok(())
    }

    /// Where the gradient and loss of the `index`-th hosted rank go, before [`Reducer::fold`].
    pub fn leaf(&mut self, index: usize) -> &mut Leaf {
        &mut self.leaves[self.folds[index].0]
    }

    /// The backward pass of `loss` by `parameters`: the gradients of the `index`-th hosted rank go to its leaf.
    pub fn backward(
        &mut self,
        index: usize,
        loss: &Tensor,
        parameters: &[Tensor],
    ) -> Result<(), lockstep_tch_ext::Error> {
        let leaf = &mut self.leaves[self.folds[index].0];
        grads_into(loss, parameters, &leaf.gradients, &mut self.used)?;
        if index == 0 {
            self.used_here.fill(0);
        }
        join(&mut self.used_here, &self.used);
        Ok(leaf.used.note(&self.used)?)
    }

    /// The same for the last hosted rank, whose loss is in its leaf; what [`Reducer::finish`] waits for begins meanwhile.
    /// Until then the exchange is away, and of the rank's own gradient there is only [`Reducer::sample`] left.
    pub fn backward_beside(
        &mut self,
        loss: &Tensor,
        parameters: &[Tensor],
        exchange: &mut Option<Box<dyn Exchange>>,
    ) -> Result<(), lockstep_tch_ext::Error> {
        let last = self.folds.len() - 1;
        let Some(overlap) = &mut self.overlap else { return self.backward(last, loss, parameters) };
        let Some(exchange) = exchange.take() else { return self.backward(last, loss, parameters) };
        if last == 0 {
            self.used_here.fill(0);
        }
        overlap.backward(loss, parameters, exchange, std::mem::take(&mut self.buckets))
    }

    /// A sample of what the `index`-th hosted rank's backward pass gave.
    pub fn sample(&self, index: usize) -> &Tensor {
        match &self.overlap {
            Some(overlap) if overlap.under_way() && index + 1 == self.folds.len() => &self.sample,
            _ => &self.leaves[self.folds[index].0].sample,
        }
    }

    /// Takes the `index`-th hosted rank's leaf, after those of the ranks before it. The last one stays as it is.
    pub fn fold(&mut self, index: usize) -> Result<(), TchError> {
        for (lower, upper) in &mut self.folds[index].1 {
            let _ = lower.f_add_(upper)?;
        }
        Ok(())
    }

    /// Finishes the tree over all processes: afterwards [`Reducer::gradients`] and [`Reducer::loss`] are the means over
    /// ranks. There is no exchange for one process.
    pub fn finish(&mut self, exchange: &mut Option<Box<dyn Exchange>>) -> Result<(), ExchangeError> {
        if let Some(overlap) = self.overlap.as_mut().filter(|overlap| overlap.under_way()) {
            let (returned, buckets, reduced) = overlap.finish();
            overlap.join_used(&mut self.used_here);
            *exchange = Some(returned);
            self.buckets = buckets;
            return reduced;
        }
        for bucket in &mut self.buckets {
            bucket.run(exchange.as_deref_mut().map(|exchange| exchange as &mut dyn Exchange))?;
        }
        Ok(())
    }

    /// The mean gradient, flat.
    pub fn gradients(&mut self) -> &mut Tensor {
        &mut self.gradients
    }

    /// The mean loss.
    ///
    /// # Errors
    /// libtorch's, if the device failed: reading waits for it.
    pub fn loss(&self) -> Result<f64, TchError> {
        self.loss.f_double_value(&[0])
    }

    /// The same where it lies: one element.
    pub fn loss_beside(&self) -> &Tensor {
        &self.loss
    }

    /// For each parameter 1 if any rank's loss depended on it, else 0: equal in all processes. Where the hosted ranks used all, which
    /// is nearly always so, nothing is read from the device.
    ///
    /// # Errors
    /// libtorch's, as of [`Reducer::loss`].
    pub fn used(&self) -> Result<Vec<u8>, TchError> {
        if self.used_here.iter().all(|used| *used != 0) {
            return Ok(self.used_here.clone());
        }
        let shares = Vec::<f64>::try_from(&self.shares.f_to_kind(Kind::Double)?)?;
        Ok(shares.into_iter().map(|share| u8::from(share > 0.0)).collect())
    }

    /// The mean gradient by parameter, each in its parameter's shape and dtype.
    pub fn parts(&mut self) -> Result<&[Tensor], TchError> {
        for (index, part) in &self.casts {
            self.parts[*index].f_copy_(part)?;
        }
        Ok(&self.parts)
    }
}

/// The row that a rank's micro-batch is computed in, and the pairs of rows that are added then.
type Turn = (usize, Vec<(usize, usize)>);

/// The turn of each hosted rank, in order; how many rows there are.
fn order(mine: &Range<u32>, ranks: u32) -> (Vec<Turn>, usize) {
    let (mut plan, mut height, mut highest) = (Vec::new(), 0, 1);
    for rank in mine.clone() {
        let place = height;
        let count = merges(Node { lo: rank, hi: rank + 1 }, mine, ranks);
        height = height + 1 - count;
        highest = highest.max(place + 1);
        plan.push((place, (0..count).map(|merge| (place - merge - 1, place - merge)).collect()));
    }
    (plan, highest)
}

/// The parts of a row that holds one rank's gradients and loss.
fn leaf(layout: &Layout, row: &Tensor) -> Result<Leaf, TchError> {
    let (elements, stride) = (layout.elements(), layout.stride());
    let spacing = elements / SAMPLE + 1;
    let body = row.f_narrow(0, layout.head(), stride - layout.head())?;
    let (gradients, loss) = (body.f_narrow(0, 0, elements)?, body.f_narrow(0, elements, 1)?);
    let sample = body.f_slice(0, elements % spacing, elements + 1, spacing)?;
    Ok(Leaf { gradients, loss, sample, used: Used::new(layout, row)? })
}
