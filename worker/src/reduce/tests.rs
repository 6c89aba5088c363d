//! A reduction gives the same bits with every strategy and number of processes, and can begin before the backward pass ends.

use std::net::{IpAddr, Ipv4Addr};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_common::job::Reduction;
use lockstep_common::reduction::reference;
use lockstep_common::world::hosted;
use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_tch_ext::hooks::on_grad;
use tch::{Device, Kind, Tensor};

use super::finish::World;
use super::reducer::{SAMPLE, Strategy};
use super::{CutHandle, Exchange, ExchangeError, MeshExchange};
use super::{Layout, Reducer};

/// Number of elements of each parameter. Their sum is no multiple of an alignment, and more than one block for each of two processes.
const SIZES: [usize; 5] = [60_000, 1_000, 50_000, 3, 29_000];
const ELEMENTS: usize = 140_003;
/// The loss of a second step does not depend on the second parameter.
const UNUSED: Range<usize> = 60_000..61_000;
/// The fourth parameter.
const ONCE: Range<usize> = 111_000..111_003;
/// Gives three buckets.
const BUCKET_BYTES: i64 = 100 << 10;

/// Values whose sum depends on the order of additions.
fn value(rank: u32, index: usize) -> f32 {
    let mixed = (u64::from(rank) + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_mul(index as u64 * 2 + 1);
    let value = ((mixed >> 40) as f32 - 8_388_608.0) * (10_f32).powi((mixed % 9) as i32 - 4);
    if UNUSED.contains(&index) || ONCE.contains(&index) && rank > 0 { 0.0 } else { value }
}

fn parameters() -> Vec<Tensor> {
    let parameter = |size: &usize| Tensor::zeros([*size as i64], (Kind::Float, Device::Cpu)).set_requires_grad(true);
    SIZES.iter().map(parameter).collect()
}

/// A loss whose gradients are the rank's values, and whose value is its last one.
fn loss(rank: u32, parameters: &[Tensor], step: u32) -> Tensor {
    let values: Vec<f32> = (0..ELEMENTS).map(|index| if step == 0 { 3.0 } else { value(rank, index) }).collect();
    let values = Tensor::from_slice(&values).split_with_sizes(SIZES.map(|size| size as i64), 0);
    let used = parameters.iter().zip(&values).enumerate().filter(|(index, _)| is_used(rank, *index, step));
    let terms = used.map(|(_, (parameter, values))| (parameter * values).sum(Kind::Float));
    terms.fold(Tensor::from(value(rank, ELEMENTS)), |sum, term| sum + term)
}

/// In the second step no rank uses the second parameter, and one rank only the fourth.
fn is_used(rank: u32, parameter: usize, step: u32) -> bool {
    step != 1 || parameter != 1 && (parameter != 3 || rank == 0)
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
    let listeners: Vec<_> = (0..processes).map(|_| Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()).collect();
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

/// The bits of gradient and loss in every process, after two steps over the same buffers. In both steps the used parameters are checked.
fn reduce(ranks: u32, processes: u32, strategy: Strategy, beside: bool) -> Vec<Vec<u32>> {
    let run = |(process, mesh): (usize, Option<Mesh>)| {
        thread::spawn(move || {
            let parameters = parameters();
            let layout = Layout::new(parameters.iter().map(|parameter| ("p", parameter)));
            let world = World { process: process as u32, processes, ranks };
            let mut exchange = mesh.map(|mesh| Box::new(MeshExchange::new(mesh)) as Box<dyn Exchange>);
            let joined = exchange.as_deref_mut().map(|exchange| exchange as &mut dyn Exchange);
            let mut reducer = Reducer::build(&layout, world, Device::Cpu, strategy, BUCKET_BYTES, joined).unwrap();
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
                let used: Vec<u8> =
                    (0..SIZES.len()).map(|index| u8::from((0..ranks).any(|rank| is_used(rank, index, step)))).collect();
                assert_eq!(reducer.used().unwrap(), used, "step {step}, {ranks} ranks, {strategy:?}, {beside}");
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
fn any_number_of_processes_gives_the_bits_of_the_reference_with_every_strategy() {
    for ranks in [1, 3, 6, 7] {
        let expected = expected(ranks);
        for processes in 1..=ranks {
            let messages = Strategy::Slices { in_place: false };
            let strategies = [
                (Strategy::OneRound, false),
                (messages, false),
                (messages, true),
                (Strategy::Slices { in_place: true }, false),
            ];
            for (strategy, beside) in if processes == 1 { &[(Strategy::Alone, false)][..] } else { &strategies } {
                for (process, bits) in reduce(ranks, processes, *strategy, *beside).into_iter().enumerate() {
                    assert!(bits == expected, "{ranks} ranks, process {process} of {processes}, {strategy:?} {beside}");
                }
            }
        }
    }
}

/// Counts the rounds that have begun.
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

    fn note(&mut self, word: u64) {
        self.0.note(word);
    }

    fn notes(&mut self) -> Result<Vec<u64>, ExchangeError> {
        self.0.notes()
    }

    fn cut_handle(&self) -> CutHandle {
        self.0.cut_handle()
    }
}

/// One of two processes. `at_first` is called when the gradient of the first parameter is computed, which is the last gradient.
fn one_of_two(
    (process, mesh): (usize, Option<Mesh>),
    at_first: impl FnMut(&AtomicUsize) + Send + 'static,
) -> Result<Vec<f32>, String> {
    let (mut at_first, begun) = (at_first, Arc::new(AtomicUsize::new(0)));
    let parameters = parameters();
    let layout = Layout::new(parameters.iter().map(|parameter| ("p", parameter)));
    let world = World { process: process as u32, processes: 2, ranks: 2 };
    let messages = Strategy::Slices { in_place: false };
    let counted = Counted(MeshExchange::new(mesh.unwrap()), Arc::clone(&begun));
    let mut exchange = Some(Box::new(counted) as Box<dyn Exchange>);
    let joined = exchange.as_deref_mut().map(|exchange| exchange as &mut dyn Exchange);
    let mut reducer = Reducer::build(&layout, world, Device::Cpu, messages, BUCKET_BYTES, joined).unwrap();
    reducer.overlap(&layout, &parameters).unwrap();
    let _hook = on_grad(&parameters[0], Box::new(move |_| at_first(&begun))).unwrap();
    let loss = loss(process as u32, &parameters, 2);
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

/// Its first bucket waits for a process that has not started yet.
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
    assert!(left.contains("lost connection to process 0") || left.contains("cut"), "{left}");
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
}

#[test]
fn another_order_of_additions_gives_other_bits() {
    let leaves: Vec<Vec<f32>> = (0..6).map(|rank| (0..=ELEMENTS).map(|at| value(rank, at)).collect()).collect();
    let in_a_row = |at: usize| leaves.iter().fold(0.0, |sum: f32, leaf| sum + leaf[at]) / 6.0;
    let in_a_row: Vec<u32> = (0..=ELEMENTS).map(|at| in_a_row(at).to_bits()).collect();
    assert!(in_a_row != expected(6), "the values would not show a wrong order");
}

/// The largest possible difference of two means of the same numbers, added in different orders. In floats a sum of `n` numbers is within
/// `(n - 1) u` of the sum of their magnitudes, with `u` half a unit in the last place of 1 (Higham, Accuracy and Stability of Numerical
/// Algorithms, 4.2), and the division adds one rounding, or one a number; both means have that error, in either direction.
fn largest_difference(ranks: u32, at: usize) -> f64 {
    let magnitudes: f64 = (0..ranks).map(|rank| f64::from(value(rank, at)).abs()).sum();
    let (count, u) = (f64::from(ranks), f64::from(f32::EPSILON) / 2.0);
    2.0 * (count + 1.0) * u * magnitudes / count
}

#[test]
fn native_reduction_agrees_in_all_processes_and_is_the_mean() {
    for (processes, beside) in [(1, false), (2, false), (2, true), (3, false), (3, true)] {
        let all = reduce(6, processes, Strategy::Native, beside);
        assert!(all.iter().all(|bits| *bits == all[0]), "{processes} processes, {beside}");
        for (at, (bits, exact)) in all[0].iter().zip(expected(6)).enumerate() {
            let (got, tree) = (f64::from(f32::from_bits(*bits)), f64::from(f32::from_bits(exact)));
            assert!((got - tree).abs() <= largest_difference(6, at), "{got} {tree}, element {at}");
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
