//! Computes digests of data files, and checks that local files are unchanged.

use std::fs;
use std::path::Path;
use std::time::SystemTime;

use lockstep_common::manifest::DataFile;
use rayon::prelude::*;

use super::error::{DataHashError, Mismatch};
use super::list::Listed;
use super::opened;
use super::stat_cache::{Stamp, StatCache};

/// Hashes `files` by plain reads, on all cores. Files that `cache` knows unchanged are not read. `done` is called with the size of
/// each finished file.
pub fn hash_files(
    files: &[&Listed],
    cache: Option<&StatCache>,
    done: &(dyn Fn(u64) + Sync),
) -> Result<Vec<DataFile>, DataHashError> {
    let hash = |file: &&Listed| {
        let known = cache.zip(file.stamp).and_then(|(cache, stamp)| Some((stamp.bytes(), cache.get(&stamp)?)));
        let hashed = match known {
            Some((bytes, digest)) => DataFile { path: file.path.clone(), bytes, digest },
            None => hash_file(&file.at, &file.path, cache, file.in_directory)?,
        };
        done(hashed.bytes);
        Ok(hashed)
    };
    files.par_iter().map(hash).collect()
}

/// Checks that every file still has the contents of `files`. Paths are relative to `base_dir`.
pub fn verify(base_dir: &Path, files: &[DataFile]) -> Result<(), DataHashError> {
    files.iter().try_for_each(|file| {
        let path = base_dir.join(&file.path);
        let hashed = opened::open(&path, file.bytes == 0, None)?;
        let found = (hashed.digest, hashed.bytes);
        let changed = || DataHashError::Changed { file: Mismatch::of(file, &path, found), stored: false };
        if hashed.digest == file.digest { Ok(()) } else { Err(changed()) }
    })
}

/// Hashes the file at `path`, which the job calls `name`.
fn hash_file(
    path: &Path,
    name: &str,
    cache: Option<&StatCache>,
    may_be_empty: bool,
) -> Result<DataFile, DataHashError> {
    let file = |bytes, digest| DataFile { path: name.to_owned(), bytes, digest };
    let known = cache.and_then(|cache| {
        let stamp = Stamp::of(&fs::metadata(path).ok().filter(fs::Metadata::is_file)?);
        Some(file(stamp.bytes(), cache.get(&stamp)?)).filter(|file| file.bytes > 0 || may_be_empty)
    });
    if let Some(known) = known {
        return Ok(known);
    }
    let begun = SystemTime::now();
    let hashed = opened::open(path, may_be_empty, None)?;
    if let Some(cache) = cache {
        cache.put(hashed.stamp, begun, hashed.digest);
    }
    Ok(file(hashed.bytes, hashed.digest))
}

#[cfg(test)]
mod tests {
    use lockstep_common::Digest;

    use super::super::list::list_below;
    use super::*;

    fn hash(dir: &Path, path: &str, cache: Option<&StatCache>) -> Result<Vec<DataFile>, DataHashError> {
        hash_files(&[&Listed::new(dir, path)], cache, &|_| ())
    }

    #[test]
    fn changed_missing_and_empty_files_are_named() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("a"), b"abc").unwrap();
        let files = hash(dir.path(), "a", None).unwrap();
        assert_eq!(files[0].digest.to_hex(), "6437b3ac38465133ffb63b75273a8db548c558465d79db03fd359c6cd5bd9d85");
        verify(dir.path(), &files).unwrap();
        std::fs::write(dir.path().join("a"), b"abd").unwrap();
        let error = verify(dir.path(), &files).unwrap_err().to_string();
        assert!(error.contains("expected 3 bytes with digest `6437b3ac") && error.contains("found 3 bytes"), "{error}");
        std::fs::write(dir.path().join("a"), b"").unwrap();
        assert!(matches!(verify(dir.path(), &files), Err(DataHashError::Empty { .. })));
        assert!(matches!(hash(dir.path(), "b", None), Err(DataHashError::Missing { .. })));
        assert!(matches!(hash(dir.path(), ".", None), Err(DataHashError::NotAFile { .. })));
    }

    #[test]
    fn a_pointer_of_git_lfs_is_not_taken_for_data() {
        let dir = tempfile::tempdir().unwrap();
        let text = "version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n";
        std::fs::write(dir.path().join("a"), text).unwrap();
        let error = hash(dir.path(), "a", None).unwrap_err().to_string();
        assert!(error.contains("a pointer of Git LFS, not the data: run `git lfs pull`"), "{error}");
    }

    #[test]
    fn a_file_that_a_job_names_itself_is_a_file_and_holds_something() {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir(dir.path().join("d")).unwrap();
        assert!(matches!(hash(dir.path(), "d", None), Err(DataHashError::NotAFile { .. })));
        fs::write(dir.path().join("e"), b"").unwrap();
        assert!(matches!(hash(dir.path(), "e", None), Err(DataHashError::Empty { .. })));
    }

    #[test]
    fn a_known_file_is_not_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let (path, kept) = (dir.path().join("a"), dir.path().join("cache"));
        let cache = StatCache::open(&kept);
        std::fs::write(&path, b"abc").unwrap();
        let first = hash(dir.path(), "a", Some(&cache)).unwrap();
        // A time in the future makes the file count as old. Another digest shows that the answer comes from the cache.
        let other = Digest::from_bytes([9; 32]);
        cache.put(
            Stamp::of(&fs::metadata(&path).unwrap()),
            SystemTime::now() + std::time::Duration::from_secs(90),
            other,
        );
        cache.save().unwrap();
        let cache = StatCache::open(&kept);
        assert_eq!(hash(dir.path(), "a", Some(&cache)).unwrap()[0].digest, other);
        let listed = list_below(dir.path()).unwrap();
        assert_eq!(hash_files(&[&listed[0]], Some(&cache), &|_| ()).unwrap()[0].digest, other);
        assert_eq!(hash(dir.path(), "a", None).unwrap(), first);
        assert!(verify(dir.path(), &first).is_ok(), "a process reads its data");
    }
}
