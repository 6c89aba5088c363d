//! The client's part of a submit: checks the job, hashes its data, and records its code.

use std::fmt::Write as _;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use lockstep_common::job::parse_toml;
use lockstep_common::manifest::{CodeVersion, MAX_TAG_BYTES, MAX_TAGS, Piece};
use lockstep_common::{Domain, RequestId, quoted};
use lockstep_host::git::{self, GitError};
use lockstep_rpc::SubmitRequest;

use crate::provenance::measure::{Measured, measure};
use crate::runs::unused::{unused, warning};
use crate::terminal::{Exit, Failure, Output};

/// Most changed files that a refusal lists.
const NAMED_FILES: usize = 20;
/// Most untracked files that a note lists.
const NAMED_UNTRACKED: usize = 10;

/// A checked job, with digests of its data and code.
#[derive(Debug)]
pub(crate) struct Prepared {
    /// The absolute directory of the job file.
    pub(crate) base_dir: PathBuf,
    /// The path of the TorchScript module as the job has it, if the job has one.
    pub(crate) module: Option<String>,
    pub(crate) request: SubmitRequest,
    /// Blobs that `request` names: they must be stored before it is sent.
    pub(crate) blobs: Vec<Vec<u8>>,
    pub(crate) measured: Measured,
}

/// Largest job file that is read, in bytes.
const JOB_BYTES: u64 = 1 << 20;

/// Reads a job file. Pipes and devices, which may never end, and files above [`JOB_BYTES`] are errors.
fn read_job(path: &Path) -> Result<String, String> {
    let metadata = fs::metadata(path).map_err(|error| error.to_string())?;
    if !metadata.is_file() {
        return Err("it is not a regular file".to_owned());
    }
    let mut text = String::new();
    let opened = fs::File::open(path).and_then(|file| file.take(JOB_BYTES + 1).read_to_string(&mut text));
    opened.map_err(|error| error.to_string())?;
    if text.len() as u64 > JOB_BYTES {
        return Err(format!("it has more than {JOB_BYTES} bytes"));
    }
    Ok(text)
}

/// Parses the job at `path` with `overrides`, hashes its data, and packs up to `code_limit` bytes of its code. With `rehash` it reads
/// all data, also files that look unchanged. With `keep_data` it rejects links that lead out of the data: their contents would be stored.
/// It blocks: call it on a thread of a runtime that allows that.
pub(crate) fn prepare(
    path: &Path,
    overrides: &[String],
    allow_dirty: bool,
    code_limit: u64,
    rehash: bool,
    keep_data: bool,
) -> Result<Prepared, Failure> {
    let file = path.display().to_string();
    let text =
        read_job(path).map_err(|why| Failure::new(Exit::Usage, format!("cannot read job file `{file}`: {why}")))?;
    let mut overrides = overrides.to_vec();
    if allow_dirty {
        overrides.push("code.allow_dirty=true".to_owned());
    }
    let job = parse_toml(&text, &overrides)
        .map_err(|error| Failure::caused(Exit::Usage, &error).context(&format!("job file `{file}`")))?;
    for key in unused(&job) {
        Output::note(&warning(key));
    }
    let absolute = fs::canonicalize(path)
        .map_err(|error| Failure::new(Exit::Usage, format!("cannot resolve job file `{file}`: {error}")))?;
    let base_dir = absolute.parent().unwrap_or(Path::new("/")).to_owned();
    let base_text = base_dir
        .to_str()
        .ok_or_else(|| Failure::new(Exit::Usage, format!("the path of the directory of `{file}` is not valid UTF-8")))?
        .to_owned();

    let mut code = describe(&base_dir, job.code.allow_dirty)?;
    let mut blobs = match &mut code {
        Some(code) => keep(&base_dir, code, code_limit)?,
        None => Vec::new(),
    };
    if let (Some(program), None) = (&job.program, code.as_ref().and_then(|code| code.tree.as_ref())) {
        let words = format!(
            "workers build `{}` from the run's work tree, but no work tree is stored for `{file}`",
            program.bin
        );
        return Err(Failure::new(Exit::Refused, words).hint("put the job file into the git work tree of its program"));
    }
    let mut measured = measure(&job, &base_dir, rehash, keep_data)
        .map_err(|failure| failure.context(&format!("job file `{file}`")))?;
    let request = SubmitRequest {
        request_id: new_request()?.to_string(),
        job: job.canonical(),
        base_dir: base_text,
        code: code.as_ref().map(Into::into),
        data: measured.data.iter().map(Into::into).collect(),
    };
    blobs.append(&mut measured.lists);
    let module = job.module_path().map(str::to_owned);
    Ok(Prepared { base_dir, module, request, blobs, measured })
}

/// A random request id, by which the coordinator recognises a request that is sent again.
pub(crate) fn new_request() -> Result<RequestId, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::new(Exit::Local, format!("cannot get random bytes from the system: {error}")))?;
    Ok(RequestId::from_bytes(bytes))
}

