//! Checks and converts submissions and resumes. A run keeps these values for ever, in memory and in the log, so each has a limit.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{self, MAX_TAG_BYTES, MAX_TAGS};
use lockstep_common::{Digest, chain, quoted};
use lockstep_host::git;
use tonic::Status;

use super::convert::{few, invalid, name, text};

/// Maximum number of data files and directories of one job. A directory counts as one.
const MAX_DATA: usize = 10_000;

/// Maximum size of a job, in bytes.
const MAX_JOB_BYTES: usize = 1 << 20;

/// Maximum number of accepted keys of one resume, and of their bytes in total.
const MAX_ACCEPTED: usize = 1_000;
const MAX_ACCEPTED_BYTES: usize = 64 << 10;

/// Checks the code version of a run. The error names the field.
pub(super) fn code(wire: Option<lockstep_rpc::CodeVersion>) -> Result<Option<manifest::CodeVersion>, Status> {
    let Some(wire) = wire else { return Ok(None) };
    let code = manifest::CodeVersion::try_from(wire).map_err(|_| invalid("code", "a digest must have 32 bytes"))?;
    let is_hex = |id: &str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(&code.commit) {
        return Err(invalid(
            "code.commit",
            format!("`{}` is not a commit id: expected 40 hexadecimal characters", quoted(&code.commit)),
        ));
    }
    let below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&code.directory).components().all(below) {
        return Err(invalid("code.directory", format!("`{}` is not in the work tree", quoted(&code.directory))));
    }
    Ok(Some(manifest::CodeVersion {
        commit: code.commit,
        branch: code.branch.map(|branch| name("code.branch", &branch)).transpose()?,
        remote: code.remote.map(remote).transpose()?,
        tags: tags(code.tags)?,
        directory: text("code.directory", code.directory)?,
        ..code
    }))
}

/// Checks the remote of a commit: a path or URL with a protocol that git supports without a helper program.
fn remote(given: String) -> Result<String, Status> {
    let remote = text("code.remote", given)?;
    let protocol = git::protocol(&remote);
    if git::PROTOCOLS.contains(&protocol) {
        return Ok(remote);
    }
    let words = format!(
        "git does not fetch from `{}` by itself (protocol `{}`): expected a path, `host:path`, or a URL of {}",
        quoted(&remote),
        quoted(protocol),
        git::PROTOCOLS.join(", ")
    );
    Err(invalid("code.remote", words))
}

/// Checks that `bytes` are a valid job in canonical form. Returns them as text.
pub(super) fn job(bytes: Vec<u8>) -> Result<String, Status> {
    if bytes.len() > MAX_JOB_BYTES {
        return Err(invalid("job", format!("{} bytes, but the maximum is {MAX_JOB_BYTES}", bytes.len())));
    }
    JobSpec::from_submitted(&bytes).map_err(|error| invalid("job", chain(&error)))?;
    String::from_utf8(bytes).map_err(|error| invalid("job", error))
}

/// Checks that `files` are exactly the data paths of `job`, in the same order. A run must have the digest of each of its data files.
pub(super) fn all_of(job: &str, files: &[manifest::DataFile]) -> Result<(), Status> {
    let job = JobSpec::from_canonical(job.as_bytes()).map_err(|error| invalid("job", chain(&error)))?;
    let asked: Vec<&str> = job.data_paths().iter().map(|path| path.trim_end_matches('/')).collect();
    let given: Vec<&str> = files.iter().map(|file| file.path.trim_end_matches('/')).collect();
    if asked == given {
        return Ok(());
    }
    let list = |paths: &[&str]| paths.iter().map(|path| format!("`{}`", quoted(path))).collect::<Vec<_>>().join(", ");
    let given = if given.is_empty() { "no digests".to_owned() } else { format!("digests of {}", list(&given)) };
    Err(invalid("data", format!("the job reads {}, but the request has {given}", list(&asked))))
}

/// Checks the digests of data files. A path that occurs more than once must have one digest, because a resume compares digests by path.
pub(super) fn data(files: Vec<lockstep_rpc::DataFile>) -> Result<Vec<manifest::DataFile>, Status> {
    let mut digests: BTreeMap<String, Digest> = BTreeMap::new();
    few("data", files, MAX_DATA)?
        .into_iter()
        .map(|file| {
            let path = text("data.path", file.path.clone())?;
            let short = |_| invalid("data", format!("the digest of `{path}` must have 32 bytes"));
            let file: manifest::DataFile = file.try_into().map_err(short)?;
            if digests.insert(path, file.digest).is_some_and(|before| before != file.digest) {
                return Err(invalid("data", format!("`{}` occurs twice, with different digests", quoted(&file.path))));
            }
            Ok(file)
        })
        .collect()
}

