//! The reduction tree over flat tensors. Hot: all tensors are views that are created before the first step.

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

/// Up to this size of a subtree, in bytes, one round is used, because further rounds would take longer than the additions. Above it, each
/// process reads and adds only its slice.
const ONE_ROUND_BYTES: i64 = 128 << 10;

/// Minimum size of a bucket in bytes. On the CPU: small enough that little is left after the backward pass, and large enough to use a
/// network link fully (measured with 256 KiB to 4 MiB over 1 Gbit/s). On GPUs: the size that PyTorch's DDP uses, because NCCL needs
/// larger messages (not measured).
pub(crate) fn bucket_bytes(device: Device) -> i64 {
    if device.is_cuda() { 25 << 20 } else { 512 << 10 }
}

/// Approximate number of elements of [`Leaf::sample`]: enough for a changed weight to show, few enough to be copied at every step.
pub(super) const SAMPLE: i64 = 64;

/// The tensors for one rank's gradient and loss.
#[derive(Debug)]
pub struct Leaf {
    /// All gradients, flat, of length [`Layout::elements`].
    pub gradients: Tensor,
    /// The loss: one element.
    pub loss: Tensor,
    /// Some elements of the gradients, evenly spaced, and the loss.
    pub sample: Tensor,
    /// For each parameter 1 if the rank's loss depends on it, else 0.
    used: Used,
}

/// Adds the leaves of all ranks in the order of the tree, over all processes, and computes the mean.
#[derive(Debug)]
pub struct Reducer {
    /// The rows of the stack on which the hosted ranks are added.
    leaves: Vec<Leaf>,
    /// For each hosted rank: its row on the stack, and the additions after its leaf is complete.
    folds: Vec<(usize, Vec<(Tensor, Tensor)>)>,
    /// For each bucket the plan that reduces it between the processes; afterwards it has the mean.
    buckets: Vec<Finish>,
    /// The range of each bucket in the flat tensor; empty if there is one bucket in shared memory.
    pub(super) ranges: Vec<Range<i64>>,
    overlap: Option<Overlap>,
    /// The sample of the last hosted rank, copied because the reduction may change the leaf at any time.
    sample: Tensor,
    gradients: Tensor,
    loss: Tensor,
    /// For each parameter the fraction of all ranks that used it.
    shares: Tensor,
    /// Scratch memory: one byte for each parameter.
    used: Vec<u8>,
    /// For each parameter 1 if a hosted rank used it in this step.
    used_here: Vec<u8>,
    /// Each parameter's gradient in the parameter's element type. If that differs from the layout's, it is a copy that is filled on demand.
    parts: Vec<Tensor>,
    casts: Vec<(usize, Tensor)>,
}

/// How the sums of the processes are combined. All but `Native` give the same bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strategy {
    Alone,
    OneRound,
    Slices {
        /// Through shared memory, if the exchange has it.
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
    /// A reducer for process `process` of `processes`, which host `ranks` ranks. All processes of `exchange` call it together; a single
    /// process needs no exchange.
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
        // The additions of the last hosted rank belong to the plans of the buckets, so that its leaf is unchanged until then.
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
        // Every strategy stores the mean in the first row.
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

    /// Prepares [`Reducer::backward_beside`] to reduce during the backward pass. Has no effect if there are fewer than two buckets, as
    /// for small models and in shared memory. `parameters` must be those of `layout`.
    pub fn overlap(&mut self, layout: &Layout, parameters: &[Tensor]) -> Result<(), ExchangeError> {
        if self.ranges.len() < 2 {
            return Ok(());
        }
        let leaf = &self.leaves[self.folds[self.folds.len() - 1].0];
        let places = layout.parts(&leaf.gradients)?.into_iter().map(|(place, _)| place);
        let head = layout.head();
        let ranges = layout.offsets().windows(2).map(|offsets| head + offsets[0]..head + offsets[1]);
        let spacing = layout.elements() / SAMPLE + 1;
        // The number of elements of the sample before the index `at` of the reduced tensor.
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

    /// The leaf of the `index`-th hosted rank, to be filled before [`Reducer::fold`].
    pub fn leaf(&mut self, index: usize) -> &mut Leaf {
        &mut self.leaves[self.folds[index].0]
    }

    /// Runs the backward pass of `loss` by `parameters`, and writes the gradients to the leaf of the `index`-th hosted rank.
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

    /// The same for the last hosted rank, whose loss must be in its leaf already; the reduction begins during the backward pass. Until
    /// [`Reducer::finish`] returns, `exchange` is `None`, and of the rank's own gradient only [`Reducer::sample`] is available.
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

    /// The sample of the gradient of the `index`-th hosted rank.
    pub fn sample(&self, index: usize) -> &Tensor {
        match &self.overlap {
            Some(overlap) if overlap.under_way() && index + 1 == self.folds.len() => &self.sample,
            _ => &self.leaves[self.folds[index].0].sample,
        }
    }

    /// Adds the leaf of the `index`-th hosted rank to the tree; ranks must be added in order. The leaf of the last one is not changed yet.
    pub fn fold(&mut self, index: usize) -> Result<(), TchError> {
        for (lower, upper) in &mut self.folds[index].1 {
            let _ = lower.f_add_(upper)?;
        }
        Ok(())
    }

    /// Finishes the reduction over all processes. Afterwards [`Reducer::gradients`] and [`Reducer::loss`] are the means over all ranks.
    /// `exchange` is `None` for a single process, and after [`Reducer::backward_beside`], which returns it here.
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

    /// The mean loss over all ranks; waits for the device.
    ///
    /// # Errors
    /// libtorch's, if the device failed: reading waits for the device.
    pub fn loss(&self) -> Result<f64, TchError> {
        self.loss.f_double_value(&[0])
    }

    /// The mean loss on the device, as a tensor of one element; does not wait.
    pub fn loss_beside(&self) -> &Tensor {
        &self.loss
    }

    /// For each parameter 1 if any rank's loss depends on it, else 0; the same in all processes. If the hosted ranks used all parameters,
    /// which is the usual case, nothing is read from the device.
    ///
    /// # Errors
    /// As for [`Reducer::loss`].
    pub fn used(&self) -> Result<Vec<u8>, TchError> {
        if self.used_here.iter().all(|used| *used != 0) {
            return Ok(self.used_here.clone());
        }
        let shares = Vec::<f64>::try_from(&self.shares.f_to_kind(Kind::Double)?)?;
        Ok(shares.into_iter().map(|share| u8::from(share > 0.0)).collect())
    }

    /// The mean gradient of each parameter, in the parameter's shape and element type.
    pub fn parts(&mut self) -> Result<&[Tensor], TchError> {
        for (index, part) in &self.casts {
            self.parts[*index].f_copy_(part)?;
        }
        Ok(&self.parts)
    }
}

/// The row of a rank's leaf, and the pairs of rows that are added after it.
type Turn = (usize, Vec<(usize, usize)>);

/// The turn of each hosted rank, in order, and the number of rows.
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

/// The leaf whose tensors are parts of `row`.
fn leaf(layout: &Layout, row: &Tensor) -> Result<Leaf, TchError> {
    let (elements, stride) = (layout.elements(), layout.stride());
    let spacing = elements / SAMPLE + 1;
    let body = row.f_narrow(0, layout.head(), stride - layout.head())?;
    let (gradients, loss) = (body.f_narrow(0, 0, elements)?, body.f_narrow(0, elements, 1)?);
    let sample = body.f_slice(0, elements % spacing, elements + 1, spacing)?;
    Ok(Leaf { gradients, loss, sample, used: Used::new(layout, row)? })
}
