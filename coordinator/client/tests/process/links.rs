//! Which crate may link what (ARCHITECTURE, invariants): `coord` has no libtorch, the pure core no runtime and no I/O.

use std::process::Command;

use lockstep_support::printed;

/// Names of all crates that `package` links, including itself.
fn links(package: &str) -> Vec<String> {
    let arguments = ["tree", "--offline", "--locked", "-p", package, "-e", "normal", "--prefix", "none", "-f", "{p}"];
    let text = printed(Command::new(env!("CARGO")).args(arguments));
    let names: Vec<String> = text.lines().filter_map(|line| Some(line.split_whitespace().next()?.to_owned())).collect();
    assert!(names.iter().any(|name| name == package), "{text}");
    names
}

fn assert_absent(package: &str, banned: &[&str]) {
    let names = links(package);
    let found: Vec<&String> = names.iter().filter(|name| banned.contains(&name.as_str())).collect();
    assert!(found.is_empty(), "`{package}` links {found:?}");
}

#[test]
fn coord_links_no_libtorch_and_nothing_of_the_worker() {
    let banned = [
        "tch",
        "torch-sys",
        "lockstep-tch-ext",
        "lockstep-worker",
        "lockstep-agent",
        "lockstep-data",
        "lockstep-models",
    ];
    assert_absent("lockstep-client", &banned);
    // The list is complete: `coord` does link these.
    let names = links("lockstep-client");
    assert!(["tokio", "redb", "lockstep-core"].iter().all(|name| names.iter().any(|n| n == name)));
}

#[test]
fn the_core_links_no_runtime_and_no_io() {
    let banned = ["tokio", "tonic", "redb", "git2", "lockstep-host", "lockstep-rpc"];
    assert_absent("lockstep-core", &banned);
    assert_absent("lockstep-common", &banned);
}
