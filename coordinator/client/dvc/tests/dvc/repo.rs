//! A repository of git and DVC in a directory of its own, and what DVC says of it.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_dvc::{DvcError, Fetched, Tracked};
use lockstep_support::{Again, Outcome, git, tool};

/// What each command of DVC loads.
const PACKAGES: [&str; 8] =
    ["dvc.cli.parser", "dvc.repo", "dvc.scm", "dvc.data_cloud", "dvc.daemon", "dvc_render", "psutil", "scmrepo.git"];

/// `repo/`, and beside it `remote/`, which is its default remote `store`.
pub(crate) struct Repo {
    python: Again,
    dir: tempfile::TempDir,
}

impl Repo {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("repo");
        fs::create_dir(&root).unwrap();
        let mut python = Command::new(tool("python3"));
        python.env("DVC_NO_ANALYTICS", "1").env("DVC_SITE_CACHE_DIR", dir.path().join("site")).current_dir(root);
        python.env("DVC_GLOBAL_CONFIG_DIR", dir.path()).env("DVC_SYSTEM_CONFIG_DIR", dir.path());
        let repo = Self { python: Again::new(python, &PACKAGES), dir };
        repo.git(&["init", "-q", "-b", "main"]);
        repo.dvc(&["init", "-q"]);
        repo.write(".dvc/config", "[core]\n    remote = store\n['remote \"store\"']\n    url = ../../remote\n");
        repo
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("repo")
    }

    pub(crate) fn remote(&self) -> PathBuf {
        self.dir.path().join("remote")
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    pub(crate) fn write(&self, name: &str, bytes: impl AsRef<[u8]>) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    }

    pub(crate) fn read(&self, name: &str) -> String {
        fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn dvc(&self, arguments: &[&str]) -> String {
        let Outcome { code, printed, said } = self.python.run(&[&["-m", "dvc"], arguments].concat());
        assert_eq!(code, 0, "{arguments:?}: {printed}{said}");
        printed
    }

    pub(crate) fn git(&self, arguments: &[&str]) -> String {
        git(&self.root(), arguments)
    }

    /// Everything but the remote is gone: the cache, and these outputs.
    pub(crate) fn lose(&self, outputs: &[&str]) {
        for path in outputs.iter().chain([&".dvc/cache"]).map(|output| self.path(output)) {
            if path.is_dir() {
                fs::remove_dir_all(path).unwrap();
            } else if path.exists() {
                fs::remove_file(path).unwrap();
            }
        }
    }

    pub(crate) fn tracked(&self, name: &str) -> Tracked {
        Tracked::find(&self.path(name)).unwrap().unwrap()
    }

    pub(crate) async fn fetch(&self, name: &str) -> Result<Fetched, DvcError> {
        self.tracked(name).fetch(&|_| {}).await
    }

    /// DVC finds nothing to say, and nothing to do.
    pub(crate) fn assert_clean(&self) {
        assert_eq!(self.dvc(&["status"]).trim(), "Data and pipelines are up to date.");
        let before = self.tree();
        self.dvc(&["checkout"]);
        assert_eq!(before, self.tree(), "`dvc checkout` changed something");
    }

    /// Mode, time and contents of every file of the work tree.
    pub(crate) fn tree(&self) -> BTreeMap<PathBuf, (u32, i64, Vec<u8>)> {
        let (mut found, mut open) = (BTreeMap::new(), vec![self.root()]);
        while let Some(dir) = open.pop() {
            for item in fs::read_dir(&dir).unwrap() {
                let path = item.unwrap().path();
                let is_ours = !path.ends_with(".git") && !path.ends_with(".dvc");
                if path.is_dir() && is_ours {
                    open.push(path);
                } else if is_ours {
                    let metadata = fs::symlink_metadata(&path).unwrap();
                    let time = metadata.mtime() * 1_000_000_000 + metadata.mtime_nsec();
                    found.insert(path.clone(), (metadata.mode(), time, fs::read(path).unwrap()));
                }
            }
        }
        found
    }
}

/// The permission bits of a file.
pub(crate) fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o777
}

/// An error with all its causes.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    std::iter::successors(Some(error), |error| error.source()).map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