/// Packs the work tree around `dir`: all differences from its commit, and the commit itself if that has at most `limit` bytes. Returns the
/// blobs to store, and names them in `code`.
pub(crate) fn keep(dir: &Path, code: &mut CodeVersion, limit: u64) -> Result<Vec<Vec<u8>>, Failure> {
    let tree = match git::snapshot(dir, limit) {
        Ok(tree) => tree,
        Err(error) if !code.dirty && !matches!(error, GitError::Unfinished { .. }) => {
            let failure = Failure::caused(Exit::Local, &error);
            let why = failure.message();
            Output::note(&format!("note: only the id of the commit is recorded, the work tree is not stored: {why}"));
            return Ok(Vec::new());
        }
        Err(error @ GitError::TooLarge { .. }) => {
            return Err(Failure::caused(Exit::Refused, &error).hint(
                "name them in `.gitignore` if the run does not need them, commit them, or raise `--code-limit`",
            ));
        }
        Err(error @ (GitError::Io { .. } | GitError::Git { .. })) => return Err(Failure::caused(Exit::Local, &error)),
        Err(error) => return Err(Failure::caused(Exit::Refused, &error)),
    };
    if tree.files > 0 {
        Output::note(&kept_words(&tree, code.dirty));
    }
    let source = git::source(dir, limit).map_err(|error| Failure::caused(Exit::Local, &error))?;
    if source.is_none() {
        let words = "note: the commit is larger than `--code-limit` and is not stored with the run: `coord checkout` will need a clone \
                     that has it";
        Output::note(words);
    }
    let piece = |bytes: &[u8]| Piece { digest: Domain::Blob.digest(bytes), bytes: bytes.len() as u64 };
    (code.tree, code.source) = (Some(piece(&tree.bytes)), source.as_deref().map(piece));
    Ok([tree.bytes].into_iter().chain(source).collect())
}

/// The note about files that are stored with the run. It lists untracked files, because they may contain secrets.
fn kept_words(tree: &git::Snapshot, is_dirty: bool) -> String {
    let (files, verb) = if tree.files == 1 { ("file that differs", "is") } else { ("files that differ", "are") };
    let mut words = format!("note: {} {files} from the commit {verb} stored with the run", tree.files);
    if !is_dirty {
        words.push_str(" byte for byte: git does not see the difference because of a filter or `core.autocrlf`");
    }
    if tree.untracked.is_empty() {
        return words;
    }
    let _ = write!(words, ", including these untracked files:");
    for path in tree.untracked.iter().take(NAMED_UNTRACKED) {
        let _ = write!(words, "\n    {path}");
    }
    if tree.untracked.len() > NAMED_UNTRACKED {
        let _ = write!(words, "\n    and {} more", tree.untracked.len() - NAMED_UNTRACKED);
    }
    words.push_str("\n  name in `.gitignore` all files that must not leave this machine");
    words
}

/// The code version of the work tree around `dir`; `None` outside of git. A dirty work tree is refused unless `allow_dirty`.
pub(crate) fn describe(dir: &Path, allow_dirty: bool) -> Result<Option<CodeVersion>, Failure> {
    let mut tree = match git::describe(dir) {
        Ok(Some(tree)) => tree,
        Ok(None) => {
            Output::note(&format!("note: `{}` is not in a git work tree: no code version is recorded", dir.display()));
            return Ok(None);
        }
        Err(error @ GitError::NoCommit { .. }) => {
            return Err(
                Failure::caused(Exit::Refused, &error).hint("commit first: a run records the commit of its code")
            );
        }
        Err(error) => return Err(Failure::caused(Exit::Local, &error)),
    };
    if tree.version.dirty && !allow_dirty {
        let mut message = format!("the work tree of `{}` has uncommitted changes:", dir.display());
        for path in tree.changed.iter().take(NAMED_FILES) {
            message.push_str("\n    ");
            message.push_str(path);
        }
        if tree.changed.len() > NAMED_FILES {
            let _ = write!(message, "\n    and {} more", tree.changed.len() - NAMED_FILES);
        }
        return Err(Failure::new(Exit::Refused, message)
            .hint("commit them, or pass `--allow-dirty` to store all of them with the run"));
    }
    if let Some(remote) = tree.version.remote.take_if(|remote| !git::PROTOCOLS.contains(&git::protocol(remote))) {
        Output::note(&format!(
            "note: the remote `{}` is not recorded: git needs another program for its protocol `{}`",
            quoted(&remote),
            quoted(git::protocol(&remote))
        ));
    }
    let left_out = tree.version.limit_tags();
    if left_out > 0 {
        Output::note(&format!(
            "note: the commit has {} tags; the run records the first {} by name, at most {MAX_TAGS} and {MAX_TAG_BYTES} bytes",
            tree.version.tags.len() + left_out,
            tree.version.tags.len()
        ));
    }
    Ok(Some(tree.version))
}
