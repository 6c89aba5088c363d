//! The commits that a work tree builds on, as bytes, without their history: so that a run's code can be rebuilt where
//! nobody has the repository.
//!
//! ```text
//! "lockstep commits 1\n" | length of header, u64 LE | header, JSON | a pack for each commit
//! ```

use std::path::Path;

use git2::{Buf, ObjectType, Oid, Repository, TreeWalkMode, TreeWalkResult};
use serde::{Deserialize, Serialize};

use super::GitError;
use super::container::{self, Container};

const MAGIC: &[u8] = b"lockstep commits 1\n";

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Entry {
    commit: String,
    pack: u64,
}

impl Container for Entry {
    const MAGIC: &'static [u8] = MAGIC;

    fn pack(&self) -> u64 {
        self.pack
    }
}

/// The commit of the work tree that `path` lies in and those of its submodules; `None` if their files have more than
/// `limit` bytes together.
///
/// # Errors
/// `Git`, `Header`.
pub fn source(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, GitError> {
    let failed = |source| GitError::Git { path: path.to_owned(), source };
    let repository = Repository::discover(path).map_err(failed)?;
    let (mut entries, mut packs, mut left) = (Vec::new(), Vec::new(), limit);
    let fits = add(&repository, &mut entries, &mut packs, &mut left).map_err(failed)?;
    if fits { container::write(&entries, &packs).map(Some) } else { Ok(None) }
}

fn add(
    repository: &Repository,
    entries: &mut Vec<Entry>,
    packs: &mut Vec<u8>,
    left: &mut u64,
) -> Result<bool, git2::Error> {
    let commit = repository.head()?.peel_to_commit()?;
    let (odb, mut bytes) = (repository.odb()?, 0);
    commit.tree()?.walk(TreeWalkMode::PreOrder, |_, entry| {
        if entry.kind() == Some(ObjectType::Blob) {
            bytes += odb.read_header(entry.id()).map_or(0, |(bytes, _)| bytes as u64);
        }
        TreeWalkResult::Ok
    })?;
    let Some(rest) = left.checked_sub(bytes) else { return Ok(false) };
    *left = rest;
    let pack = pack(repository, commit.id())?;
    entries.push(Entry { commit: commit.id().to_string(), pack: pack.len() as u64 });
    packs.extend_from_slice(&pack);
    for submodule in repository.submodules()? {
        if let Ok(inner) = submodule.open()
            && !add(&inner, entries, packs, left)?
        {
            return Ok(false);
        }
    }
    Ok(true)
}

/// A pack of a commit and all of its tree, without its parents. The same commit gives the same bytes.
pub(super) fn pack(repository: &Repository, commit: Oid) -> Result<Vec<u8>, git2::Error> {
    let (mut packing, mut buffer) = (repository.packbuilder()?, Buf::new());
    packing.set_threads(1);
    packing.insert_commit(commit)?;
    packing.write_buf(&mut buffer)?;
    Ok(buffer.to_vec())
}

/// The pack of `commit` in what [`source`] gave, if it is there.
pub(super) fn find<'a>(source: &'a [u8], commit: &str) -> Result<Option<&'a [u8]>, GitError> {
    let (entries, mut packs): (Vec<Entry>, _) = container::read(source)?;
    for entry in entries {
        let (pack, rest) = packs.split_at(entry.pack as usize);
        if entry.commit == commit {
            return Ok(Some(pack));
        }
        packs = rest;
    }
    Ok(None)
}