/// Checks the accepted keys of a resume: `code`, `numerics[.key]` or `data[.path]`.
pub(super) fn accepted(keys: Vec<String>) -> Result<Vec<String>, Status> {
    let keys = few("accept", keys, MAX_ACCEPTED)?;
    together("accept", &keys, MAX_ACCEPTED_BYTES)?;
    let compared = |key: String| {
        let part = key.split('.').next().unwrap_or_default();
        if part == "numerics" || part == "data" || key == "code" {
            return text("accept", key);
        }
        let words = format!("cannot accept `{}`: expected `code`, `numerics[.key]` or `data[.path]`", quoted(&key));
        Err(invalid("accept", words))
    };
    keys.into_iter().map(compared).collect()
}

/// Checks the directory that a job's relative paths refer to. It must be absolute.
pub(super) fn base_dir(given: String) -> Result<String, Status> {
    let dir = text("base_dir", given)?;
    if dir.starts_with('/') { Ok(dir) } else { Err(invalid("base_dir", format!("`{dir}` is not an absolute path"))) }
}

/// Checks the tags of a commit, and escapes control characters.
fn tags(given: Vec<String>) -> Result<Vec<String>, Status> {
    let given = few("code.tags", given, MAX_TAGS)?;
    let shown: Vec<String> = given.iter().map(|tag| name("code.tags", tag)).collect::<Result<_, _>>()?;
    together("code.tags", &shown, MAX_TAG_BYTES)?;
    Ok(shown)
}

