//! Paths and links in documents exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_support::repository;

/// Beginnings of paths into the repository.
const ROOMS: [&str; 6] = ["common/", "coordinator/", "worker/", "tests/", "configs/", "scripts/"];

/// All Markdown documents, relative to the repository's root.
fn documents() -> Vec<PathBuf> {
    let mut found = Vec::new();
    for folder in ["", "docs", "docs/decisions"] {
        for entry in fs::read_dir(repository().join(folder)).unwrap() {
            let name = PathBuf::from(entry.unwrap().file_name());
            if name.extension().is_some_and(|ending| ending == "md") {
                found.push(Path::new(folder).join(name));
            }
        }
    }
    assert!(found.len() > 20, "{found:?}");
    found
}

fn text(document: &Path) -> String {
    fs::read_to_string(repository().join(document)).unwrap()
}

#[test]
fn paths_that_documents_name_exist() {
    let mut named = BTreeSet::new();
    // The changelog names files that no longer exist.
    for document in documents().into_iter().filter(|document| document != Path::new("CHANGELOG.md")) {
        // Every second part between backticks is code.
        for code in text(&document).split('`').skip(1).step_by(2) {
            let is_path = code.chars().all(|letter| letter.is_ascii_alphanumeric() || "/_-.".contains(letter));
            if is_path && ROOMS.iter().any(|room| code.starts_with(room)) {
                named.insert((document.clone(), code.to_owned()));
            }
        }
    }
    assert!(named.len() > 100, "{named:?}");
    let missing: Vec<_> = named.iter().filter(|(_, path)| !repository().join(path).exists()).collect();
    assert!(missing.is_empty(), "no such file: {missing:?}");
}

#[test]
fn links_lead_to_files_and_headings_that_exist() {
    let (mut links, mut dead) = (0, Vec::new());
    for document in documents() {
        let own = text(&document);
        for rest in own.split("](").skip(1) {
            let target = rest.split(')').next().unwrap_or_default();
            if target.contains("://") || target.contains(char::is_whitespace) {
                continue;
            }
            links += 1;
            let (path, heading) =
                target.split_once('#').map_or((target, None), |(path, heading)| (path, Some(heading)));
            let linked =
                if path.is_empty() { document.clone() } else { document.parent().unwrap_or(Path::new("")).join(path) };
            let exists = repository().join(&linked).exists();
            let headed = |heading| text(&linked).lines().filter_map(slug).any(|slug| slug == heading);
            if !exists || !heading.is_none_or(headed) {
                dead.push((document.clone(), target.to_owned()));
            }
        }
    }
    assert!(links > 100, "{links}");
    assert!(dead.is_empty(), "dead links: {dead:?}");
}

/// The anchor of a heading, as GitHub makes it.
fn slug(line: &str) -> Option<String> {
    let title = line.strip_prefix('#')?.trim_start_matches('#').trim();
    let kept = title.to_lowercase().replace(' ', "-");
    Some(kept.chars().filter(|letter| letter.is_alphanumeric() || "-_".contains(*letter)).collect())
}
