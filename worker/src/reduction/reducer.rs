//! The reduction tree over flat tensors. Hot: every tensor is a view made before the first step.

use lockstep_common::job::Reduction;
use lockstep_common::reduction::{Node, cover, merges};
use lockstep_common::world::hosted;
use tch::{Device, TchError, Tensor};

use super::Layout;
use super::finish::{Finish, World};
use crate::exchange::{Exchange, ExchangeError};

/// Up to this many bytes of one subtree, one round: more rounds cost more than it costs to add this much; with more, it
/// pays that each process reads and adds only its slice.
const ONE_ROUND_BYTES: i64 = 128 << 10;

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
    last: Last,
    gradients: Tensor,
    loss: Tensor,
    /// Each parameter's gradient in the parameter's dtype; where that is not the layout's, a copy to be filled.
    parts: Vec<Tensor>,
    casts: Vec<(usize, Tensor)>,
}

#[derive(Debug)]
enum Last {
    Tree(Finish),
    /// Everything that the process hosts is in one sum; the back end adds the processes' sums.
    Native {
        additions: Vec<(Tensor, Tensor)>,
        sum: Tensor,
        ranks: f64,
    },
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
        Self::build(layout, world, device, Way::new(layout, order, processes), exchange)
    }

    fn build(
        layout: &Layout,
        world: World,
        device: Device,
        way: Way,
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
        let (rows, last) = if let Some(windows) = windows {
            let rows = windows.iter().map(|window| window.f_view([-1, stride])).collect::<Result<Vec<_>, _>>()?;
            (rows[world.process as usize].shallow_clone(), Last::Tree(Finish::in_place(world, &rows)?))
        } else {
            let rows = Tensor::f_zeros([highest as i64, stride], (layout.kind(), device))?;
            let last = match way {
                Way::Alone => Last::Tree(Finish::alone(world, &rows)?),
                Way::OneRound => Last::Tree(Finish::in_one_round(world, &rows)?),
                Way::Slices { .. } => Last::Tree(Finish::in_two_rounds(world, &rows)?),
                Way::Native => native(world, &rows)?,
            };
            (rows, last)
        };
        let row = |index: usize| rows.f_get(index as i64);
        let mut leaves = Vec::new();
        for index in 0..highest {
            let row = row(index)?;
            let (gradients, loss) = (row.f_narrow(0, 0, elements)?, row.f_narrow(0, elements, 1)?);
            let spacing = elements / SAMPLE + 1;
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
        Ok(Self { leaves, folds, last, gradients, loss, parts, casts })
    }

    /// Where the gradient and loss of the `index`-th hosted rank go, before [`Reducer::fold`].
    pub fn leaf(&mut self, index: usize) -> &mut Leaf {
        &mut self.leaves[self.folds[index].0]
    }

    /// Takes the `index`-th hosted rank's leaf, after those of the ranks before it.
    pub fn fold(&mut self, index: usize) -> Result<(), TchError> {
        for (lower, upper) in &mut self.folds[index].1 {
            let _ = lower.f_add_(upper)?;
        }
        Ok(())
    }

    /// Finishes the tree over all processes: afterwards [`Reducer::gradients`] and [`Reducer::loss`] are the means over
    /// ranks. `exchange` may be absent for one process.
    pub fn finish(&mut self, exchange: Option<&mut dyn Exchange>) -> Result<(), ExchangeError> {
        match &mut self.last {
            Last::Tree(finish) => finish.run(exchange),
            Last::Native { additions, sum, ranks } => {
                for (lower, upper) in additions {
                    let _ = lower.f_add_(upper)?;
                }
                if let Some(exchange) = exchange {
                    exchange.all_reduce(sum)?;
                }
                if *ranks > 1.0 {
                    let _ = sum.f_div_scalar_(*ranks)?;
                }
                Ok(())
            }
        }
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

fn native(world: World, rows: &Tensor) -> Result<Last, TchError> {
    let subtrees = cover(&hosted(world.process, world.processes, world.ranks), world.ranks).len() as i64;
    let sum = rows.f_get(0)?;
    let additions = (1..subtrees).map(|row| Ok((sum.shallow_clone(), rows.f_get(row)?)));
    let additions = additions.collect::<Result<_, TchError>>()?;
    Ok(Last::Native { additions, sum, ranks: f64::from(world.ranks) })
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};
    use std::thread;
    use std::time::Duration;

    use lockstep_common::reduction::reference;
    use lockstep_exchange::{Listener, Mesh, MeshConfig};
    use tch::Kind;

    use super::*;
    use crate::exchange::MeshExchange;

    /// Not a multiple of anything, and more than one block on each of two processes.
    const ELEMENTS: usize = 140_003;

    /// Values whose sum depends on the order of additions.
    fn value(rank: u32, index: usize) -> f32 {
        let mixed = (u64::from(rank) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(index as u64 * 2 + 1);
        ((mixed >> 40) as f32 - 8_388_608.0) * (10_f32).powi((mixed % 9) as i32 - 4)
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
    fn reduce(ranks: u32, processes: u32, way: Way) -> Vec<Vec<u32>> {
        let parameter = Tensor::zeros([ELEMENTS as i64], (Kind::Float, Device::Cpu));
        let layout = Layout::new([("p", &parameter)].into_iter());
        let run = |(process, mesh): (usize, Option<Mesh>)| {
            let layout = layout.clone();
            thread::spawn(move || {
                let world = World { process: process as u32, processes, ranks };
                let mut exchange = mesh.map(MeshExchange::new);
                let joined = exchange.as_mut().map(|exchange| exchange as &mut dyn Exchange);
                let mut reducer = Reducer::build(&layout, world, Device::Cpu, way, joined).unwrap();
                let mut bits = Vec::new();
                for _ in 0..2 {
                    for (index, rank) in hosted(world.process, processes, ranks).enumerate() {
                        let values: Vec<f32> = (0..ELEMENTS).map(|index| value(rank, index)).collect();
                        let leaf = reducer.leaf(index);
                        leaf.gradients.copy_(&Tensor::from_slice(&values));
                        leaf.loss.copy_(&Tensor::from_slice(&[value(rank, ELEMENTS)]));
                        reducer.fold(index).unwrap();
                    }
                    reducer.finish(exchange.as_mut().map(|exchange| exchange as &mut dyn Exchange)).unwrap();
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
                let ways = [Way::OneRound, Way::Slices { in_place: false }, Way::Slices { in_place: true }];
                for way in if processes == 1 { &[Way::Alone][..] } else { &ways } {
                    for (process, bits) in reduce(ranks, processes, *way).into_iter().enumerate() {
                        assert!(bits == expected, "{ranks} ranks, process {process} of {processes}, {way:?}");
                    }
                }
            }
        }
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
        for processes in [1, 2, 3] {
            let all = reduce(6, processes, Way::Native);
            assert!(all.iter().all(|bits| *bits == all[0]), "{processes} processes");
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
        reducer.finish(None).unwrap();
        let parts = reducer.parts().unwrap();
        assert_eq!((parts[0].kind(), parts[0].size()), (Kind::BFloat16, vec![4]));
        assert_eq!((parts[1].kind(), parts[1].size()), (Kind::Float, vec![2, 2]));
        assert!(parts.iter().all(|part| part.double_value(&vec![0; part.dim()]) == 1.5));
    }
}