/// Checks that `all` have at most `most` bytes in total.
fn together(field: &str, all: &[String], most: usize) -> Result<(), Status> {
    let bytes: usize = all.iter().map(String::len).sum();
    if bytes <= most {
        Ok(())
    } else {
        Err(invalid(field, format!("{bytes} bytes in total, but the maximum is {most}")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused<T: std::fmt::Debug>(result: Result<T, Status>) -> String {
        result.unwrap_err().message().to_owned()
    }

    #[test]
    fn data_that_is_not_what_the_job_reads_is_refused_with_both() {
        let job = lockstep_common::job::parse_toml(
            r#"
                name = "t"
                steps = 1
                batch = { size = 1 }
                model = { kind = "mlp", hidden = [8], outputs = 10 }
                data = { kind = "npy", inputs = "x.npy", targets = "y.npy" }
                optimizer = { kind = "sgd", lr = 0.1 }
            "#,
            &[],
        )
        .unwrap();
        let job = String::from_utf8(job.canonical()).unwrap();
        let file = |path: &str| manifest::DataFile {
            path: path.to_owned(),
            bytes: 0,
            digest: lockstep_common::Domain::Blob.digest(b""),
        };
        assert!(refused(super::job(b"{}".to_vec())).starts_with("field `job`: not a valid job"));
        all_of(&job, &[file("x.npy"), file("y.npy")]).unwrap();
        let refused = |files: &[manifest::DataFile]| refused(all_of(&job, files));
        assert_eq!(refused(&[]), "field `data`: the job reads `x.npy`, `y.npy`, but the request has no digests");
        assert!(refused(&[file("x.npy")]).ends_with("but the request has digests of `x.npy`"));
        assert!(refused(&[file("y.npy"), file("x.npy")]).ends_with("but the request has digests of `y.npy`, `x.npy`"));
        assert!(refused(&[file("x.npy"), file("y.npy"), file("/etc/passwd")]).contains("`/etc/passwd`"));
    }

    #[test]
    fn code_that_nobody_would_send_is_refused_by_its_field() {
        let sound = lockstep_rpc::CodeVersion { commit: "a".repeat(40), ..Default::default() };
        let refused = |wire| refused(code(Some(wire)));
        assert!(code(Some(sound.clone())).unwrap().is_some());
        for commit in ["", "HEAD", "--upload-pack=x", &"g".repeat(40)] {
            let wire = lockstep_rpc::CodeVersion { commit: commit.to_owned(), ..sound.clone() };
            assert!(refused(wire).starts_with("field `code.commit`"), "{commit}");
        }
        for directory in ["../x", "/etc", "a/../../b"] {
            let wire = lockstep_rpc::CodeVersion { directory: directory.to_owned(), ..sound.clone() };
            assert!(refused(wire).contains("is not in the work tree"), "{directory}");
        }
        let of = |remote: &str| lockstep_rpc::CodeVersion { remote: remote.to_owned(), ..sound.clone() };
        assert_eq!(refused(of("\x1b[2J")), "field `code.remote`: `\\u{1b}[2J` has control characters");
        for remote in ["https://x.org/r", "git@x.org:r", "ssh://x.org/r", "/srv/r", "../r", "file:///r", ""] {
            assert!(code(Some(of(remote))).is_ok(), "{remote}");
        }
        for (remote, protocol) in [("ext::sh -c true", "ext"), ("fd::3", "fd"), ("s3://b/r", "s3"), ("::x", "")] {
            let words =
                format!("field `code.remote`: git does not fetch from `{remote}` by itself (protocol `{protocol}`)");
            assert!(refused(of(remote)).starts_with(&words), "{remote}");
        }
    }

    #[test]
    fn the_tags_of_a_commit_have_limits_each_and_together() {
        assert_eq!(
            refused(tags(vec![String::new(); 1_001])),
            "field `code.tags`: 1001 entries, but the maximum is 1000"
        );
        assert_eq!(refused(tags(vec!["t".repeat(4_097)])), "field `code.tags`: 4097 bytes, but the maximum is 4096");
        assert_eq!(tags(vec!["t".repeat(4_096); 16]).unwrap().len(), 16);
        let words = refused(tags(vec!["t".repeat(4_096); 17]));
        assert_eq!(words, "field `code.tags`: 69632 bytes in total, but the maximum is 65536");
        // An escaped control character is longer than the character.
        assert!(refused(tags(vec!["\x1b".repeat(600); 30])).contains("bytes in total"));
    }

    #[test]
    fn the_keys_that_a_resume_accepts_have_limits_each_and_together() {
        let keys = |keys: &[&str]| accepted(keys.iter().map(|&key| key.to_owned()).collect());
        assert_eq!(keys(&["code", "data.x", "numerics"]).unwrap(), ["code", "data.x", "numerics"]);
        let words = "field `accept`: cannot accept `code.x`: expected `code`, `numerics[.key]` or `data[.path]`";
        assert_eq!(refused(keys(&["code.x"])), words);
        assert!(refused(keys(&[&"x".repeat(1 << 20)])).len() < 500);
        let long = format!("data.{}", "x".repeat(4_092));
        assert_eq!(refused(keys(&[&long])), "field `accept`: 4097 bytes, but the maximum is 4096");
        let key = &long[..4_096];
        assert_eq!(keys(&[key; 16]).unwrap().len(), 16);
        assert_eq!(refused(keys(&[key; 17])), "field `accept`: 69632 bytes in total, but the maximum is 65536");
        assert_eq!(refused(keys(&["data"; 1_001])), "field `accept`: 1001 entries, but the maximum is 1000");
        assert!(refused(keys(&["data.\x1b[2J"])).contains("has control characters"));
    }

    #[test]
    fn a_base_directory_is_absolute_and_no_longer_than_a_path() {
        assert_eq!(base_dir("/x".to_owned()).unwrap(), "/x");
        assert_eq!(refused(base_dir("x".to_owned())), "field `base_dir`: `x` is not an absolute path");
        assert!(refused(base_dir(format!("/{}", "x".repeat(4_096)))).contains("4097 bytes, but the maximum is 4096"));
    }

    #[test]
    fn data_is_counted_and_a_path_has_one_digest() {
        let file =
            |path: &str, byte| lockstep_rpc::DataFile { path: path.to_owned(), bytes: 1, digest: vec![byte; 32] };
        assert!(refused(data(vec![file("x", 0); 10_001])).starts_with("field `data`: 10001 entries, but"));
        assert_eq!(data(vec![file("x", 0), file("y", 1), file("x", 0)]).unwrap().len(), 3);
        let words = refused(data(vec![file("x", 0), file("y", 1), file("x", 2)]));
        assert_eq!(words, "field `data`: `x` occurs twice, with different digests");
    }
}
