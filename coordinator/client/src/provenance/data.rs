//! `coord data`: hashes data files, and stores them in the coordinator's store.

use std::path::{Path, PathBuf};

use lockstep_common::manifest::{DataFile, Piece, data_digest};
use lockstep_dvc::Objects;
use lockstep_host::data::StatCache;
use lockstep_host::data::{self, DataHashError, Listed};
use serde::Serialize;

use crate::args::{DataAddArguments, DataHashArguments};
use crate::connection::{Client, at_once};
use crate::terminal::{Exit, Failure, Output, Progress};

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<DataFile>,
    /// Digest of all files together, which does not depend on their order.
    digest: String,
    /// Bytes that are new to the store; absent for `coord data hash`.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
}

impl Report {
    /// Hashes all files of `paths`. `to_store` rejects links that lead out of a directory: their contents would be stored.
    async fn of(paths: Vec<PathBuf>, rehash: bool, to_store: bool) -> Result<Self, Failure> {
        let files = tokio::task::spawn_blocking(move || measure(&paths, rehash, to_store))
            .await
            .map_err(|_| Failure::new(Exit::Local, "hashing panicked"))??;
        Ok(Self { digest: data_digest(&files).to_hex(), files, stored: None })
    }

    fn print(&self, json: bool, out: &mut Output) {
        if json {
            return out.json(self);
        }
        let lines: Vec<String> = self.files.iter().map(line).collect();
        out.bytes(lines.concat().as_bytes());
        let bytes: u64 = self.files.iter().map(|file| file.bytes).sum();
        let new = self.stored.map_or_else(String::new, |stored| format!(", {stored} of them new"));
        Output::note(&format!("{} files, {bytes} bytes{new}; digest of all: {}", self.files.len(), self.digest));
    }
}

