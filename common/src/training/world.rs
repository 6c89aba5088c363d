//! The distribution of ranks over processes.

use std::ops::Range;

/// The ranks that `process` hosts: consecutive and in order. Numbers of ranks differ by at most one; the first processes host more.
///
/// # Panics
/// If `process >= processes`, or there are more processes than ranks.
pub fn hosted(process: u32, processes: u32, ranks: u32) -> Range<u32> {
    assert!(process < processes && processes <= ranks, "process {process} of {processes} for {ranks} ranks");
    let (each, more) = (ranks / processes, ranks % processes);
    let start = process * each + process.min(more);
    start..start + each + u32::from(process < more)
}

/// The process that hosts `rank`.
pub fn host_of(rank: u32, processes: u32, ranks: u32) -> u32 {
    (0..processes)
        .find(|&process| hosted(process, processes, ranks).contains(&rank))
        .expect("the processes' ranges cover all ranks")
}

/// Assigns items of a replicated state to processes for writing: element `i` of the result is the process that writes an item of
/// `bytes[i]` bytes.
///
/// Each item, the largest first, goes to the process with the fewest bytes so far (on a tie, to the lowest number). So all processes
/// finish at about the same time.
pub fn shares(bytes: &[u64], processes: u32) -> Vec<u32> {
    let mut order: Vec<usize> = (0..bytes.len()).collect();
    order.sort_by_key(|&item| (std::cmp::Reverse(bytes[item]), item));
    let mut load = vec![0_u64; processes as usize];
    let mut share = vec![0; bytes.len()];
    for item in order {
        let process = (0..load.len()).min_by_key(|&p| (load[p], p)).expect("at least one process");
        load[process] += bytes[item].max(1);
        share[item] = process as u32;
    }
    share
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_rank_has_one_host_and_loads_are_even() {
        for ranks in 1..20 {
            for processes in 1..=ranks {
                let ranges: Vec<_> = (0..processes).map(|p| hosted(p, processes, ranks)).collect();
                assert_eq!(ranges.iter().cloned().flatten().collect::<Vec<_>>(), (0..ranks).collect::<Vec<_>>());
                let sizes = ranges.iter().map(ExactSizeIterator::len);
                assert!(sizes.clone().max().unwrap_or(0) - sizes.min().unwrap_or(0) <= 1);
                assert!((0..ranks).all(|r| ranges[host_of(r, processes, ranks) as usize].contains(&r)));
            }
        }
    }

    #[test]
    fn shares_are_balanced_and_cover_everything() {
        let share = shares(&[10, 9, 8, 1, 1, 0], 2);
        let load = |p| share.iter().zip([10, 9, 8, 1, 1, 0]).filter(|(s, _)| **s == p).map(|(_, b)| b).sum::<i32>();
        assert!((load(0) - load(1)).abs() <= 10, "no more than the largest item apart: {share:?}");
        assert!(share.iter().all(|&p| p < 2));
    }
}
