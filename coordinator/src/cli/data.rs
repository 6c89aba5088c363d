//! `coord data`: contents that runs need, kept in the coordinator's store by their digests.

use std::path::PathBuf;

use lockstep_common::manifest::{DataFile, Piece, data_digest};
use lockstep_host::data::{self, DataHashError, Listed};
use lockstep_host::stat_cache::StatCache;
use serde::Serialize;

use super::args::{DataAddArguments, DataHashArguments};
use super::blobs::at_once;
use super::client::Client;
use super::error::Failure;
use super::exit::Exit;
use super::output::Output;
use super::progress::Progress;

#[derive(Debug, Serialize)]
struct Report {
    files: Vec<DataFile>,
    /// Of all of them, whatever their order.
    digest: String,
    /// Bytes that were not in the store before; absent if nothing was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    stored: Option<u64>,
}

impl Report {
    async fn of(paths: Vec<PathBuf>, rehash: bool) -> Result<Self, Failure> {
        let files = tokio::task::spawn_blocking(move || measure(&paths, rehash))
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
        Output::note(&format!("{} files, {bytes} bytes{new}; all together {}", self.files.len(), self.digest));
    }
}

/// The line of a file, as `b3sum` has it: with a backslash before it, if its name has characters that could be taken for another line.
fn line(file: &DataFile) -> String {
    let name = file.path.replace('\\', r"\\").replace('\n', r"\n").replace('\r', r"\r");
    let mark = if name == file.path { "" } else { r"\" };
    format!("{mark}{}  {name}\n", file.digest)
}

pub(super) async fn hash(arguments: DataHashArguments, out: &mut Output) -> Result<Exit, Failure> {
    Report::of(arguments.paths, arguments.rehash).await?.print(arguments.json, out);
    Ok(Exit::Done)
}

pub(super) async fn add(arguments: DataAddArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.reader.address.addr).await?;
    let mut report = Report::of(arguments.paths, arguments.rehash).await?;
    let files: Vec<_> = report.files.iter().map(|file| (file.piece(), PathBuf::from(&file.path))).collect();
    report.stored = Some(keep(&client, &files).await?);
    report.print(arguments.reader.json, out);
    Ok(Exit::Done)
}

/// Puts the contents of `files`, which lie at those paths, into the store; how many bytes were not there.
pub(super) async fn keep(client: &Client, files: &[(Piece, PathBuf)]) -> Result<u64, Failure> {
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

/// Lists all files of `paths`, those of directories too, and hashes them.
fn measure(paths: &[PathBuf], rehash: bool) -> Result<Vec<DataFile>, Failure> {
    let listed = paths.iter().map(|path| data::list(path)).collect::<Result<Vec<_>, _>>();
    let mut listed = listed.map_err(|error| refused(&error))?.concat();
    listed.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    listed.dedup_by(|a, b| a.path == b.path);
    hash_files(&listed.iter().collect::<Vec<_>>(), rehash)
}

/// Hashes `files`; without `rehash`, those only that are not known as they are.
pub(super) fn hash_files(files: &[&Listed], rehash: bool) -> Result<Vec<DataFile>, Failure> {
    let progress = Progress::files("hashing", files.len() as u64);
    let cache = if rehash { None } else { StatCache::of_user() };
    let files = data::hash_files(files, cache.as_ref(), &|_| progress.add(1));
    let files = files.map_err(|error| refused(&error))?;
    drop(progress);
    if let Some(Err(error)) = cache.map(StatCache::save) {
        Output::note(&format!("note: digests of data files cannot be kept for the next time: {error}"));
    }
    Ok(files)
}

/// What data cannot be used.
pub(super) fn refused(error: &DataHashError) -> Failure {
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

    /// As `b3sum` writes them.
    #[test]
    fn no_name_is_taken_for_another_line() {
        let digest = Domain::Blob.digest(b"x");
        let of = |path: &str| line(&DataFile { path: path.to_owned(), digest, bytes: 1 });
        assert_eq!(of("a b"), format!("{digest}  a b\n"));
        assert_eq!(of("a\n\\b\r"), format!("\\{digest}  a\\n\\\\b\\r\n"));
    }
}