/// The line of a file in the format of `b3sum`. A name with line ends or backslashes is escaped, and the line begins with a backslash.
fn line(file: &DataFile) -> String {
    let name = file.path.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
    let mark = if name == file.path { "" } else { r"\" };
    format!("{mark}{}  {name}\n", file.digest)
}

pub(crate) async fn hash(arguments: DataHashArguments, out: &mut Output) -> Result<Exit, Failure> {
    Report::of(arguments.paths, arguments.rehash, false).await?.print(arguments.json, out);
    Ok(Exit::Done)
}

pub(crate) async fn add(arguments: DataAddArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let mut report = Report::of(arguments.paths, arguments.rehash, true).await?;
    let files: Vec<_> = report.files.iter().map(|file| (file.piece(), PathBuf::from(&file.path))).collect();
    report.stored = Some(keep(&client, &files).await?);
    report.print(arguments.reader.json, out);
    Ok(Exit::Done)
}

/// Stores the contents of `files`, which are at those paths, and returns the number of bytes that are new to the store.
pub(crate) async fn keep(client: &Client, files: &[(Piece, PathBuf)]) -> Result<u64, Failure> {
    let progress = Progress::bytes("storing", files.iter().map(|(piece, _)| piece.bytes).sum());
    let store = |(piece, path): &(Piece, PathBuf)| {
        let (client, piece, path, progress) = (client.clone(), piece.clone(), path.clone(), progress.clone());
        async move {
            let new = client.put_file(&piece, &path, &progress).await?;
            Ok(if new { piece.bytes } else { 0 })
        }
    };
    Ok(at_once(files.iter().map(store)).await?.into_iter().sum())
}

/// Lists and hashes all files of `paths`, also those in directories, in the order of their paths.
fn measure(paths: &[PathBuf], rehash: bool, to_store: bool) -> Result<Vec<DataFile>, Failure> {
    let list = |path: &PathBuf| {
        let files = data::list(path).map_err(|error| refused(&error))?;
        if to_store {
            no_link_out(path, &files)?;
        }
        Ok(files)
    };
    let mut listed = paths.iter().map(list).collect::<Result<Vec<_>, Failure>>()?.concat();
    listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    listed.dedup_by(|a, b| a.path == b.path);
    hash_files(&listed.iter().collect::<Vec<_>>(), rehash)
}

/// Rejects a link among `files` that leads out of their directory `dir`, unless it leads into DVC's cache: its contents would be stored.
pub(crate) fn no_link_out(dir: &Path, files: &[Listed]) -> Result<(), Failure> {
    let objects = Objects::around(dir).map_err(|error| Failure::caused(Exit::Local, &error))?;
    let is_cached = |path: &Path| objects.as_ref().is_some_and(|objects| objects.have(path));
    data::no_link_out(dir, files, &is_cached).map_err(|error| refused(&error))
}

/// Hashes `files`. Without `rehash`, files whose inode, size and times are unchanged keep their cached digests.
pub(crate) fn hash_files(files: &[&Listed], rehash: bool) -> Result<Vec<DataFile>, Failure> {
    let progress = Progress::files("hashing", files.len() as u64);
    let cache = if rehash { None } else { StatCache::of_user() };
    let files = data::hash_files(files, cache.as_ref(), &|_| progress.add(1));
    let files = files.map_err(|error| refused(&error))?;
    drop(progress);
    if let Some(Err(error)) = cache.map(StatCache::save) {
        Output::note(&format!(
            "note: cannot cache digests of data files, so the next command hashes them again: {error}"
        ));
    }
    Ok(files)
}

/// The failure of data that cannot be used: `Local` for input and output errors, `Usage` for all others.
pub(crate) fn refused(error: &DataHashError) -> Failure {
    let exit = match error {
        DataHashError::Io { .. } => Exit::Local,
        _ => Exit::Usage,
    };
    Failure::caused(exit, error)
}

#[cfg(test)]
mod tests {
    use lockstep_common::Domain;

    use super::*;

    #[test]
    fn no_name_is_taken_for_another_line() {
        let digest = Domain::Blob.digest(b"x");
        let of = |path: &str| line(&DataFile { path: path.to_owned(), digest, bytes: 1 });
        assert_eq!(of("a b"), format!("{digest}  a b\n"));
        assert_eq!(of("a\n\\b\r"), format!("\\{digest}  a\\n\\\\b\\r\n"));
    }

    #[test]
    fn what_a_link_leads_to_out_of_a_directory_is_hashed_and_not_stored() {
        let place = tempfile::tempdir().unwrap();
        let (tree, cache) = (place.path().join("tree"), place.path().join("tree/.dvc/cache/files/md5/01"));
        let (dir, object) = (tree.join("dir"), cache.join("23456789abcdef0123456789abcdef"));
        for dir in [&dir, &cache] {
            std::fs::create_dir_all(dir).unwrap();
        }
        for file in [&object, &dir.join("f"), &place.path().join("secret")] {
            std::fs::write(file, "1").unwrap();
        }
        std::os::unix::fs::symlink(&object, dir.join("cached")).unwrap();
        assert_eq!(measure(std::slice::from_ref(&dir), true, true).unwrap().len(), 2);
        std::os::unix::fs::symlink("../../secret", dir.join("link")).unwrap();
        assert_eq!(measure(std::slice::from_ref(&dir), true, false).unwrap().len(), 3);
        let refused = measure(std::slice::from_ref(&dir), true, true).unwrap_err();
        let said = refused.render();
        assert!(said.contains("dir/link` is a link out of") && said.contains("/secret`"), "{said}");
        assert_eq!(refused.exit(), Exit::Usage);

        // Nor is it stored with a job.
        let job = |keep| crate::provenance::measure::in_place(&tree, &["dir"], true, true, keep);
        assert_eq!(job(false).unwrap().files.len(), 3);
        assert!(job(true).unwrap_err().render().contains("dir/link` is a link out of"));
    }
}
