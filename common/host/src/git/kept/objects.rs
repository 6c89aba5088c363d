//! Git objects one after another: kind (one byte), length (u64 LE), contents. Their ids are not stored. Git computes them again, so
//! an object with a changed byte has another id, and nothing refers to it.

use git2::{ObjectType, Odb, Oid, Repository, TreeWalkMode, TreeWalkResult};

/// `tree` and all objects below it that are not in `known`; adds them to `known`. Commits of submodules are not included.
pub(in crate::git) fn below(
    repository: &Repository,
    tree: Oid,
    known: &mut std::collections::HashSet<Oid>,
) -> Result<Vec<Oid>, git2::Error> {
    let mut found = Vec::new();
    if known.insert(tree) {
        found.push(tree);
    }
    repository.find_tree(tree)?.walk(TreeWalkMode::PreOrder, |_, entry| {
        let new = entry.kind() != Some(ObjectType::Commit) && known.insert(entry.id());
        if new {
            found.push(entry.id());
        }
        // All objects below a known tree are known.
        if new || entry.kind() != Some(ObjectType::Tree) { TreeWalkResult::Ok } else { TreeWalkResult::Skip }
    })?;
    Ok(found)
}

/// Appends the objects `ids` to `bytes`.
pub(in crate::git) fn append(odb: &Odb<'_>, ids: &[Oid], bytes: &mut Vec<u8>) -> Result<(), git2::Error> {
    for id in ids {
        let object = odb.read(*id)?;
        let kind = match object.kind() {
            ObjectType::Commit => b'c',
            ObjectType::Tree => b't',
            _ => b'b',
        };
        bytes.push(kind);
        bytes.extend_from_slice(&(object.len() as u64).to_le_bytes());
        bytes.extend_from_slice(object.data());
    }
    Ok(())
}

/// Adds the objects in `bytes`, which [`append`] wrote, to a repository.
pub(in crate::git) fn add(repository: &Repository, mut bytes: &[u8]) -> Result<(), git2::Error> {
    let odb = repository.odb()?;
    while let Some((kind, rest)) = bytes.split_first() {
        let kind = match kind {
            b'c' => ObjectType::Commit,
            b't' => ObjectType::Tree,
            b'b' => ObjectType::Blob,
            _ => return Err(git2::Error::from_str("an object has an unknown kind")),
        };
        let cut = || git2::Error::from_str("an object is truncated");
        let (length, rest) = rest.split_first_chunk().ok_or_else(cut)?;
        let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| cut())?;
        let (contents, rest) = rest.split_at_checked(length).ok_or_else(cut)?;
        odb.write(kind, contents)?;
        bytes = rest;
    }
    Ok(())
}
