//! Helpers of the conformance tests: meshes of threads, and payloads with known bytes.

use std::{
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use lockstep_exchange::{Listener, Mesh, MeshConfig, MeshError};

/// Time limit of every wait: far above the duration of any correct step.
pub(crate) const PATIENCE: Duration = Duration::from_mins(1);

/// Upper limit for "within milliseconds" on a machine that is busy with other tests.
pub(crate) const AT_ONCE: Duration = Duration::from_secs(2);

/// Environment variable that makes the suite run without shared memory.
pub(crate) const CONNECTIONS: &str = "LOCKSTEP_TEST_CONNECTIONS";

pub(crate) fn shared() -> bool {
    env::var_os(CONNECTIONS).is_none()
}

pub(crate) const SECRET: [u8; 32] = [42; 32];

pub(crate) fn listen() -> Listener {
    Listener::bind(IpAddr::V4(Ipv4Addr::LOCALHOST)).unwrap()
}

pub(crate) fn config(process: usize, addresses: &[SocketAddr]) -> MeshConfig {
    MeshConfig {
        process,
        addresses: addresses.to_vec(),
        secret: SECRET,
        run: "conformance".to_owned(),
        generation: 3,
        connect_deadline: PATIENCE,
        silence_limit: PATIENCE,
        shared_memory: shared(),
    }
}

pub(crate) fn addresses(listeners: &[Listener]) -> Vec<SocketAddr> {
    listeners.iter().map(Listener::local_addr).collect()
}

/// Joins `processes` threads to a mesh and runs `body` in each; the results by process index. Panics if they do not end
/// in time, or if a thread panics.
pub(crate) fn with_mesh<T: Send + 'static>(
    processes: usize,
    body: impl Fn(Mesh) -> T + Send + Sync + 'static,
) -> Vec<T> {
    join_with(processes, |_| {}, move |joined| body(joined.unwrap()))
}

/// As [`with_mesh`], but `change` changes each configuration first, and `body` gets the result of joining.
pub(crate) fn join_with<T: Send + 'static>(
    processes: usize,
    change: impl Fn(&mut MeshConfig),
    body: impl Fn(Result<Mesh, MeshError>) -> T + Send + Sync + 'static,
) -> Vec<T> {
    let listeners: Vec<Listener> = (0..processes).map(|_| listen()).collect();
    let addresses = addresses(&listeners);
    let body = std::sync::Arc::new(body);
    let (sender, receiver) = mpsc::channel();
    for (process, listener) in listeners.into_iter().enumerate() {
        let (body, sender) = (body.clone(), sender.clone());
        let mut config = config(process, &addresses);
        change(&mut config);
        thread::spawn(move || {
            let result = body(Mesh::join(listener, &config));
            // Fails only if the test has failed already.
            let _ = sender.send((process, result));
        });
    }
    drop(sender);
    collect(&receiver, processes)
}

/// One value from each of `count` senders, by index.
pub(crate) fn collect<T>(receiver: &mpsc::Receiver<(usize, T)>, count: usize) -> Vec<T> {
    let deadline = Instant::now() + PATIENCE;
    let mut results: Vec<Option<T>> = (0..count).map(|_| None).collect();
    for _ in 0..count {
        let left = deadline.saturating_duration_since(Instant::now());
        let (process, result) = receiver.recv_timeout(left).expect("a process hangs or panicked");
        results[process] = Some(result);
    }
    results.into_iter().map(|result| result.expect("each process reports once")).collect()
}

/// The bytes that `from` sends to `to` in `round`.
pub(crate) fn payload(from: usize, to: usize, round: usize, length: usize) -> Vec<u8> {
    let mut state = ((from * 64 + to) * 4096 + round) as u64 + 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        // splitmix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bytes.extend((word ^ (word >> 31)).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// One round in which each process `from` sends `length(from, to)` bytes to each process `to`; checks all received bytes.
pub(crate) fn round(mesh: &mut Mesh, round: usize, length: impl Fn(usize, usize) -> usize) -> Result<(), MeshError> {
    let (own, processes) = (mesh.process(), mesh.processes());
    let not_own = |peer: usize, length: usize| if peer == own { 0 } else { length };
    let outgoing: Vec<Vec<u8>> =
        (0..processes).map(|to| payload(own, to, round, not_own(to, length(own, to)))).collect();
    // Filled with wrong bytes, so that a missing byte is noticed.
    let expected: Vec<Vec<u8>> =
        (0..processes).map(|from| payload(from, own, round, not_own(from, length(from, own)))).collect();
    let mut incoming: Vec<Vec<u8>> = expected.iter().map(|bytes| bytes.iter().map(|byte| !byte).collect()).collect();
    mesh.exchange(
        &outgoing.iter().map(Vec::as_slice).collect::<Vec<_>>(),
        &mut incoming.iter_mut().map(Vec::as_mut_slice).collect::<Vec<_>>(),
    )?;
    for (from, (came, expected)) in incoming.iter().zip(&expected).enumerate() {
        assert!(came == expected, "round {round}: process {own} got other bytes from {from} than were sent");
    }
    Ok(())
}

/// A round of 4 bytes for each pair, for tests of failures.
pub(crate) fn pulse(mesh: &mut Mesh) -> Result<(), MeshError> {
    round(mesh, 0, |_, _| 4)
}
