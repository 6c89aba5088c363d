//! One conformance suite for both back ends of the exchange: the mesh, and c10d (with Gloo in place of NCCL).
use std::net::{IpAddr, Ipv4Addr};
use std::thread;
use std::time::{Duration, Instant};

use lockstep_exchange::{Listener, Mesh, MeshConfig};
use lockstep_gloo::gloo;
use lockstep_worker::reduce::{Exchange, ExchangeError, GroupExchange, MeshExchange};
use tch::{Kind, Tensor};

const HERE: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
const LIMIT: Duration = Duration::from_secs(20);

type Make = fn(Mesh) -> Box<dyn Exchange>;

fn over_mesh(mesh: Mesh) -> Box<dyn Exchange> {
    Box::new(MeshExchange::new(mesh))
}

fn over_gloo(mesh: Mesh) -> Box<dyn Exchange> {
    Box::new(GroupExchange::join(&gloo(), mesh, HERE, LIMIT).unwrap())
}

/// Runs `each` in `processes` threads, each with one end of an exchange.
fn together<T: Send + 'static>(
    make: Make,
    processes: usize,
    each: impl Fn(Box<dyn Exchange>) -> T + Send + Clone + 'static,
) -> Vec<T> {
    let listeners: Vec<_> = (0..processes).map(|_| Listener::bind(HERE).unwrap()).collect();
    let addresses: Vec<_> = listeners.iter().map(Listener::local_addr).collect();
    let running: Vec<_> = listeners
        .into_iter()
        .enumerate()
        .map(|(process, listener)| {
            let config = MeshConfig {
                process,
                addresses: addresses.clone(),
                secret: [3; 32],
                run: "suite".into(),
                generation: 2,
                connect_deadline: LIMIT,
                silence_limit: LIMIT,
                shared_memory: true,
            };
            let each = each.clone();
            thread::spawn(move || each(make(Mesh::join(listener, &config).unwrap())))
        })
        .collect();
    running.into_iter().map(|thread| thread.join().unwrap()).collect()
}

/// The tensor that `from` sends to `to`. Its length differs between pairs, and is 0 for some.
fn letter(from: usize, to: usize, kind: Kind, unit: i64) -> Tensor {
    let length = ((from * 3 + to) % 4) as i64 * unit;
    (Tensor::arange(length, (Kind::Int64, tch::Device::Cpu)) + (from * 16 + to) as i64).fmod(120).to_kind(kind)
}

fn rounds(make: Make) {
    for processes in [1, 2, 3, 5] {
        together(make, processes, move |mut exchange| {
            let own = exchange.process();
            assert_eq!(exchange.processes(), processes);
            for (kind, unit) in [(Kind::Float, 1), (Kind::Uint8, 3), (Kind::Double, 1000), (Kind::Float, 100_000)] {
                let outgoing: Vec<Tensor> = (0..processes).map(|to| letter(own, to, kind, unit)).collect();
                let mut incoming: Vec<Tensor> =
                    (0..processes).map(|from| letter(from, own, kind, unit).zeros_like()).collect();
                exchange.exchange(&outgoing, &mut incoming).unwrap();
                for (from, tensor) in incoming.iter().enumerate().filter(|(from, _)| *from != own) {
                    assert_eq!(*tensor, letter(from, own, kind, unit), "{kind:?} from {from} to {own}");
                }
            }
        });
    }
}

fn sums(make: Make) {
    for processes in [1, 2, 3] {
        let results = together(make, processes, move |mut exchange| {
            let mut bits = Vec::new();
            for length in [1, 1000] {
                let mut tensor =
                    Tensor::arange(length, (Kind::Float, tch::Device::Cpu)) / 7.0 + exchange.process() as f64;
                exchange.all_reduce(&mut tensor).unwrap();
                bits.extend(Vec::<f32>::try_from(&tensor).unwrap().into_iter().map(f32::to_bits));
            }
            bits
        });
        assert!(results.iter().all(|bits| *bits == results[0]), "all have the same sum");
        let ids = (0..processes).sum::<usize>() as f32;
        assert!((f32::from_bits(results[0][8]) - (processes as f32 + ids)).abs() < 1e-5);
    }
}

fn a_peer_that_leaves(make: Make) {
    let took = together(make, 4, |mut exchange| {
        let own = exchange.process();
        let mut call = || {
            let outgoing: Vec<Tensor> = (0..4).map(|to| letter(own, to, Kind::Float, 4)).collect();
            let mut incoming: Vec<Tensor> = (0..4).map(|from| letter(from, own, Kind::Float, 4)).collect();
            exchange.exchange(&outgoing, &mut incoming)
        };
        call().unwrap();
        if own == 2 {
            return Duration::ZERO; // Drops its end.
        }
        let start = Instant::now();
        let error = call().unwrap_err();
        let gone =
            matches!(error, ExchangeError::PeerGone { .. } | ExchangeError::SomePeerGone { .. } | ExchangeError::Cut);
        assert!(gone, "{error:?}");
        assert!(call().is_err(), "what broke stays broken");
        start.elapsed()
    });
    assert!(took.iter().all(|took| *took < LIMIT / 4), "nobody waits for the limit: {took:?}");
}

fn a_cut(make: Make) {
    together(make, 3, |mut exchange| {
        let own = exchange.process();
        let outgoing: Vec<Tensor> = (0..3).map(|_| Tensor::zeros([8], (Kind::Float, tch::Device::Cpu))).collect();
        let mut incoming: Vec<Tensor> = outgoing.iter().map(Tensor::zeros_like).collect();
        // Afterwards all processes have joined.
        exchange.exchange(&outgoing, &mut incoming).unwrap();
        if own == 1 {
            let cut = exchange.cut_handle();
            thread::spawn(move || cut.cut());
        }
        let deadline = Instant::now() + LIMIT;
        let error = loop {
            match exchange.exchange(&outgoing, &mut incoming) {
                Ok(()) => assert!(Instant::now() < deadline, "process {own} never noticed"),
                Err(error) => break error,
            }
        };
        assert!(own != 1 || matches!(error, ExchangeError::Cut), "{error:?}");
    });
}

#[test]
fn the_mesh_conforms() {
    rounds(over_mesh);
    sums(over_mesh);
    a_peer_that_leaves(over_mesh);
    a_cut(over_mesh);
}

#[test]
fn gloo_conforms() {
    rounds(over_gloo);
    sums(over_gloo);
    a_peer_that_leaves(over_gloo);
    a_cut(over_gloo);
}
