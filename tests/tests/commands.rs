//! Every block of commands in README and in docs/getting-started.md, run in order by one shell, with real processes. A `text` block below
//! a block of commands is its output, where `[..]` stands for any characters and a line `...` for any lines.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::fmt::Write as _;
use std::fs;
use std::process::{Command, Stdio};

use lockstep_support::{binary, commit, free_port, repository, tool_packages, torch_python};

/// Ends what a shell started, should a command not return.
const LIMIT_S: &str = "300";

/// Stands between the outputs of two blocks.
const MARK: &str = "@@ block";

/// The first checkpoint of the newest run, which a reader picks from the list.
const FIRST_CHECKPOINT: &str = r#"
RUN=$(coord ps --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[-1]["run"])')
CHECKPOINT=$(coord checkpoints $RUN --json | python3 -c 'import json, sys; print(json.load(sys.stdin)[0]["id"])')"#;

/// A fenced block: the line that opens it, and the text.
struct Block {
    info: String,
    text: String,
}

fn blocks(document: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut lines = document.lines();
    while let Some(line) = lines.next() {
        if let Some(info) = line.strip_prefix("```") {
            let text =
                lines.by_ref().take_while(|line| *line != "```").fold(String::new(), |text, line| text + line + "\n");
            blocks.push(Block { info: info.to_owned(), text });
        }
    }
    blocks
}

/// The script of a document, and for each block that it runs the output that the document shows, if it shows one.
///
/// `sh install` (set-up and builds, which CI runs as steps of its own) and `sh two-machines` are left out.
fn script(document: &str, port: u16) -> (String, Vec<Option<String>>) {
    let mut script = "set -euo pipefail\ntrap 'kill $(jobs -p) 2>/dev/null; wait' EXIT\n".to_owned();
    let mut shown: Vec<Option<String>> = Vec::new();
    let mut follows = false;
    for Block { info, text } in blocks(document) {
        let words: Vec<&str> = info.split(' ').collect();
        match words.as_slice() {
            ["sh"] => {
                writeln!(script, "echo '{MARK}'\n{}", commands(&text, port)).unwrap();
                shown.push(None);
            }
            ["text"] if follows => *shown.last_mut().unwrap() = Some(text),
            ["python" | "toml", "file", name] => {
                writeln!(script, "mkdir -p $(dirname {name}) && cat > {name} <<'END'\n{text}END").unwrap();
            }
            ["sh", "install" | "two-machines"] => {}
            _ => panic!("a block that nobody checks: ```{info}"),
        }
        follows = words == ["sh"];
    }
    (script, shown)
}

/// As a person would type them: after a program for the background, only once it answers, and with the id of a checkpoint.
fn commands(text: &str, port: u16) -> String {
    let mut typed = String::new();
    for line in text.replace("7070", &port.to_string()).lines() {
        let command = line.split(" #").next().unwrap().trim_end();
        if let Some(program) = command.strip_suffix(" &") {
            writeln!(typed, "{program} > /dev/null 2>&1 &\nuntil coord ps > /dev/null 2>&1; do sleep 0.05; done")
                .unwrap();
        } else if command.contains("CHECKPOINT") {
            writeln!(typed, "{FIRST_CHECKPOINT}\n{}", command.replace("CHECKPOINT", "$CHECKPOINT")).unwrap();
        } else {
            writeln!(typed, "{line}").unwrap();
        }
    }
    typed
}

/// Runs the blocks of `document` in a home directory with a clone of the repository, and compares their outputs.
fn follow(document: &str, expected_blocks: usize) {
    let home = tempfile::tempdir().unwrap();
    let clone = home.path().join("lockstep");
    for folder in ["configs/jobs", "tests/data"] {
        fs::create_dir_all(clone.join(folder)).unwrap();
        for entry in fs::read_dir(repository().join(folder)).unwrap().flatten() {
            fs::copy(entry.path(), clone.join(folder).join(entry.file_name())).unwrap();
        }
    }
    fs::copy(repository().join(".gitignore"), clone.join(".gitignore")).unwrap();
    commit(&clone, "as cloned");

    let port = free_port();
    let (script, shown) = script(&fs::read_to_string(repository().join(document)).unwrap(), port);
    assert_eq!(shown.len(), expected_blocks, "blocks of {document} that are run");
    let file = home.path().join("script.sh");
    fs::write(&file, &script).unwrap();
    let folders = [binary("coord").parent().unwrap().to_owned(), torch_python().parent().unwrap().to_owned()];
    let inherited = std::env::var_os("PATH").unwrap();
    let path = std::env::join_paths(folders.into_iter().chain(std::env::split_paths(&inherited))).unwrap();
    let address = format!("127.0.0.1:{port}");
    let done = Command::new("timeout")
        .args(["--kill-after=20", LIMIT_S, "bash"])
        .arg(&file)
        .current_dir(&clone)
        .env("HOME", home.path())
        .env("PATH", path)
        .env("PYTHONPATH", tool_packages())
        .env("LOCKSTEP_ADDR", &address)
        .env("LOCKSTEP_COORD_LISTEN", &address)
        .env("LOCKSTEP_COORD_WEB_LISTEN", "127.0.0.1:0")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let (out, err) = (String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(done.status.success(), "{document}: {}\n{script}\n{out}\n{err}", done.status);
    let outputs: Vec<&str> = out.split(&format!("{MARK}\n")).skip(1).collect();
    assert_eq!(outputs.len(), shown.len(), "{out}");
    for (output, expected) in outputs.iter().zip(&shown) {
        if let Some(expected) = expected {
            let (output, expected): (Vec<&str>, Vec<&str>) = (output.lines().collect(), expected.lines().collect());
            assert!(
                matches(&output, &expected),
                "{document} shows\n{}\nand it is\n{}",
                expected.join("\n"),
                output.join("\n")
            );
        }
    }
}

/// Whether lines are as shown.
fn matches(lines: &[&str], shown: &[&str]) -> bool {
    match shown {
        [] => lines.is_empty(),
        ["...", rest @ ..] => (0..=lines.len()).any(|skipped| matches(&lines[skipped..], rest)),
        [first, rest @ ..] => {
            lines.first().is_some_and(|line| line_matches(line.trim_end(), first)) && matches(&lines[1..], rest)
        }
    }
}

fn line_matches(line: &str, shown: &str) -> bool {
    match shown.split_once("[..]") {
        None => line == shown,
        Some((begin, rest)) => line.strip_prefix(begin).is_some_and(|after| {
            (0..=after.len()).filter(|at| after.is_char_boundary(*at)).any(|at| line_matches(&after[at..], rest))
        }),
    }
}

#[test]
fn readme_does_what_it_says() {
    follow("README.md", 2);
}

#[test]
fn getting_started_does_what_it_says() {
    follow("docs/getting-started.md", 7);
}

#[test]
fn an_output_that_differs_is_seen() {
    let lines = ["run  status", "ab12 finished", "end"];
    assert!(matches(&lines, &["run  status", "[..] finished", "end"]) && matches(&lines, &["...", "end"]));
    assert!(!matches(&lines, &["run  status", "[..] failed", "end"]) && !matches(&lines, &["run  status"]));
    assert!(!matches(&lines, &["...", "end", "more"]));
}
