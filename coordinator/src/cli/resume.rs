//! `coord resume`: what is checked here, before a coordinator is asked.

use std::path::{Path, PathBuf};

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{CodeVersion, DataFile, Manifest};
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
use super::prepare::{describe, keep, new_request};

/// What a person asked for.
#[derive(Debug)]
pub(super) struct Wish {
    pub(super) checkpoint: String,
    /// Keys that may differ, as `numerics.cpu.model`, or what stands before a dot in them.
    pub(super) accept: Vec<String>,
    /// Where the job's files lie now.
    pub(super) base_dir: Option<PathBuf>,
    /// Bytes of accepted code that are kept at most.
    pub(super) code_limit: u64,
}

impl Wish {
    /// The request, if what this machine has of the run's data is what it was, or may be otherwise. Code that may be is stored.
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
        let job = JobSpec::from_canonical(manifest.job_text.as_bytes());
        let job = job.map_err(|error| Failure::caused(Exit::Unreachable, &error))?;
        let takes_code = self.accept.iter().any(|key| key == "code");
        let (data, code) = block_in_place(|| {
            let code = if takes_code { Some(code_now(&dir, &job, self.code_limit)?) } else { None };
            if code.is_none() {
                note_code(&dir, &manifest, &job);
            }
            // As of another revision it is in the store, whatever lies here.
            let data = if job.data.revision().is_some() { Vec::new() } else { self.changed(&dir, &manifest)? };
            Ok::<_, Failure>((data, code))
        })?;
        let (code, blobs) = code.unzip();
        for blob in blobs.into_iter().flatten() {
            client.put_blob(blob).await?;
        }
        Ok(ResumeRequest {
            code: code.as_ref().map(Into::into),
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

/// The code in `dir` as it is now, and what is to be stored of it.
fn code_now(dir: &Path, job: &JobSpec, limit: u64) -> Result<(CodeVersion, Vec<Vec<u8>>), Failure> {
    if job.program.is_none() {
        let words = "`--accept code`: the job brings no program of its own, so no code of a work tree is trained with";
        return Err(Failure::new(Exit::Usage, words));
    }
    let mut code = describe(dir, true)?.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`--accept code`: `{}` lies in no git work tree", dir.display()))
            .hint("name the directory of the job file with `--base-dir`")
    })?;
    let blobs = keep(dir, &mut code, limit)?;
    Ok((code, blobs))
}

/// Says how the work tree around `dir` differs from the run's. It changes no bit: what trains is the installed program, or
/// is built from the run's own code.
fn note_code(dir: &Path, manifest: &Manifest, job: &JobSpec) {
    if let (Some(code), Ok(Some(tree))) = (&manifest.code, git::describe(dir))
        && (tree.version.commit != code.commit || tree.version.dirty != code.dirty)
    {
        let text = |commit: &str, dirty| format!("{commit}{}", if dirty { " with changes" } else { "" });
        let trains = match job.program {
            Some(_) => "that is what trains: `--accept code` would take what is there now",
            None => "what trains is the workers' own program",
        };
        Output::note(&format!(
            "note: the work tree of `{}` is at {} now, and the run came from {}; {trains}",
            dir.display(),
            text(&tree.version.commit, tree.version.dirty),
            text(&code.commit, code.dirty)
        ));
    }
}
