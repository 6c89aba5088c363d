//! Gloo groups whose members are threads: both collectives, deadlines, the cut, and invalid arguments.

use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc::channel;
use std::sync::{Barrier, Mutex};
use std::time::{Duration, Instant};

use lockstep_gloo::gloo;
use lockstep_tch_ext::c10d::{Error, ProcessGroup, Store};
use tch::{Device, Kind, Tensor};

/// Long enough for a busy machine; no test waits until it has passed.
const PATIENCE: Duration = Duration::from_mins(1);
const FLOAT: (Kind, Device) = (Kind::Float, Device::Cpu);

fn values(tensor: &Tensor) -> Vec<f32> {
    Vec::<f32>::try_from(tensor.reshape([-1])).unwrap()
}

/// A store that this process serves.
fn store() -> Store {
    Store::serve(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap(), PATIENCE).unwrap()
}

/// Runs `member` in one thread for each rank of a group of `size`, and returns the results by rank.
fn with_group<T: Send>(size: usize, member: impl Fn(ProcessGroup) -> T + Sync) -> Vec<T> {
    let server = store();
    std::thread::scope(|scope| {
        let start = |rank| {
            let (address, member) = (server.address(), &member);
            scope.spawn(move || {
                let store = Store::connect(address, PATIENCE).unwrap();
                member(ProcessGroup::new(&gloo(), &store, rank, size, PATIENCE).unwrap())
            })
        };
        let threads: Vec<_> = (0..size).map(start).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

#[test]
fn collectives_give_every_member_what_they_should() {
    for size in [1, 2, 3, 4] {
        with_group(size, |group| {
            let (rank, count) = (group.rank(), size as i64);
            let own = rank as f64;
            let total: usize = (0..size).sum();

            let tensor = Tensor::full([1000], own, FLOAT);
            group.all_reduce(&tensor, PATIENCE).unwrap();
            assert_eq!(values(&tensor), vec![total as f32; 1000]);

            // Member i sends i + 1 elements with the value 10 * i + j to member j.
            let input = Tensor::cat(
                &(0..size)
                    .map(|to| Tensor::full([rank as i64 + 1], (10 * rank + to) as f64, FLOAT))
                    .collect::<Vec<_>>(),
                0,
            );
            let expected: Vec<f32> = (0..size).flat_map(|from| vec![(10 * from + rank) as f32; from + 1]).collect();
            let output = Tensor::zeros([expected.len() as i64], FLOAT);
            let output_lengths: Vec<i64> = (1..=count).collect();
            group.all_to_all(&output, &output_lengths, &input, &vec![rank as i64 + 1; size], PATIENCE).unwrap();
            assert_eq!(values(&output), expected);
        });
    }
}

#[test]
fn arguments_that_do_not_fit_leave_the_group_usable() {
    with_group(2, |group| {
        let tensor = Tensor::ones([4], FLOAT);
        let is_argument = |result: Result<(), Error>| assert!(matches!(result, Err(Error::Argument(_))), "{result:?}");
        is_argument(group.all_to_all(&tensor, &[2, 2], &tensor, &[2, 1], PATIENCE));
        is_argument(group.all_to_all(&tensor, &[2, 2], &tensor, &[5, -1], PATIENCE));
        is_argument(group.all_to_all(&tensor, &[4], &tensor, &[2, 2], PATIENCE));
        is_argument(group.all_reduce(&Tensor::ones([2, 3], FLOAT).tr(), PATIENCE));
        // More elements than memory.
        is_argument(group.all_reduce(&Tensor::ones([1], FLOAT).expand([1 << 20], false), PATIENCE));
        is_argument(group.all_reduce(&Tensor::new(), PATIENCE));
        group.all_reduce(&tensor, PATIENCE).unwrap();
        assert_eq!(values(&tensor), [2.0; 4]);
    });
    assert!(matches!(ProcessGroup::new(&gloo(), &store(), 2, 2, PATIENCE), Err(Error::Argument(_))));
}

#[test]
fn a_deadline_ends_the_wait_for_a_member_that_does_not_come() {
    let done = Barrier::new(3);
    let deadline = Duration::from_millis(200);
    with_group(3, |group| {
        if group.rank() == 1 {
            // Joined, but silent until the others have timed out.
            done.wait();
            return;
        }
        let started = Instant::now();
        let result = group.all_reduce(&Tensor::ones([4], FLOAT), deadline);
        let waited = started.elapsed();
        // The member that times out first cuts the group, which the other notices.
        assert!(matches!(result, Err(Error::Timeout(_) | Error::PeerGone(_))), "{result:?}");
        assert!(waited < Duration::from_secs(10), "{waited:?}");
        assert_eq!(group.all_reduce(&Tensor::ones([4], FLOAT), PATIENCE), Err(Error::Aborted));
        done.wait();
    });
}

#[test]
fn the_wait_for_a_single_silent_member_ends_at_the_deadline() {
    let done = Barrier::new(2);
    with_group(2, |group| {
        if group.rank() == 0 {
            let result = group.all_reduce(&Tensor::ones([4], FLOAT), Duration::from_millis(100));
            assert_eq!(result, Err(Error::Timeout(Duration::from_millis(100))));
        }
        done.wait();
    });
}

#[test]
fn a_cut_releases_whoever_waits_here_and_there() {
    for size in [2, 4] {
        let cut_at = Mutex::new(None);
        let (released, all_released) = channel();
        let all_released = Mutex::new(all_released);
        with_group(size, |group| {
            group.all_reduce(&Tensor::ones([1], FLOAT), PATIENCE).unwrap();
            // The others wait for the last member, which joins the operation only after they were released.
            if group.rank() == size - 1 {
                let all_released = all_released.lock().unwrap();
                (1..size).for_each(|_| all_released.recv_timeout(PATIENCE).unwrap());
            }
            let handle = group.abort_handle();
            let result = std::thread::scope(|scope| {
                if group.rank() == 0 {
                    scope.spawn(|| {
                        // The wait of the operation cannot be observed. It begins within this time, or fails at once.
                        std::thread::park_timeout(Duration::from_millis(200));
                        *cut_at.lock().unwrap() = Some(Instant::now());
                        handle.abort();
                    });
                }
                group.all_reduce(&Tensor::ones([1 << 18], FLOAT), PATIENCE)
            });
            let late = cut_at.lock().unwrap().unwrap().elapsed();
            assert!(late < Duration::from_secs(1), "released {late:?} after the cut");
            if group.rank() == 0 {
                assert_eq!(result, Err(Error::Aborted));
            } else {
                assert!(matches!(result, Err(Error::PeerGone(_))), "{result:?}");
            }
            assert_eq!(group.all_reduce(&Tensor::ones([1], FLOAT), PATIENCE), Err(Error::Aborted));
            released.send(()).unwrap();
            // Further cuts have no effect, also after the group was dropped.
            let handle = group.abort_handle();
            handle.abort();
            drop(group);
            handle.abort();
        });
    }
}

#[test]
fn a_store_is_bound_to_its_address() {
    let server = store();
    let port = server.address().port();
    // It is bound to 127.0.0.1 only: another loopback address does not answer.
    assert!(std::net::TcpStream::connect((Ipv4Addr::new(127, 0, 0, 2), port)).is_err());
    Store::connect(server.address(), PATIENCE).unwrap();
}

#[test]
fn what_is_not_there_is_an_error_in_time() {
    let deadline = Duration::from_millis(300);
    // Nobody listens on this port, which was free a moment ago.
    let free = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap();
    let result = Store::connect(free, deadline);
    assert!(matches!(result, Err(Error::Timeout(_) | Error::PeerGone(_))), "{result:?}");

    // A member that never comes.
    let result = ProcessGroup::new(&gloo(), &store(), 0, 2, deadline);
    assert!(matches!(result, Err(Error::Timeout(_))), "{result:?}");
}
