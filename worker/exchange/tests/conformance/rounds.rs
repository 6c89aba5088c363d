//! Conformance: every byte arrives, for all sizes, numbers of processes and mixtures of lengths.

use crate::support::{join_with, round, shared, with_mesh};
use lockstep_exchange::MeshConfig;

#[test]
fn every_size_from_nothing_to_64_mb_between_two() {
    with_mesh(2, |mut mesh| {
        for (number, length) in
            [0, 1, 4, 15, 16, 17, 4096, 65_535, 65_536, 1 << 20, 3_200_000, 64_000_000, 0, 4].into_iter().enumerate()
        {
            round(&mut mesh, number, |_, _| length).unwrap();
        }
    });
}

#[test]
fn every_number_of_processes_up_to_eight() {
    for processes in 1..=8 {
        let joined = with_mesh(processes, move |mut mesh| {
            assert_eq!(mesh.processes(), processes);
            for (number, length) in [0, 4, 1000, 300_000, 0, 2_000_000 / processes].into_iter().enumerate() {
                round(&mut mesh, number, |_, _| length).unwrap();
            }
            mesh.process()
        });
        assert_eq!(joined, (0..processes).collect::<Vec<_>>());
    }
}

#[test]
fn lengths_differ_by_pair_and_direction() {
    with_mesh(5, |mut mesh| {
        for number in 0..20 {
            // Some pairs move nothing in one direction, some in both.
            round(&mut mesh, number, |from, to| match (from * 3 + to * 5 + number) % 4 {
                0 => 0,
                1 => from * 1000 + to + number,
                2 => 70_000 * (from + 1),
                _ => 1,
            })
            .unwrap();
        }
    });
}

#[test]
fn many_small_rounds_with_more_threads_than_processors() {
    with_mesh(8, |mut mesh| {
        for number in 0..500 {
            round(&mut mesh, number, |from, to| (from + to + number) % 9).unwrap();
        }
    });
}

#[test]
fn one_direction_only() {
    with_mesh(3, |mut mesh| {
        for number in 0..10 {
            round(&mut mesh, number, |from, _| if from == number % 3 { 5_000_000 } else { 0 }).unwrap();
        }
    });
}

#[test]
fn a_process_that_leaves_after_the_last_round_takes_no_bytes_with_it() {
    for _ in 0..20 {
        with_mesh(4, |mut mesh| {
            // No barrier after it: the first process to finish drops its mesh while others still receive.
            round(&mut mesh, 0, |from, _| 200_000 * (from + 1)).unwrap();
        });
    }
}

#[test]
fn memory_is_shared_by_all_that_allow_it_and_by_nobody_else() {
    let change = |config: &mut MeshConfig| config.shared_memory = shared() && config.process != 2;
    let sharing = join_with(4, change, |joined| {
        let mut mesh = joined.unwrap();
        for number in 0..20 {
            round(&mut mesh, number, |from, to| 300_000 * from + to).unwrap();
        }
        mesh.sharing_memory()
    });
    assert_eq!(sharing, if shared() { [2, 2, 0, 2] } else { [0; 4] });
}

#[test]
fn windows_are_there_for_all_or_for_none() {
    for without in [None, Some(1)] {
        let change = move |config: &mut MeshConfig| config.shared_memory = shared() && Some(config.process) != without;
        let lengths = join_with(3, change, |joined| {
            let mut mesh = joined.unwrap();
            let windows = mesh.windows(1000 + mesh.process()).unwrap();
            round(&mut mesh, 0, |_, _| 1000).unwrap();
            windows.map(|windows| windows.iter().map(|window| window.len()).collect::<Vec<_>>())
        });
        let expected = (shared() && without.is_none()).then(|| vec![1000, 1001, 1002]);
        assert!(lengths.iter().all(|found| *found == expected), "{without:?}: {lengths:?}");
    }
}
