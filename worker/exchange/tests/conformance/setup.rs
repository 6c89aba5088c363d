//! Conformance: processes that may join a mesh, and intruders, which do not disturb them.

use std::{
    error::Error,
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use crate::support::{AT_ONCE, PATIENCE, addresses, collect, config, join_with, listen, pulse, with_mesh};
use lockstep_exchange::{Listener, Mesh, MeshConfig, MeshError};

/// Joins all processes but the last, calls `intrude` with the configuration of the last, and then joins the last one
/// properly. Returns the intruder's error.
fn intruder_then_mesh(processes: usize, intrude: impl FnOnce(&MeshConfig) -> Option<MeshError>) -> Option<MeshError> {
    let mut listeners: Vec<Listener> = (0..processes).map(|_| listen()).collect();
    let addresses = addresses(&listeners);
    let last_listener = listeners.pop().unwrap();
    let last = config(processes - 1, &addresses);
    let (sender, receiver) = mpsc::channel();
    let spawn = |listener, config: MeshConfig| {
        let sender = sender.clone();
        thread::spawn(move || {
            let pulsed = Mesh::join(listener, &config).and_then(|mut mesh| pulse(&mut mesh));
            sender.send((config.process, pulsed)).unwrap();
        });
    };
    for (process, listener) in listeners.into_iter().enumerate() {
        spawn(listener, config(process, &addresses));
    }
    let refused = intrude(&last);
    spawn(last_listener, last);
    for result in collect(&receiver, processes) {
        result.unwrap();
    }
    refused
}

fn join_as_intruder(config: &MeshConfig, change: impl FnOnce(&mut MeshConfig)) -> MeshError {
    let mut config = config.clone();
    change(&mut config);
    let started = Instant::now();
    let error = Mesh::join(listen(), &config).unwrap_err();
    assert!(started.elapsed() < AT_ONCE, "refused after {:?}", started.elapsed());
    error
}

#[test]
fn a_wrong_secret_is_refused_and_the_right_one_still_joins() {
    let refused = intruder_then_mesh(3, |last| Some(join_as_intruder(last, |config| config.secret[0] ^= 1)));
    assert!(matches!(refused, Some(MeshError::WrongSecret { process: 0 | 1, .. })), "{refused:?}");
}

#[test]
fn an_old_generation_is_refused_and_the_new_one_still_joins() {
    let refused = intruder_then_mesh(3, |last| Some(join_as_intruder(last, |config| config.generation -= 1)));
    assert!(matches!(refused, Some(MeshError::OldGeneration { ours: 2, theirs: 3, .. })), "{refused:?}");
}

#[test]
fn another_run_is_refused() {
    let refused = intruder_then_mesh(2, |last| Some(join_as_intruder(last, |config| config.run.push('2'))));
    assert!(matches!(refused, Some(MeshError::OtherRun { process: 0, .. })), "{refused:?}");
}

#[test]
fn a_mesh_of_another_size_is_refused() {
    let refused = intruder_then_mesh(2, |last| {
        let bigger = join_as_intruder(last, |config| config.addresses.push(config.addresses[1]));
        Some(bigger)
    });
    assert!(matches!(refused, Some(MeshError::Misplaced { process: 0, .. })), "{refused:?}");
}

#[test]
fn strangers_who_say_nothing_or_garbage_do_not_block_anybody() {
    let mut strangers = Vec::new();
    intruder_then_mesh(3, |last| {
        for &address in &last.addresses[..2] {
            // More than may wait, so that the oldest are dropped.
            for _ in 0..100 {
                strangers.push(TcpStream::connect(address).unwrap());
            }
            let mut browser = TcpStream::connect(address).unwrap();
            browser.write_all(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
            browser.set_read_timeout(Some(PATIENCE)).unwrap();
            let answer = browser.read(&mut [0; 16]);
            assert!(matches!(answer, Ok(0) | Err(_)), "a stranger is answered by nothing but the end: {answer:?}");
            // The right first bytes, and then nothing.
            let mut mimic = TcpStream::connect(address).unwrap();
            mimic.write_all(b"LSXHELO3\x02\0\0\0").unwrap();
            strangers.push(mimic);
        }
        None
    });
}

#[test]
fn a_stranger_who_repeats_a_recorded_hello_is_not_let_in() {
    // Record the hello of a real process at the address of process 0.
    let imposter = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let real = listen();
    let recorded_addresses = [imposter.local_addr().unwrap(), real.local_addr()];
    let joining = thread::spawn(move || Mesh::join(real, &config(1, &recorded_addresses)));
    let (mut dialled, _) = imposter.accept().unwrap();
    let mut hello = [0; 92];
    dialled.read_exact(&mut hello).unwrap();
    drop(dialled);
    assert!(matches!(joining.join().unwrap(), Err(MeshError::PeerGone { process: 0 })));

    intruder_then_mesh(2, |last| {
        let mut replayer = TcpStream::connect(last.addresses[0]).unwrap();
        replayer.set_read_timeout(Some(PATIENCE)).unwrap();
        replayer.write_all(&hello).unwrap();
        let mut reply = [0; 84];
        replayer.read_exact(&mut reply).unwrap();
        // Without the secret, the best attempt is to send the other end's own proof back.
        let proof = reply[52..].to_vec();
        replayer.write_all(&proof).unwrap();
        let mut verdict = [0; 4];
        replayer.read_exact(&mut verdict).unwrap();
        assert_eq!(u32::from_le_bytes(verdict), 4, "refused for a wrong secret");
        assert_eq!(replayer.read(&mut [0; 1]).unwrap(), 0, "and closed");
        None
    });
}

#[test]
fn who_is_missing_at_the_deadline_is_named_with_the_last_refusal() {
    let mut listeners: Vec<Listener> = (0..3).map(|_| listen()).collect();
    let mut config = config(0, &addresses(&listeners));
    config.connect_deadline = Duration::from_millis(500);
    let (first, mut impostor) = (listeners.remove(0), config.clone());
    let joining = thread::spawn(move || Mesh::join(first, &config));
    impostor.process = 2;
    impostor.secret = [0; 32];
    let refused = Mesh::join(listen(), &impostor).unwrap_err();
    assert!(matches!(refused, MeshError::WrongSecret { process: 0, .. }), "{refused:?}");
    let error = joining.join().unwrap().unwrap_err();
    assert_eq!(error.to_string(), "processes [1, 2] did not join within 500ms");
    let refused = error.source().expect("the impostor is mentioned").to_string();
    assert!(refused.starts_with("process `2`") && refused.ends_with("have different secrets"), "{refused}");
}

#[test]
fn nobody_at_an_address_is_an_error_at_once_for_everybody() {
    for dead in 0..4 {
        // It dies before it joins: its listener closes before the others dial, or while they wait.
        let (sender, receiver) = mpsc::channel();
        let mut listeners: Vec<Listener> = (0..4).map(|_| listen()).collect();
        let addresses = addresses(&listeners);
        let victim = listeners.remove(dead);
        let started = Instant::now();
        for (index, listener) in listeners.into_iter().enumerate() {
            let process = index + usize::from(index >= dead);
            let (sender, config) = (sender.clone(), config(process, &addresses));
            thread::spawn(move || sender.send((index, Mesh::join(listener, &config).unwrap_err())).unwrap());
        }
        drop(victim);
        let errors = collect(&receiver, 3);
        assert!(started.elapsed() < AT_ONCE, "{:?}", started.elapsed());
        for error in &errors {
            assert!(matches!(error, MeshError::Connect { .. } | MeshError::PeerGone { .. }), "{error:?}");
        }
        let names_it = |error: &MeshError| matches!(error, MeshError::Connect { process, .. } | MeshError::PeerGone { process } if *process == dead);
        assert!(errors.iter().any(names_it), "{errors:?}");
    }
}

#[test]
fn a_set_up_can_be_cut() {
    let listeners = [listen(), listen()];
    let config = config(0, &addresses(&listeners));
    let [first, _second] = listeners;
    let handle = first.cut_handle();
    let joining = thread::spawn(move || Mesh::join(first, &config).unwrap_err());
    handle.cut();
    assert!(matches!(joining.join().unwrap(), MeshError::Cut));
}

#[test]
fn after_a_cut_the_same_processes_meet_again_in_a_new_generation() {
    for generation in 1..=5 {
        let results = join_with(
            4,
            |config| config.generation = generation,
            |joined| {
                let mut mesh = joined.unwrap();
                pulse(&mut mesh).unwrap();
                if mesh.process() == 2 {
                    mesh.cut_handle().cut();
                }
                // The cut is an error in all processes, in the current round or the next.
                (0..2).find_map(|_| pulse(&mut mesh).err())
            },
        );
        assert!(results.iter().all(Option::is_some), "generation {generation}: {results:?}");
    }
    with_mesh(4, |mut mesh| pulse(&mut mesh).unwrap());
}

#[test]
fn what_is_bound_is_the_given_address_and_only_until_everybody_joined() {
    let listener = listen();
    let address = listener.local_addr();
    assert_eq!(address.ip(), IpAddr::V4(Ipv4Addr::LOCALHOST));
    assert_ne!(address.port(), 0);
    // Another loopback address of the same machine is not served.
    assert!(TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), address.port())).is_err());
    let mesh = Mesh::join(listener, &config(0, &[address])).unwrap();
    assert_eq!((mesh.process(), mesh.processes()), (0, 1));
    assert!(TcpStream::connect(address).is_err(), "nobody listens once the mesh stands");
    // 192.0.2.0/24 is for documentation: no machine's own address.
    assert!(matches!(Listener::bind(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1))), Err(MeshError::Bind { .. })));
}

#[test]
fn a_process_that_its_own_list_does_not_have_is_refused() {
    let listener = listen();
    let addresses = [listener.local_addr()];
    let error = Mesh::join(listener, &config(1, &addresses)).unwrap_err();
    assert!(matches!(error, MeshError::NoMember { process: 1, processes: 1 }), "{error:?}");
}
