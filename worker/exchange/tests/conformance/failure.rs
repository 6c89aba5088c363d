//! Conformance: a peer that leaves, stalls, disagrees or is cut causes an error in all processes, at once.

use std::{
    sync::{Arc, Barrier, Mutex, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::support::{AT_ONCE, join_with, pulse, round, with_mesh};
use lockstep_exchange::{CutHandle, Mesh, MeshConfig, MeshError};

/// The error of this round or the next: a peer may have sent its bytes of this round before it left.
fn error_within_two_rounds(mesh: &mut Mesh) -> MeshError {
    (0..2).find_map(|_| pulse(mesh).err()).expect("two rounds without a peer")
}

#[test]
fn a_peer_gone_before_the_round_is_named_by_everybody() {
    let barrier = Arc::new(Barrier::new(4));
    let errors = with_mesh(4, move |mut mesh| {
        pulse(&mut mesh).unwrap();
        if mesh.process() == 3 {
            drop(mesh);
            barrier.wait();
            return None;
        }
        barrier.wait();
        Some(pulse(&mut mesh).unwrap_err())
    });
    for error in errors.into_iter().flatten() {
        assert!(matches!(error, MeshError::PeerGone { process: 3 }), "{error:?}");
    }
}

#[test]
fn a_peer_gone_during_the_round_is_named_by_everybody() {
    let (sender, left) = mpsc::channel::<Instant>();
    let barrier = Arc::new(Barrier::new(4));
    let errors = with_mesh(4, move |mut mesh| {
        barrier.wait();
        if mesh.process() == 0 {
            // The others are in the round by now, or begin it soon, and wait for this process.
            thread::yield_now();
            sender.send(Instant::now()).unwrap();
            return None;
        }
        Some((pulse(&mut mesh).unwrap_err(), Instant::now()))
    });
    let left = left.recv().unwrap();
    for (error, at) in errors.into_iter().flatten() {
        assert!(matches!(error, MeshError::PeerGone { process: 0 }), "{error:?}");
        assert!(at - left < AT_ONCE, "after {:?}", at - left);
    }
}

#[test]
fn after_an_error_every_call_says_cut() {
    with_mesh(2, |mut mesh| {
        if mesh.process() == 0 {
            return;
        }
        assert!(matches!(pulse(&mut mesh), Err(MeshError::PeerGone { process: 0 })));
        for _ in 0..3 {
            assert!(matches!(pulse(&mut mesh), Err(MeshError::Cut)));
        }
    });
}

#[test]
fn a_cut_from_another_thread_releases_everybody() {
    let (sender, handles) = mpsc::channel::<(usize, CutHandle)>();
    let cutter = thread::spawn(move || {
        let (first, second) = (handles.recv().unwrap(), handles.recv().unwrap());
        let (_, handle) = if first.0 == 1 { first } else { second };
        let cut_at = Instant::now();
        handle.cut();
        handle.cut();
        cut_at
    });
    let errors = with_mesh(3, move |mut mesh| {
        if mesh.process() < 2 {
            // A completed round shows that everybody has joined.
            pulse(&mut mesh).unwrap();
            sender.send((mesh.process(), mesh.cut_handle())).unwrap();
        }
        // The cut comes in any of these rounds, or between two.
        loop {
            if let Err(error) = pulse(&mut mesh) {
                return (error, Instant::now());
            }
        }
    });
    let cut_at = cutter.join().unwrap();
    assert!(matches!(errors[1].0, MeshError::Cut), "{:?}", errors[1].0);
    for (process, (error, at)) in errors.iter().enumerate() {
        assert!(process == 1 || matches!(error, MeshError::PeerGone { .. }), "{error:?}");
        assert!(*at - cut_at < AT_ONCE, "process {process} after {:?}", *at - cut_at);
    }
}

#[test]
fn a_cut_releases_a_process_that_sleeps_and_peers_of_one_that_computes() {
    let errors = with_mesh(3, |mut mesh| {
        let handle = mesh.cut_handle();
        if mesh.process() == 0 {
            // Most likely asleep in its round when the cut comes; the outcome is the same if it is not.
            let cutter = thread::spawn(move || {
                thread::sleep(Duration::from_millis(50));
                handle.cut();
            });
            let error = pulse(&mut mesh).unwrap_err();
            cutter.join().unwrap();
            return error;
        }
        if mesh.process() == 1 {
            // Computes, and gets the error at its next call.
            thread::sleep(Duration::from_millis(200));
        }
        error_within_two_rounds(&mut mesh)
    });
    assert!(matches!(errors[0], MeshError::Cut), "{:?}", errors[0]);
    assert!(matches!(errors[1], MeshError::PeerGone { process: 0 | 2 }), "{:?}", errors[1]);
    assert!(matches!(errors[2], MeshError::PeerGone { process: 0 }), "{:?}", errors[2]);
}

#[test]
fn a_cut_reaches_the_peers_even_while_its_process_computes() {
    let (done, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(wait);
    let errors = with_mesh(3, move |mut mesh| {
        if mesh.process() == 0 {
            // A completed round shows that everybody has joined.
            pulse(&mut mesh).unwrap();
            let handle = mesh.cut_handle();
            thread::spawn(move || handle.cut()).join().unwrap();
            // Keeps its mesh, without a call on it, until the others have the error.
            let wait = wait.lock().unwrap();
            for _ in 0..2 {
                wait.recv_timeout(AT_ONCE).expect("a peer does not notice the cut");
            }
            return pulse(&mut mesh).unwrap_err();
        }
        let error = error_within_two_rounds(&mut mesh);
        done.send(()).unwrap();
        error
    });
    assert!(matches!(errors[0], MeshError::Cut), "{:?}", errors[0]);
    for error in &errors[1..] {
        assert!(matches!(error, MeshError::PeerGone { .. }), "{error:?}");
    }
}

#[test]
fn silence_is_an_error_that_names_the_silent_one_on_everybody() {
    let limit = Duration::from_millis(200);
    let (done, wait) = mpsc::channel::<()>();
    let wait = Mutex::new(Some(wait));
    let outcomes = join_with(
        4,
        |config| config.silence_limit = limit,
        move |joined| {
            let mut mesh = joined.unwrap();
            pulse(&mut mesh).unwrap();
            if mesh.process() == 1 {
                // Stays connected, but does not begin the round until the others have given up.
                let wait = wait.lock().unwrap().take().unwrap();
                for _ in 0..3 {
                    wait.recv().unwrap();
                }
                return (error_within_two_rounds(&mut mesh), Duration::ZERO);
            }
            let started = Instant::now();
            let error = pulse(&mut mesh).unwrap_err();
            done.send(()).unwrap();
            (error, started.elapsed())
        },
    );
    for (process, (error, after)) in outcomes.iter().enumerate() {
        if process == 1 {
            assert!(matches!(error, MeshError::PeerGone { .. }), "{error:?}");
        } else {
            assert!(matches!(error, MeshError::Silence { process: 1, after } if *after == limit), "{error:?}");
            assert!(*after < limit + AT_ONCE, "{after:?}");
        }
    }
}

#[test]
fn slow_is_not_silent() {
    // Each step is far below the limit, all together are far above it.
    let change = |config: &mut MeshConfig| config.silence_limit = Duration::from_secs(1);
    join_with(3, change, |joined| {
        let mut mesh = joined.unwrap();
        for number in 0..8 {
            if number % 3 == mesh.process() {
                thread::sleep(Duration::from_millis(200));
            }
            round(&mut mesh, number, |_, _| 100_000).unwrap();
        }
    });
}

#[test]
fn unequal_lengths_are_an_error_on_both_sides_not_wrong_bytes() {
    for (sent, expected) in [(4, 8), (8, 4), (0, 4), (4, 0), (3_000_000, 2_999_999), (100, 5_000_000)] {
        let errors = with_mesh(3, move |mut mesh| {
            // Process 2 expects another length from 1 than 1 sends.
            let own = mesh.process();
            let first = round(&mut mesh, 0, move |from, to| match (from, to) {
                (1, 2) if own == 2 => expected,
                (1, 2) => sent,
                _ => 16,
            });
            first.err().unwrap_or_else(|| pulse(&mut mesh).unwrap_err())
        });
        assert!(
            matches!(errors[2], MeshError::LengthMismatch { process: 1, expected: e, received: r }
                if e == expected as u64 && r == sent as u64),
            "{:?}",
            errors[2]
        );
        for error in &errors[..2] {
            assert!(matches!(error, MeshError::PeerGone { .. }), "{error:?}");
        }
    }
}
