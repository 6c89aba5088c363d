//! `coord resume`: compares data and code on this machine with the checkpoint's, before the coordinator gets the request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use lockstep_common::job::JobSpec;
use lockstep_common::listing;
use lockstep_common::manifest::{CodeVersion, DataFile, Manifest};
use lockstep_host::git;
use lockstep_rpc::ResumeRequest;
use lockstep_rpc::query_request::What;
use tokio::task::block_in_place;

use crate::connection::Client;
use crate::provenance::measure::in_place;
use crate::runs::prepare::{describe, keep, new_request};
use crate::terminal::{Exit, Failure, Output};

/// Most differing files that a refusal lists.
const NAMED_FILES: usize = 20;

/// The arguments of `coord resume`.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) checkpoint: String,
    /// Keys that may differ, as `numerics.cpu.model`, or the part of a key before a dot.
    pub(crate) accept: Vec<String>,
    /// The directory of the job's files, if they were moved.
    pub(crate) base_dir: Option<PathBuf>,
    /// Largest size of the changed files of accepted code, in bytes.
    pub(crate) code_limit: u64,
}

impl Wish {
    /// Checks the run's data on this machine, stores accepted code and lists, and returns the request.
    ///
    /// # Errors
    /// `Refused` if data differs and is not accepted.
    pub(crate) async fn request(self, client: &Client) -> Result<ResumeRequest, Failure> {
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
        self.names_data(&manifest)?;
        let takes_code = self.accept.iter().any(|key| key == "code");
        let code = block_in_place(|| {
            if takes_code {
                return code_now(&dir, &job, self.code_limit).map(Some);
            }
            note_code(&dir, &manifest, &job);
            Ok(None)
        })?;
        let (code, mut blobs) = code.map_or((None, Vec::new()), |(code, blobs)| (Some(code), blobs));
        // Data of a git revision (`data.rev`) comes from the store, not from these files.
        let data = match job.data.revision() {
            Some(_) => Vec::new(),
            None => self.changed(client, &dir, &manifest, &mut blobs).await?,
        };
        for blob in blobs {
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

    /// Rejects `--accept data.PATH` if the run has no data of that path.
    fn names_data(&self, manifest: &Manifest) -> Result<(), Failure> {
        let known: Vec<&str> = manifest.data.iter().map(|file| file.path.trim_end_matches('/')).collect();
        let unknown = |key: &&String| key.strip_prefix("data.").is_some_and(|path| !known.contains(&path));
        let Some(key) = self.accept.iter().find(unknown) else { return Ok(()) };
        let known: Vec<String> = known.iter().map(|path| format!("`data.{path}`")).collect();
        let words = format!("`--accept {key}`: the run has no such data; it has {}", known.join(", "));
        Err(Failure::new(Exit::Usage, words))
    }

    /// The data that has changed since the checkpoint and is accepted. Lists of its directories are added to `blobs`. The run's processes
    /// check files that are not on this machine.
    async fn changed(
        &self,
        client: &Client,
        dir: &Path,
        manifest: &Manifest,
        blobs: &mut Vec<Vec<u8>>,
    ) -> Result<Vec<DataFile>, Failure> {
        let mut changed = Vec::new();
        for was in &manifest.data {
            if !dir.join(&was.path).exists() {
                continue;
            }
            let mut measured = block_in_place(|| in_place(dir, &[&was.path], was.is_directory(), false, false))?;
            let now = measured.data.remove(0);
            if now.digest == was.digest {
                continue;
            }
            let key = format!("data.{}", was.path.trim_end_matches('/'));
            if !self.accept.iter().any(|name| *name == key || name == "data") {
                let mut words = format!(
                    "the data {} has changed since checkpoint {}:",
                    if was.is_directory() { "directory" } else { "file" },
                    Manifest::id(&manifest.encode()).short()
                );
                let (old, new) = match measured.lists.first() {
                    Some(list) => {
                        (client.clone().listed(std::slice::from_ref(was)).await?, listing::decode(&now, list))
                    }
                    None => (vec![was.clone()], Ok(vec![now])),
                };
                let new = new.map_err(|error| Failure::caused(Exit::Local, &error))?;
                words.push_str(&differing(dir, &old, &new));
                return Err(Failure::new(Exit::Refused, words).hint(format!(
                    "restore the old data, or resume with the new data by `--accept {key}`: the new run, and all runs resumed from it, \
                     record that"
                )));
            }
            changed.push(now);
            blobs.append(&mut measured.lists);
        }
        Ok(changed)
    }
}

/// The files that differ, one on each line, with old and new size and digest.
fn differing(dir: &Path, old: &[DataFile], new: &[DataFile]) -> String {
    let map = |files: &[DataFile]| -> BTreeMap<String, String> {
        let text = |file: &DataFile| format!("{} bytes with digest `{}`", file.bytes, file.digest);
        files.iter().map(|file| (file.path.clone(), text(file))).collect()
    };
    let (old, new) = (map(old), map(new));
    let paths: BTreeSet<&String> =
        old.keys().chain(new.keys()).filter(|path| old.get(*path) != new.get(*path)).collect();
    let text = |files: &BTreeMap<String, String>, path: &String| {
        files.get(path).cloned().unwrap_or_else(|| "missing".to_owned())
    };
    let line = |path: &&String| {
        format!("\n    `{}`: {} then, {} now", dir.join(path).display(), text(&old, path), text(&new, path))
    };
    let more = paths.len().saturating_sub(NAMED_FILES);
    let lines: String = paths.iter().take(NAMED_FILES).map(line).collect();
    if more > 0 { format!("{lines}\n    and {more} more") } else { lines }
}

/// The code version of the work tree around `dir`, and the blobs to store for it.
fn code_now(dir: &Path, job: &JobSpec, limit: u64) -> Result<(CodeVersion, Vec<Vec<u8>>), Failure> {
    if job.program.is_none() {
        let words = "`--accept code`: the job has no `[program]`, so it uses no code of a work tree: omit the option";
        return Err(Failure::new(Exit::Usage, words));
    }
    let mut code = describe(dir, true)?.ok_or_else(|| {
        Failure::new(Exit::Usage, format!("`--accept code`: `{}` is not in a git work tree", dir.display()))
            .hint("name the directory of the job file with `--base-dir`")
    })?;
    let blobs = keep(dir, &mut code, limit)?;
    Ok((code, blobs))
}

/// Prints how the work tree around `dir` differs from the run's. The difference changes no bit: the workers' own code trains, or a
/// program that is built from the run's code.
fn note_code(dir: &Path, manifest: &Manifest, job: &JobSpec) {
    if let (Some(code), Ok(Some(tree))) = (&manifest.code, git::describe(dir))
        && (tree.version.commit != code.commit || tree.version.dirty != code.dirty)
    {
        let text = |commit: &str, dirty| format!("{commit}{}", if dirty { " with changes" } else { "" });
        let trains = match job.program {
            Some(_) => "the run's code is built; `--accept code` would build the current work tree",
            None => "the run uses neither, because its job has no `[program]`",
        };
        Output::note(&format!(
            "note: the work tree of `{}` is now at {}, and the run was submitted from {}: {trains}",
            dir.display(),
            text(&tree.version.commit, tree.version.dirty),
            text(&code.commit, code.dirty)
        ));
    }
}
