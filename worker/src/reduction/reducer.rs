//! The reduction tree over flat tensors. Hot: every tensor is a view made before the first step.

use std::ops::Range;

use lockstep_common::job::Reduction;
use lockstep_common::reduction::{Node, merges};
use lockstep_common::world::hosted;
use lockstep_tch_ext::fold::grads_into;
use tch::{Device, TchError, Tensor};

use super::Layout;
use super::finish::{Finish, World, cut};
use super::overlap::{Overlap, Parts};
use crate::exchange::{Exchange, ExchangeError};

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
const SAMPLE: i64 = 64;

/// Where one rank's gradient and loss go.
#[derive(Debug)]
pub struct Leaf {
    /// All gradients, flat: [`Layout::elements`] long.
    pub gradients: Tensor,
    /// The loss: one element.
    pub loss: Tensor,
    /// Some of the gradients, evenly spaced, and the loss.
    pub sample: Tensor,
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
    ranges: Vec<Range<i64>>,
    overlap: Option<Overlap>,
    /// The last hosted rank's sample, where the rank's leaf may be changed already.
    sample: Tensor,
    gradients: Tensor,
    loss: Tensor,
    /// Each parameter's gradient in the parameter's dtype; where that is not the layout's, a copy to be filled.
    parts: Vec<Tensor>,
    casts: Vec<(usize, Tensor)>,
}

/// How the processes' sums are brought together. All give the same bits but the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Alone,
    OneRound,
    Slices {
        /// Read where they lie, if the exchange has windows.
        in_place: bool,
    },
    Native,
}

