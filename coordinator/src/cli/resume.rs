//! `coord resume`: what is checked here, before a coordinator is asked.

use std::path::{Path, PathBuf};

use lockstep_common::manifest::{DataFile, Manifest};
use lockstep_host::data::{self, DataHashError};
use lockstep_host::git;
use lockstep_host::stat_cache::StatCache;
use lockstep_rpc::ResumeRequest;
use lockstep_rpc::query_request::What;
use tokio::task::block_in_place;

use super::client::Client;
use super::data::refused;
use super::error::Failure;
use super::exit::Exit;
use super::output::Output;
use super::prepare::new_request;

/// What a person asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) checkpoint: String,
    /// Keys that may differ, as `numerics.cpu.model`, or what stands before a dot in them.
    pub(super) accept: Vec<String>,
    /// Where the job's files lie now.
    pub(super) base_dir: Option<PathBuf>,
}

impl Wish {
    /// The request, if what this machine has of the run's data is what it was, or may be otherwise.
    pub(super) async fn request(self, client: &Client) -> Result<ResumeRequest, Failure> {
        let text = client.query(What::Manifest(self.checkpoint.clone())).await?;
        let manifest = Manifest::decode(text.as_bytes()).map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
        let moved = match &self.base_dir {
            Some(dir) => Some(std::fs::canonicalize(dir).map_err(|error| {
                Failure::new(Exit::Usage, format!("cannot resolve `--base-dir {}`: {error}", dir.display()))
            })?),
            None => None,
        };
        let dir = moved.clone().unwrap_or_else(|| manifest.base_dir.clone().into());
        let data = block_in_place(|| {
            note_code(&dir, &manifest);
            self.changed(&dir, &manifest)
        })?;
        Ok(ResumeRequest {
            request_id: new_request()?.to_string(),
            checkpoint: self.checkpoint,
            accept: self.accept,
            base_dir: moved.map_or_else(String::new, |dir| dir.display().to_string()),
            data: data.iter().map(Into::into).collect(),
        })
    }

    /// Data that is otherwise now, and was accepted. What is not on this machine the run's processes look at.
    fn changed(&self, dir: &Path, manifest: &Manifest) -> Result<Vec<DataFile>, Failure> {
        let cache = StatCache::of_user();
        let mut changed = Vec::new();
        for file in &manifest.data {
            let now = match data::hash_files(dir, &[&file.path], cache.as_ref(), &|_| ()) {
                Ok(mut now) => now.remove(0),
                Err(DataHashError::Missing { .. }) => continue,
                Err(error) => return Err(refused(&error)),
            };
            if now.digest == file.digest {
                continue;
            }
            let key = format!("data.{}", file.path);
            if !self.accept.iter().any(|name| *name == key || name == "data") {
                let words = format!(
                    "data file `{}` is not what it was at checkpoint {}: {} bytes with digest `{}` then, {} bytes with \
                     digest `{}` now",
                    dir.join(&file.path).display(),
                    Manifest::id(&manifest.encode()).short(),
                    file.bytes,
                    file.digest,
                    now.bytes,
                    now.digest
                );
                return Err(Failure::new(Exit::Refused, words).hint(format!(
                    "put the old one back; or go on with the new one, which all that comes of it will say: `--accept {key}`"
                )));
            }
            changed.push(now);
        }
        Ok(changed)
    }
}

/// Says how the work tree around `dir` differs from the run's: what trains is the installed program, so no bit changes.
fn note_code(dir: &Path, manifest: &Manifest) {
    if let (Some(code), Ok(Some(tree))) = (&manifest.code, git::describe(dir))
        && (tree.version.commit != code.commit || tree.version.dirty != code.dirty)
    {
        let text = |commit: &str, dirty| format!("{commit}{}", if dirty { " with changes" } else { "" });
        Output::note(&format!(
            "note: the work tree of `{}` is at {} now, and the run came from {}; what trains is the workers' own program",
            dir.display(),
            text(&tree.version.commit, tree.version.dirty),
            text(&code.commit, code.dirty)
        ));
    }
}
