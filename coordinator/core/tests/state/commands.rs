//! Commands as the log keeps them.

use std::collections::BTreeSet;

use lockstep_core::Command;

use super::format_6::bytes;

/// A command of every kind, and of every kind of report, each as its name and its bytes.
const GOLDEN: &str = include_str!("../../golden/commands-2.txt");

#[test]
fn each_command_is_read_and_has_the_same_bytes_again() {
    let mut kinds = BTreeSet::new();
    for line in GOLDEN.lines() {
        let (name, hex) = line.split_once(' ').unwrap();
        let command: Command = rmp_serde::from_slice(&bytes(hex)).unwrap();
        assert_eq!(rmp_serde::to_vec_named(&command).unwrap(), bytes(hex), "{command:?}");
        assert!(format!("{command:?}").starts_with(name), "{command:?}");
        kinds.insert(name);
    }
    assert_eq!(kinds.len(), 17);
}