impl Way {
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
        Self::build(layout, world, device, Way::new(layout, order, processes), bucket_bytes(device), exchange)
    }

    fn build(
        layout: &Layout,
        world: World,
        device: Device,
        way: Way,
        bucket_bytes: i64,
        exchange: Option<&mut dyn Exchange>,
    ) -> Result<Self, ExchangeError> {
        let mine = hosted(world.process, world.processes, world.ranks);
        let mut plan = Vec::new();
        let mut height = 0;
        let mut highest = 1;
        for rank in mine.clone() {
            let place = height;
            let count = merges(Node { lo: rank, hi: rank + 1 }, &mine, world.ranks);
            height = height + 1 - count;
            highest = highest.max(place + 1);
            plan.push((place, (0..count).map(|merge| (place - merge - 1, place - merge)).collect::<Vec<_>>()));
        }
        let (elements, stride) = (layout.elements(), layout.stride());
        let windows = match exchange {
            Some(exchange) if way == (Way::Slices { in_place: true }) => {
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
            let ranges = match way {
                Way::Alone | Way::OneRound => layout.buckets(i64::MAX),
                Way::Slices { .. } | Way::Native => layout.buckets(bucket_bytes),
            };
            let finish = |range: &Range<i64>| {
                let rows = cut(&rows, 1, range)?;
                let finish = match way {
                    Way::Alone => Finish::alone(world, &rows)?,
                    Way::OneRound => Finish::in_one_round(world, &rows)?,
                    Way::Slices { .. } => Finish::in_two_rounds(world, &rows)?,
                    Way::Native => Finish::native(world, &rows)?,
                };
                finish.after(&last, &rows)
            };
            let buckets = ranges.iter().map(finish).collect::<Result<Vec<_>, TchError>>()?;
            (rows, buckets, ranges)
        };
        let row = |index: usize| rows.f_get(index as i64);
        let spacing = elements / SAMPLE + 1;
        let mut leaves = Vec::new();
        for index in 0..highest {
            let row = row(index)?;
            let (gradients, loss) = (row.f_narrow(0, 0, elements)?, row.f_narrow(0, elements, 1)?);
            let sample = row.f_slice(0, elements % spacing, elements + 1, spacing)?;
            leaves.push(Leaf { gradients, loss, sample });
        }
        let mut folds = Vec::new();
        for (place, pairs) in plan {
            let pairs = pairs.into_iter().map(|(lower, upper)| Ok((row(lower)?, row(upper)?)));
            folds.push((place, pairs.collect::<Result<_, TchError>>()?));
        }
        // The mean ends in the first row, whatever the way.
        let (gradients, loss) = (leaves[0].gradients.shallow_clone(), leaves[0].loss.shallow_clone());
        let (mut parts, mut casts) = (Vec::new(), Vec::new());
        for (index, (part, kind)) in layout.parts(&row(0)?)?.into_iter().enumerate() {
            if kind == layout.kind() {
                parts.push(part);
            } else {
                parts.push(part.f_to_kind(kind)?);
                casts.push((index, part));
            }
        }
        let sample = leaves[0].sample.copy();
        Ok(Self { leaves, folds, buckets, ranges, overlap: None, sample, gradients, loss, parts, casts })
    }

    /// Lets [`Reducer::backward_beside`] reduce while the backward pass goes on, if there is more than one bucket, which is
    /// where gradients go to other machines or GPUs. The parameters are those of `layout`.
    pub fn overlap(&mut self, layout: &Layout, parameters: &[Tensor]) -> Result<(), ExchangeError> {
        if self.ranges.len() < 2 {
            return Ok(());
        }
        let leaf = &self.leaves[self.folds[self.folds.len() - 1].0];
        let places = layout.parts(&leaf.gradients)?.into_iter().map(|(place, _)| place);
        let ranges = layout.offsets().windows(2).map(|offsets| offsets[0]..offsets[1]);
        let spacing = layout.elements() / SAMPLE + 1;
        // How many of a sample's elements lie before this one of the flat tensor.
        let before = |at: i64| ((at - layout.elements() % spacing).max(0) + spacing - 1) / spacing;
        let sample = |range: &Range<i64>| {
            let part = before(range.start)..before(range.end).min(self.sample.numel() as i64);
            Ok((cut(&leaf.sample, 0, &part)?, cut(&self.sample, 0, &part)?))
        };
        let samples = self.ranges.iter().map(sample).collect::<Result<_, TchError>>()?;
        let parts = Parts { places: places.zip(ranges).collect(), buckets: self.ranges.clone(), samples };
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
        grads_into(loss, parameters, &self.leaf(index).gradients, true)
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
            let (lent, buckets, reduced) = overlap.finish();
            *exchange = Some(lent);
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

    /// The mean gradient by parameter, each in its parameter's shape and dtype.
    pub fn parts(&mut self) -> Result<&[Tensor], TchError> {
        for (index, part) in &self.casts {
            self.parts[*index].f_copy_(part)?;
        }
        Ok(&self.parts)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;
    use std::time::{Duration, Instant};

    use lockstep_common::reduction::reference;
    use lockstep_exchange::{Listener, Mesh, MeshConfig};
    use lockstep_tch_ext::hooks::on_grad;
    use tch::Kind;

    use super::*;
    use crate::exchange::{CutHandle, MeshExchange};

    /// By parameter; together not a multiple of anything, and more than one block on each of two processes.
    const SIZES: [usize; 5] = [60_000, 1_000, 50_000, 3, 29_000];
    const ELEMENTS: usize = 140_003;
    /// The loss of a second step does not depend on the second parameter.
    const UNUSED: Range<usize> = 60_000..61_000;
    /// So that there are three buckets.
    const BUCKET_BYTES: i64 = 100 << 10;

    /// Values whose sum depends on the order of additions.
    fn value(rank: u32, index: usize) -> f32 {
        let mixed = (u64::from(rank) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(index as u64 * 2 + 1);
        let value = ((mixed >> 40) as f32 - 8_388_608.0) * (10_f32).powi((mixed % 9) as i32 - 4);
        if UNUSED.contains(&index) { 0.0 } else { value }
    }

    fn parameters() -> Vec<Tensor> {
        let parameter =
            |size: &usize| Tensor::zeros([*size as i64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
        SIZES.iter().map(parameter).collect()
    }

    /// A loss whose gradients are the rank's values, and whose value is its last one.
    fn loss(rank: u32, parameters: &[Tensor], step: u32) -> Tensor {
        let values: Vec<f32> = (0..ELEMENTS).map(|index| if step == 0 { 3.0 } else { value(rank, index) }).collect();
        let values = Tensor::from_slice(&values).split_with_sizes(SIZES.map(|size| size as i64), 0);
        let used = parameters.iter().zip(&values).enumerate().filter(|(index, _)| step == 0 || *index != 1);
        let terms = used.map(|(_, (parameter, values))| (parameter * values).sum(Kind::Float));
        terms.fold(Tensor::from(value(rank, ELEMENTS)), |sum, term| sum + term)
    }

    fn expected(ranks: u32) -> Vec<u32> {
        let leaf = |rank: u32| (0..=ELEMENTS).map(|index| value(rank, index)).collect::<Vec<f32>>();
        let leaves: Vec<_> = (0..ranks).map(leaf).collect();
        let sum = reference(&leaves, &|a: &Vec<f32>, b: &Vec<f32>| a.iter().zip(b).map(|(a, b)| a + b).collect());
        sum.into_iter().map(|sum| (sum / ranks as f32).to_bits()).collect()
    }

    fn meshes(processes: usize) -> Vec<Option<Mesh>> {
        if processes == 1 {
            return vec![None];
        }
        let listeners: Vec<_> =
            (0..processes).map(|_| Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(Listener::local_addr).collect();
        let join = |(process, listener)| {
            let config = MeshConfig {
                process,
                addresses: addresses.clone(),
                secret: [7; 32],
                run: "test".into(),
                generation: 1,
                connect_deadline: Duration::from_secs(20),
                silence_limit: Duration::from_secs(20),
                shared_memory: true,
            };
            thread::spawn(move || Mesh::join(listener, &config).unwrap())
        };
        let joining: Vec<_> = listeners.into_iter().enumerate().map(join).collect();
        joining.into_iter().map(|thread| Some(thread.join().unwrap())).collect()
    }

    /// The bits of gradient and loss in every process, after two steps over the same buffers.
    fn reduce(ranks: u32, processes: u32, way: Way, beside: bool) -> Vec<Vec<u32>> {
        let run = |(process, mesh): (usize, Option<Mesh>)| {
            thread::spawn(move || {
                let parameters = parameters();
                let layout = Layout::new(parameters.iter().map(|parameter| ("p", parameter)));
                let world = World { process: process as u32, processes, ranks };
                let mut exchange = mesh.map(|mesh| Box::new(MeshExchange::new(mesh)) as Box<dyn Exchange>);
                let joined = exchange.as_deref_mut().map(|exchange| exchange as &mut dyn Exchange);
                let mut reducer = Reducer::build(&layout, world, Device::Cpu, way, BUCKET_BYTES, joined).unwrap();
                if beside {
                    reducer.overlap(&layout, &parameters).unwrap();
                    assert!(reducer.ranges.len() == 3, "{:?}", reducer.ranges);
                }
                let mut bits = Vec::new();
                for step in 0..2 {
                    let hosted = hosted(world.process, processes, ranks);
                    for (index, rank) in hosted.clone().enumerate() {
                        let loss = loss(rank, &parameters, step);
                        reducer.leaf(index).loss.copy_(&loss.detach());
                        if beside && rank + 1 == hosted.end {
                            reducer.backward_beside(&loss, &parameters, &mut exchange).unwrap();
                            assert!(exchange.is_none(), "the exchange is away");
                        } else {
                            reducer.backward(index, &loss, &parameters).unwrap();
                        }
                        let (spacing, sample) = (ELEMENTS / SAMPLE as usize + 1, reducer.sample(index));
                        let expected = (ELEMENTS % spacing..=ELEMENTS).step_by(spacing).map(|at| value(rank, at));
                        if step == 1 {
                            assert_eq!(Vec::<f32>::try_from(sample).unwrap(), expected.collect::<Vec<_>>());
                        }
                        reducer.fold(index).unwrap();
                    }
                    reducer.finish(&mut exchange).unwrap();
                    let loss = reducer.loss().unwrap() as f32;
                    let values: Vec<f32> = reducer.gradients().shallow_clone().try_into().unwrap();
                    bits = values.into_iter().chain([loss]).map(f32::to_bits).collect();
                }
                bits
            })
        };
        let running: Vec<_> = meshes(processes as usize).into_iter().enumerate().map(run).collect();
        running.into_iter().map(|thread| thread.join().unwrap()).collect()
    }

    #[test]
    fn any_number_of_processes_gives_the_bits_of_the_reference_whatever_the_way() {
        for ranks in [1, 3, 6, 7] {
            let expected = expected(ranks);
            for processes in 1..=ranks {
                let messages = Way::Slices { in_place: false };
                let ways = [
                    (Way::OneRound, false),
                    (messages, false),
                    (messages, true),
                    (Way::Slices { in_place: true }, false),
                ];
                for (way, beside) in if processes == 1 { &[(Way::Alone, false)][..] } else { &ways } {
                    for (process, bits) in reduce(ranks, processes, *way, *beside).into_iter().enumerate() {
                        assert!(bits == expected, "{ranks} ranks, process {process} of {processes}, {way:?} {beside}");
                    }
                }
            }
        }
    }

    /// Says how many rounds have begun.
    struct Counted(MeshExchange, Arc<AtomicUsize>);

    impl Exchange for Counted {
        fn process(&self) -> usize {
            self.0.process()
        }

        fn processes(&self) -> usize {
            self.0.processes()
        }

        fn exchange(&mut self, outgoing: &[Tensor], incoming: &mut [Tensor]) -> Result<(), ExchangeError> {
            self.1.fetch_add(1, Ordering::SeqCst);
            self.0.exchange(outgoing, incoming)
        }

        fn all_reduce(&mut self, tensor: &mut Tensor) -> Result<(), ExchangeError> {
            self.0.all_reduce(tensor)
        }

        fn cut_handle(&self) -> CutHandle {
            self.0.cut_handle()
        }
    }

    /// One of two processes; `at_first` is called when the gradient of the first parameter, which comes last, is there.
    fn one_of_two(
        (process, mesh): (usize, Option<Mesh>),
        at_first: impl FnMut(&AtomicUsize) + Send + 'static,
    ) -> Result<Vec<f32>, String> {
        let (mut at_first, begun) = (at_first, Arc::new(AtomicUsize::new(0)));
        let parameters = parameters();
        let layout = Layout::new(parameters.iter().map(|parameter| ("p", parameter)));
        let world = World { process: process as u32, processes: 2, ranks: 2 };
        let messages = Way::Slices { in_place: false };
        let counted = Counted(MeshExchange::new(mesh.unwrap()), Arc::clone(&begun));
        let mut exchange = Some(Box::new(counted) as Box<dyn Exchange>);
        let joined = exchange.as_deref_mut().map(|exchange| exchange as &mut dyn Exchange);
        let mut reducer = Reducer::build(&layout, world, Device::Cpu, messages, BUCKET_BYTES, joined).unwrap();
        reducer.overlap(&layout, &parameters).unwrap();
        let _hook = on_grad(&parameters[0], Box::new(move |_| at_first(&begun))).unwrap();
        let loss = loss(process as u32, &parameters, 1);
        reducer.backward_beside(&loss, &parameters, &mut exchange).map_err(|error| error.to_string())?;
        reducer.finish(&mut exchange).map_err(|error| error.to_string())?;
        assert!(exchange.is_some(), "the exchange is back");
        Ok(reducer.gradients().shallow_clone().try_into().unwrap())
    }

    #[test]
    fn the_first_buckets_are_exchanged_before_the_backward_pass_is_over() {
        let run = |member| {
            thread::spawn(|| {
                one_of_two(member, |begun| {
                    let deadline = Instant::now() + Duration::from_secs(20);
                    // Two rounds a bucket: the first bucket is complete, and the second has begun.
                    while begun.load(Ordering::SeqCst) < 3 {
                        assert!(Instant::now() < deadline, "nothing is exchanged meanwhile");
                        thread::yield_now();
                    }
                })
            })
        };
        let running: Vec<_> = meshes(2).into_iter().enumerate().map(run).collect();
        let gradients: Vec<_> = running.into_iter().map(|thread| thread.join().unwrap().unwrap()).collect();
        assert_eq!(gradients[0], gradients[1]);
    }

    /// Its first bucket waits for a process that is not there yet.
    #[test]
    fn a_backward_pass_that_fails_waits_for_nobody_and_leaves_nobody_waiting() {
        let begin = Instant::now();
        let mut members: Vec<_> = meshes(2).into_iter().enumerate().collect();
        let second = members.pop().unwrap();
        let fails = move |begun: &AtomicUsize| {
            while begun.load(Ordering::SeqCst) == 0 {
                thread::yield_now();
            }
            panic!("on purpose");
        };
        let failed = one_of_two(members.pop().unwrap(), fails).unwrap_err();
        assert!(failed.contains("on purpose"), "{failed}");
        let left = one_of_two(second, |_| {}).unwrap_err();
        assert!(left.contains("process `0` has gone") || left.contains("cut"), "{left}");
        assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    }

    #[test]
    fn another_order_of_additions_gives_other_bits() {
        let leaves: Vec<Vec<f32>> = (0..6).map(|rank| (0..=ELEMENTS).map(|at| value(rank, at)).collect()).collect();
        let in_a_row = |at: usize| leaves.iter().fold(0.0, |sum: f32, leaf| sum + leaf[at]) / 6.0;
        let in_a_row: Vec<u32> = (0..=ELEMENTS).map(|at| in_a_row(at).to_bits()).collect();
        assert!(in_a_row != expected(6), "the values would not show a wrong order");
    }

    #[test]
    fn native_reduction_agrees_in_all_processes_and_is_the_mean() {
        for (processes, beside) in [(1, false), (2, false), (2, true), (3, false), (3, true)] {
            let all = reduce(6, processes, Way::Native, beside);
            assert!(all.iter().all(|bits| *bits == all[0]), "{processes} processes, {beside}");
            for (bits, exact) in all[0].iter().zip(expected(6)) {
                let (got, tree) = (f64::from(f32::from_bits(*bits)), f64::from(f32::from_bits(exact)));
                assert!((got - tree).abs() <= 1e-3 * tree.abs().max(1e6), "{got} {tree}");
            }
        }
    }

    #[test]
    fn parameters_of_another_type_get_gradients_of_theirs() {
        let half = Tensor::zeros([4], (Kind::BFloat16, Device::Cpu));
        let full = Tensor::zeros([2, 2], (Kind::Float, Device::Cpu));
        let layout = Layout::new([("half", &half), ("full", &full)].into_iter());
        let mut reducer = Reducer::new(&layout, Reduction::Tree, (0, 1), 2, Device::Cpu, None).unwrap();
        for index in 0..2 {
            let _ = reducer.leaf(index).gradients.fill_(index as f64 + 1.0);
            reducer.fold(index).unwrap();
        }
        reducer.finish(&mut None).unwrap();
        let parts = reducer.parts().unwrap();
        assert_eq!((parts[0].kind(), parts[0].size()), (Kind::BFloat16, vec![4]));
        assert_eq!((parts[1].kind(), parts[1].size()), (Kind::Float, vec![2, 2]));
        assert!(parts.iter().all(|part| part.double_value(&vec![0; part.dim()]) == 1.5));
    }
}
