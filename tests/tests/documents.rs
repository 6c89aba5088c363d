//! Paths and links in documents exist.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_support::{git, repository};

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

/// The text of all source files but tests, with the lines of each literal joined, and each `{placeholder}` as `..`.
fn messages() -> String {
    let files = git(&repository(), &["ls-files", "*.rs"]);
    let sources = files.lines().filter(|name| !name.contains("test"));
    sources.map(|name| without_placeholders(&text(Path::new(name)))).collect()
}

fn without_placeholders(source: &str) -> String {
    let joined: String = source.split("\\\n").map(str::trim_start).collect();
    let (mut text, mut opened) = (String::new(), Vec::new());
    for letter in joined.replace("\\\"", "\"").chars() {
        text.push(letter);
        match letter {
            '{' => opened.push(text.len() - 1),
            '\n' => opened.clear(),
            '}' => {
                if let Some(begin) = opened.pop() {
                    text.replace_range(begin.., "..");
                }
            }
            _ => {}
        }
    }
    text
}

/// A message may be put together from several texts, so its parts are looked for, not all of it.
#[test]
fn messages_that_troubleshooting_explains_are_those_of_the_code() {
    let messages = messages();
    let (mut parts, mut gone) = (0, Vec::new());
    for line in text(Path::new("docs/troubleshooting.md")).lines().filter(|line| line.starts_with("- ``")) {
        for quoted in line.split("``").skip(1).step_by(2) {
            let separated = [": ", "; ", ", ", "`"].iter().fold(quoted.to_owned(), |all, mark| all.replace(mark, ".."));
            for part in separated.split("..").map(str::trim).filter(|part| part.len() >= 10) {
                parts += 1;
                if !messages.contains(part) && !part.ends_with(')') {
                    gone.push(part.to_owned());
                }
            }
        }
    }
    assert!(parts > 100, "{parts}");
    assert!(gone.is_empty(), "no message of the code has these words: {gone:#?}");
}
