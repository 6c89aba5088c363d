//! Starts the program `git`.
//!
//! A repository's own configuration may name commands that git runs: `core.fsmonitor`, `core.sshCommand`, `core.gitProxy`,
//! `core.hooksPath`, `credential.helper`, `remote.*.uploadpack`, `filter.*.clean`, `diff.*.textconv`. So git is never started in
//! a user's repository, but in a temporary one that has its files. libgit2 reads such a configuration, but starts no commands. The
//! configuration of the user and of the machine applies, because it has the credentials for remotes.

use std::process::Command;

/// A `git` command that ignores a repository that the environment names (as in a hook or an alias), and runs no hooks.
pub(super) fn git() -> Command {
    let mut command = Command::new("git");
    for name in OF_A_REPOSITORY {
        command.env_remove(name);
    }
    command.args(["-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false"]);
    command
}

/// Environment variables that name a repository (`git rev-parse --local-env-vars`), except those for its configuration.
const OF_A_REPOSITORY: [&str; 13] = [
    "GIT_ALTERNATE_OBJECT_DIRECTORIES",
    "GIT_COMMON_DIR",
    "GIT_DIR",
    "GIT_GRAFT_FILE",
    "GIT_IMPLICIT_WORK_TREE",
    "GIT_INDEX_FILE",
    "GIT_NAMESPACE",
    "GIT_NO_REPLACE_OBJECTS",
    "GIT_OBJECT_DIRECTORY",
    "GIT_PREFIX",
    "GIT_REPLACE_REF_BASE",
    "GIT_SHALLOW_FILE",
    "GIT_WORK_TREE",
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::process::Command;

    #[test]
    fn git_is_told_of_no_other_repository_by_any_variable_that_it_knows() {
        let known = Command::new("git").args(["rev-parse", "--local-env-vars"]).output().unwrap();
        let known = String::from_utf8(known.stdout).unwrap();
        // The configuration of a single call (`git -c`) is the caller's intention.
        let names: BTreeSet<&str> = known.lines().filter(|name| !name.starts_with("GIT_CONFIG")).collect();
        let command = super::git();
        let removed = command.get_envs().filter(|(_, value)| value.is_none()).filter_map(|(name, _)| name.to_str());
        let removed: BTreeSet<&str> = removed.collect();
        assert!(names.contains("GIT_DIR") && names.is_subset(&removed), "{names:?} and {removed:?}");
    }
}
