//! What documents say of the tree is so.

use std::collections::BTreeSet;
use std::fs;

use lockstep_support::repository;

const DOCUMENTS: [&str; 6] =
    ["ARCHITECTURE.md", "README.md", "NUMERICS.md", "STYLE.md", "docs/glossary.md", "docs/benchmarks.md"];

/// What a path into the tree begins with.
const ROOMS: [&str; 6] = ["common/", "coordinator/", "worker/", "tests/", "configs/", "scripts/"];

#[test]
fn paths_that_documents_name_exist() {
    let mut named = BTreeSet::new();
    for document in DOCUMENTS {
        let text = fs::read_to_string(repository().join(document)).unwrap();
        // Between every second pair of backticks is code.
        for code in text.split('`').skip(1).step_by(2) {
            let is_path = code.chars().all(|letter| letter.is_ascii_alphanumeric() || "/_-.".contains(letter));
            if is_path && ROOMS.iter().any(|room| code.starts_with(room)) {
                named.insert((document, code.to_owned()));
            }
        }
    }
    assert!(named.len() > 100, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|(_, path)| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "no such file: {missing:?}");
}
