//! Documents that are generated from the code, and kept in the repository.

use std::fmt::Write as _;
use std::fs;
use std::path::Path;

use clap::Command;
use clap_complete::Shell;

use crate::places::repository;

/// Columns of help texts.
const WIDTH: usize = 120;

/// Compares a generated document with the one in the repository at `path`; writes it if `UPDATE_DOCS` is set.
///
/// # Panics
/// If they differ: the text names the command that generates the document.
pub fn is_current(path: &str, text: &str) {
    let file = repository().join(path);
    if std::env::var_os("UPDATE_DOCS").is_some() {
        fs::create_dir_all(file.parent().expect("a document lies in a folder")).expect("the repository is writable");
        fs::write(&file, text).expect("the repository is writable");
    }
    let kept = fs::read_to_string(&file).unwrap_or_default();
    let differs = kept.lines().zip(text.lines()).find(|(kept, made)| kept != made);
    assert!(
        kept == text,
        "{path} is out of date ({differs:?}): run `UPDATE_DOCS=1 cargo test --release --locked documented`"
    );
}

/// Compares the reference of a program in `docs/cli` with its command line: one Markdown page, a man page for the program and each
/// subcommand, and completions for bash, zsh and fish.
///
/// # Panics
/// If one of them is out of date, or a man page is of a subcommand that no longer exists.
pub fn cli_is_current(command: Command) {
    let command = command.term_width(WIDTH);
    let name = command.get_name().to_owned();
    for (shell, file) in
        [(Shell::Bash, format!("{name}.bash")), (Shell::Zsh, format!("_{name}")), (Shell::Fish, format!("{name}.fish"))]
    {
        let mut text = Vec::new();
        clap_complete::generate(shell, &mut command.clone(), &name, &mut text);
        is_current(&format!("docs/cli/completions/{file}"), &lines(&text));
    }
    let man = tempfile::tempdir().expect("a temporary directory");
    clap_mangen::generate_to(command.clone(), man.path()).expect("it is writable");
    let pages = names(man.path());
    for page in &pages {
        is_current(&format!("docs/cli/man/{page}"), &lines(&fs::read(man.path().join(page)).expect("it was written")));
    }
    let of_program = |page: &String| *page == format!("{name}.1") || page.starts_with(&format!("{name}-"));
    let kept: Vec<String> = names(&repository().join("docs/cli/man")).into_iter().filter(of_program).collect();
    assert_eq!(kept, pages, "docs/cli/man has pages of subcommands that do not exist: delete them");

    let mut command = command;
    command.build();
    let mut text = format!("# {name}\n\nGenerated from the program's own help texts.\n");
    section(&mut command, &mut text);
    is_current(&format!("docs/cli/{name}.md"), &text);
}

/// The help of a command and of its visible subcommands, a section each.
fn section(command: &mut Command, text: &mut String) {
    let title = command.get_bin_name().unwrap_or(command.get_name()).to_owned();
    let help = command.render_long_help().to_string();
    write!(text, "\n## {title}\n\n```text\n{}```\n", lines(help.as_bytes())).expect("a string takes all");
    for inner in command.get_subcommands_mut().filter(|inner| !inner.is_hide_set() && inner.get_name() != "help") {
        section(inner, text);
    }
}

/// Without blanks at the ends of lines, and with one line break at the end.
fn lines(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let kept: Vec<&str> = text.trim_end().lines().map(str::trim_end).collect();
    kept.join("\n") + "\n"
}

/// Names of the files in a folder, sorted.
fn names(folder: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}
