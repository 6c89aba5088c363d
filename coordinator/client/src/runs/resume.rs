//! `coord resume`: what is checked here, before a coordinator is asked.

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

/// Files that are named; there may be thousands.
const NAMED_FILES: usize = 20;

/// What a person asked for.
#[derive(Debug)]
pub(crate) struct Wish {
    pub(crate) checkpoint: String,
    /// Keys that may differ, as `numerics.cpu.model`, or what stands before a dot in them.
    pub(crate) accept: Vec<String>,
    /// Where the job's files lie now.
    pub(crate) base_dir: Option<PathBuf>,
    /// Bytes of accepted code that are kept at most.
    pub(crate) code_limit: u64,
}

impl Wish {
    /// The request, if what this machine has of the run's data is what it was, or may be otherwise. Code that may be is stored.
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
        // As of another revision it is in the store, whatever lies here.
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

    /// Refuses to accept data that the run has not.
    fn names_data(&self, manifest: &Manifest) -> Result<(), Failure> {
        let known: Vec<&str> = manifest.data.iter().map(|file| file.path.trim_end_matches('/')).collect();
        let unknown = |key: &&String| key.strip_prefix("data.").is_some_and(|path| !known.contains(&path));
        let Some(key) = self.accept.iter().find(unknown) else { return Ok(()) };
        let known: Vec<String> = known.iter().map(|path| format!("`data.{path}`")).collect();
        let words = format!("`--accept {key}`: the run has no such data; it has {}", known.join(", "));
        Err(Failure::new(Exit::Usage, words))
    }

    /// Data that is otherwise now, and was accepted; the lists of its directories join `blobs`. What is not on this machine the
    /// run's processes look at.
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
                    "data {} is not what it was at checkpoint {}",
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
                    "put the old one back; or go on with the new one, which all that comes of it will say: `--accept {key}`"
                )));
            }
            changed.push(now);
            blobs.append(&mut measured.lists);
        }
        Ok(changed)
    }
}

/// Which files differ, one on each line, both as they were and as they are.
fn differing(dir: &Path, old: &[DataFile], new: &[DataFile]) -> String {
    let map = |files: &[DataFile]| -> BTreeMap<String, String> {
        let text = |file: &DataFile| format!("{} bytes with digest `{}`", file.bytes, file.digest);
        files.iter().map(|file| (file.path.clone(), text(file))).collect()
    };
    let (old, new) = (map(old), map(new));
    let paths: BTreeSet<&String> =
        old.keys().chain(new.keys()).filter(|path| old.get(*path) != new.get(*path)).collect();
    let text = |files: &BTreeMap<String, String>, path: &String| {
        files.get(path).cloned().unwrap_or_else(|| "not there".to_owned())
    };
    let line = |path: &&String| {
        format!("\n    `{}`: {} then, {} now", dir.join(path).display(), text(&old, path), text(&new, path))
    };
    let more = paths.len().saturating_sub(NAMED_FILES);
    let lines: String = paths.iter().take(NAMED_FILES).map(line).collect();
    if more > 0 { format!("{lines}\n    and {more} more") } else { lines }
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
