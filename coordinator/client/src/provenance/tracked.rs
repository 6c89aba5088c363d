//! Data that DVC tracks: it is fetched if it is missing, and refused if it differs from DVC's record.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use lockstep_common::Digest;
use lockstep_dvc::{DvcError, Md5, Presence, State, Tracked};
use lockstep_host::data::StatCache;

use crate::terminal::{Exit, Failure, Output, Progress};

/// Fetches those of `paths`, relative to `base_dir`, that DVC tracks and that are missing. A file that differs from DVC's record is refused
/// unless `accepted`; it is never overwritten.
pub(crate) async fn fetch(base_dir: &Path, paths: &[PathBuf], accepted: bool) -> Result<(), Failure> {
    let known = StatCache::of_user_named("md5");
    for path in paths {
        let path = base_dir.join(path);
        let Some(tracked) = Tracked::find(&path).map_err(|error| failure(&error))? else { continue };
        let recorded = as_digest(&tracked.recorded().md5);
        if known.as_ref().and_then(|known| known.known(&path)) == Some(recorded) {
            continue;
        }
        let begun = SystemTime::now();
        match tracked.check().await.map_err(|error| failure(&error))? {
            State::Files(files) if files.iter().any(|file| matches!(file.presence, Presence::Other { .. })) => {
                if !accepted {
                    return Err(changed(&files));
                }
                Output::note(&format!("note: `{}` differs from DVC's record, and is used as it is", path.display()));
                continue;
            }
            state if state.is_present() => {}
            _ => get(&tracked, &path).await?,
        }
        // Not directories, whose times do not change with the contents of their files.
        if let Some(known) = known.as_ref().filter(|_| path.is_file()) {
            known.keep(&path, begun, recorded);
        }
    }
    if let Some(Err(error)) = known.map(StatCache::save) {
        Output::note(&format!(
            "note: cannot cache MD5 sums of data files, so the next command hashes them again: {error}"
        ));
    }
    Ok(())
}

async fn get(tracked: &Tracked, path: &Path) -> Result<(), Failure> {
    let recorded = tracked.recorded();
    let bar = Progress::bytes("fetching from DVC's remote", recorded.size.unwrap_or_default());
    let shown = |progress: lockstep_dvc::Progress| bar.set(progress.bytes);
    let fetched = tracked.fetch(&shown).await.map_err(|error| failure(&error))?;
    for replaced in &fetched.replaced {
        Output::note(&format!("note: `{}` in DVC's cache was damaged, and was fetched again", replaced.display()));
    }
    Output::note(&format!(
        "fetched `{}` with DVC: {} files, {} bytes from its remote",
        path.display(),
        fetched.num_written,
        fetched.bytes_downloaded
    ));
    Ok(())
}

fn changed(files: &[lockstep_dvc::FileState]) -> Failure {
    let mut words = "data differs from DVC's record:".to_owned();
    for file in files {
        if let Presence::Other { expected, found } = &file.presence {
            // Writing to a text cannot fail.
            let _ = write!(words, "\n    {}: md5 {expected} recorded, {found} found", file.path.display());
        }
    }
    Failure::new(Exit::Refused, words)
        .hint("record it with `dvc commit`, restore the recorded data with `dvc checkout`, or pass `--allow-dirty` to use it as it is")
}

fn failure(error: &DvcError) -> Failure {
    Failure::caused(Exit::Local, error)
}

/// An MD5 sum as a digest: followed by zeros.
fn as_digest(md5: &Md5) -> Digest {
    format!("{:0<64}", md5.to_string()).parse().expect("an md5 has 32 hexadecimal digits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_md5_is_a_digest_of_its_own() {
        let text = "0123456789abcdef0123456789abcdef";
        let digest = as_digest(&Md5::from_hex(text).unwrap());
        assert_eq!(digest.to_hex(), format!("{text}{}", "0".repeat(32)));
    }
}
