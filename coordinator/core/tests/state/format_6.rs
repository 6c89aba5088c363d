//! Conversion of format 6 of the state, which version 0.1.0 wrote.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::{Manifest, Share};
use lockstep_core::formats::{upgrade_entry, upgrade_row, upgrade_rows};
use lockstep_core::{ClusterState, Command};

use super::cluster::{get, put};

/// Rows and commands that version 0.1.0 wrote, with every kind of command and row.
const GOLDEN: &str = include_str!("../../golden/state-6.txt");

pub(crate) fn bytes(hex: &str) -> Vec<u8> {
    let digits = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    hex.as_bytes().chunks(2).map(digits).collect()
}

fn rows() -> Vec<(String, Vec<u8>)> {
    let lines = GOLDEN.lines().filter_map(|line| line.strip_prefix("row ")?.split_once(' '));
    lines.map(|(key, hex)| (key.to_owned(), bytes(hex))).collect()
}

fn upgraded() -> BTreeMap<String, Vec<u8>> {
    let of_format_8 =
        rows().into_iter().map(|(key, value)| (key.clone(), upgrade_row(&key, &value).unwrap())).collect();
    upgrade_rows(&of_format_8, &mut |bytes| Ok(put(bytes))).unwrap()
}

#[test]
fn rows_of_format_6_are_read_with_all_that_they_say() {
    let state = ClusterState::from_rows(upgraded()).unwrap();
    let statuses: Vec<String> = state.runs().iter().map(|run| run.state.status.kind().word().to_owned()).collect();
    assert_eq!(statuses, ["running", "cancelled", "starting", "queued", "failed", "finished", "queued"]);
    let [first, resumed, replay, lost, ..] = state.runs()[..] else { unreachable!() };
    assert_eq!(first.state.corruptions.len(), 2);
    assert_eq!(first.state.corruptions[1].claims[1].fingerprint, u64::MAX);
    assert_eq!(first.state.note, "a note, with ä");
    assert_eq!(first.state.failed_checkpoints[0].reason, "process 0 on `a`: no space left");
    assert_eq!((first.shares.len(), first.checkpoints.len()), (1, 1));
    assert_eq!(resumed.submission.base_dir, "/elsewhere");
    assert_eq!(resumed.state.measured.overrides.len(), 2);
    assert_eq!(replay.submission.replay.as_ref().unwrap().until, 7);
    assert_eq!(lost.state.last_exit.as_ref().unwrap().code, 137);
    assert!(state.nodes().any(|node| node.fences.values().any(|fence| fence.wrong.is_none())));
    // Shares and manifests have become blobs.
    let share = Share::decode(&get(first.shares.values().next().unwrap())).unwrap();
    assert_eq!(Some(&share.step), first.shares.keys().next().map(|(step, _)| step));
    for run in state.runs() {
        for made in run.checkpoints.values() {
            let manifest = crate::blobs::manifest(&made.manifest);
            assert_eq!((Manifest::id(&manifest.encode()), manifest.state), (made.id, made.state));
        }
    }
    assert!(!resumed.state.measured.restored.is_empty());
    // Encoding and decoding it again gives the same state.
    assert_eq!(ClusterState::from_rows(state.rows()).unwrap().rows(), state.rows());
    let keys = |rows: Vec<(String, Vec<u8>)>| rows.into_iter().map(|(key, _)| key).collect::<BTreeSet<_>>();
    assert_eq!(keys(state.rows()), keys(upgraded().into_iter().collect()));
}

#[test]
fn commands_of_version_1_are_read() {
    let commands: Vec<_> = GOLDEN.lines().filter_map(|line| line.strip_prefix("command 01")).collect();
    let mut kinds = BTreeMap::new();
    for hex in &commands {
        let Some(entry) = upgrade_entry(&[&[1], bytes(hex).as_slice()].concat()).unwrap() else {
            *kinds.entry("(refused)".to_owned()).or_insert(0) += 1;
            continue;
        };
        let read: Command = rmp_serde::from_slice(&entry[1..]).unwrap();
        let name = format!("{read:?}").split([' ', '{', '(']).next().unwrap().to_owned();
        *kinds.entry(name).or_insert(0) += 1;
    }
    let counted: Vec<(&str, i32)> = kinds.iter().map(|(name, count)| (name.as_str(), *count)).collect();
    let expected = [
        ("(refused)", 7),
        ("Annotate", 1),
        ("Cancel", 1),
        ("Fence", 2),
        ("NodeJoined", 9),
        ("NodeLost", 2),
        ("Report", 20),
        ("Submit", 5),
    ];
    assert_eq!(counted, expected);
}

#[test]
fn damaged_bytes_of_format_6_are_refused() {
    for (key, value) in rows().iter().filter(|(key, _)| !key.starts_with("manifest/")) {
        assert!(upgrade_row(key, &value[..value.len() - 1]).is_err(), "{key}");
        assert!(upgrade_row(key, &[value.as_slice(), &[0]].concat()).is_err(), "{key}");
    }
}
