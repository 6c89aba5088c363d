//! Encoded commands in the log.

use std::collections::BTreeSet;

use lockstep_core::Command;
use lockstep_core::formats::upgrade_entry;

use super::format_6::bytes;

/// One command of every kind, and one for every kind of report: name and bytes.
const GOLDEN: &str = include_str!("../../golden/commands-3.txt");

/// The same, in formats 7 and 8.
const GOLDEN_2: &str = include_str!("../../golden/commands-2.txt");

fn lines(golden: &str) -> Vec<(&str, Vec<u8>)> {
    let line = |line: &'_ str| line.split_once(' ').map(|(_, hex)| bytes(hex)).unwrap();
    golden.lines().map(|text| (text.split(' ').next().unwrap(), line(text))).collect()
}

#[test]
fn each_command_is_read_and_has_the_same_bytes_again() {
    let mut kinds = BTreeSet::new();
    for (name, bytes) in lines(GOLDEN) {
        let command: Command = rmp_serde::from_slice(&bytes).unwrap();
        assert_eq!(rmp_serde::to_vec_named(&command).unwrap(), bytes, "{command:?}");
        assert!(format!("{command:?}").starts_with(name), "{command:?}");
        kinds.insert(name);
    }
    assert_eq!(kinds.len(), 18);
}

/// Exactly the commands that only their own build can apply are refused.
#[test]
fn commands_of_version_2_are_taken_over_or_refused() {
    let (mut taken, mut refused) = (0, Vec::new());
    for (name, command) in lines(GOLDEN_2) {
        match upgrade_entry(&[&[2], command.as_slice()].concat()).unwrap() {
            Some(entry) => {
                rmp_serde::from_slice::<Command>(&entry[1..]).unwrap();
                assert_eq!((entry[0], &entry[1..]), (3, command.as_slice()));
                taken += 1;
            }
            None => refused.push(name),
        }
    }
    assert_eq!((taken, refused), (30, vec!["Resume", "Report", "Replay", "Commit"]));
    assert_eq!(upgrade_entry(&[]).unwrap(), Some(Vec::new()), "the first entry of a leader");
}
