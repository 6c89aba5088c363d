//! What DVC wrote down of its outputs: the YAML of `.dvc` files, of `dvc.lock`, and as much of `dvc.yaml` as tells where
//! the outputs of a lock are.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::path::{Path, PathBuf};

use serde::de::{IgnoredAny, MapAccess, Visitor};
use serde::{Deserialize, Deserializer};

use crate::config::normalize;
use crate::error::DvcError;
use crate::hash::{Generation, Md5};

/// An output as DVC recorded it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Output {
    /// Relative to the repository's root, without `.` and `..`.
    pub(crate) path: PathBuf,
    /// As it stands in the file.
    pub(crate) written: String,
    /// `Err` is why it cannot be used: that matters only to who asks for it.
    pub(crate) contents: Result<Contents, Unusable>,
    /// The remote that it is to come from, if it is not the default one.
    pub(crate) remote: Option<String>,
}

/// What an output has in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Contents {
    pub(crate) md5: Md5,
    pub(crate) is_directory: bool,
    pub(crate) is_executable: bool,
    pub(crate) generation: Generation,
    pub(crate) size: Option<u64>,
    pub(crate) num_files: Option<u64>,
}

/// Why an output cannot be fetched here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Unusable {
    NoMd5,
    Unsupported(String),
}

/// The outputs of a `.dvc` file. `dir` is the file's directory, from the repository's root; `file` is for errors.
pub(crate) fn of_dvc_file(text: &str, dir: &Path, file: &Path) -> Result<Vec<Output>, DvcError> {
    let raw: RawDvcFile = parse(text, file)?;
    let dir = dir.join(raw.wdir.unwrap_or_default());
    let cached = raw.outs.unwrap_or_default().into_iter().filter(|out| out.cache != Some(false));
    Ok(cached.map(|out| out.accept(&dir)).collect())
}

/// The outputs of a `dvc.lock` that DVC keeps in its cache. What the lock does not say, each stage's directory and which
/// outputs git keeps, is in the `dvc.yaml` beside it. A stage that is not there any more has no outputs, nor has one
/// whose `wdir` is a template, for that is not resolved here.
pub(crate) fn of_lock(lock: &str, yaml: &str, dir: &Path, file: &Path) -> Result<Vec<Output>, DvcError> {
    let locked: RawLock = parse(lock, file)?;
    let pipeline: RawPipeline = parse(yaml, &file.with_file_name("dvc.yaml"))?;
    let pipeline = pipeline.stages.unwrap_or_default();
    let mut outputs = Vec::new();
    for (name, stage) in locked.stages.unwrap_or_default() {
        // `train@3` is the third of those that `train` stands for.
        let declared = pipeline.get(&name).or_else(|| pipeline.get(name.split('@').next()?));
        let Some(declared) = declared else { continue };
        let declared = declared.repeated.as_deref().unwrap_or(declared);
        let wdir = declared.wdir.as_deref().unwrap_or_default();
        if wdir.contains("${") {
            continue;
        }
        let dir = dir.join(wdir);
        let uncached = declared.uncached();
        let outs = stage.outs.unwrap_or_default().into_iter();
        outputs.extend(outs.filter(|out| !uncached.contains(out.path.as_str())).map(|out| out.accept(&dir)));
    }
    Ok(outputs)
}

fn parse<'a, T: Deserialize<'a>>(text: &'a str, file: &Path) -> Result<T, DvcError> {
    serde_saphyr::from_str(text)
        .map_err(|source| DvcError::BadRecord { path: file.to_owned(), source: Box::new(source) })
}

#[derive(Deserialize)]
struct RawDvcFile {
    wdir: Option<String>,
    outs: Option<Vec<RawOut>>,
}

#[derive(Deserialize)]
struct RawLock {
    stages: Option<BTreeMap<String, RawLockedStage>>,
}

#[derive(Deserialize)]
struct RawLockedStage {
    outs: Option<Vec<RawOut>>,
}

#[derive(Deserialize)]
struct RawOut {
    path: String,
    md5: Option<String>,
    hash: Option<String>,
    size: Option<u64>,
    nfiles: Option<u64>,
    #[serde(default)]
    isexec: bool,
    cache: Option<bool>,
    remote: Option<String>,
    files: Option<IgnoredAny>,
}

impl RawOut {
    fn accept(self, dir: &Path) -> Output {
        let contents = self.contents();
        Output { path: normalize(&dir.join(&self.path)), written: self.path, contents, remote: self.remote }
    }

    fn contents(&self) -> Result<Contents, Unusable> {
        let generation = match self.hash.as_deref() {
            None => Generation::Two,
            Some("md5") => Generation::Three,
            Some(other) => return Err(Unusable::Unsupported(format!("the hash `{other}`"))),
        };
        if self.files.is_some() {
            return Err(Unusable::Unsupported("the versions of a cloud (`files`)".to_owned()));
        }
        let text = self.md5.as_deref().unwrap_or_default();
        let (digits, is_directory) = text.strip_suffix(".dir").map_or((text, false), |digits| (digits, true));
        let md5 = Md5::from_hex(digits).ok_or(Unusable::NoMd5)?;
        let (is_executable, size, num_files) = (self.isexec, self.size, self.nfiles);
        Ok(Contents { md5, is_directory, is_executable, generation, size, num_files })
    }
}

#[derive(Deserialize)]
struct RawPipeline {
    stages: Option<BTreeMap<String, RawStage>>,
}

#[derive(Deserialize)]
struct RawStage {
    wdir: Option<String>,
    outs: Option<Vec<Declared>>,
    metrics: Option<Vec<Declared>>,
    plots: Option<Vec<Declared>>,
    /// The stage itself, where it stands for several.
    #[serde(rename = "do")]
    repeated: Option<Box<RawStage>>,
}

impl RawStage {
    /// The outputs that git keeps and not DVC.
    fn uncached(&self) -> BTreeSet<&str> {
        let all = [&self.outs, &self.metrics, &self.plots].into_iter().flatten().flatten();
        all.flat_map(|declared| &declared.uncached).map(String::as_str).collect()
    }
}

/// An output in a `dvc.yaml`: a path, or a map of paths to what is said of them.
#[derive(Default)]
struct Declared {
    uncached: Vec<String>,
}

#[derive(Default, Deserialize)]
struct Flags {
    cache: Option<bool>,
}

impl<'de> Deserialize<'de> for Declared {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrMap;
        impl<'de> Visitor<'de> for PathOrMap {
            type Value = Declared;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a path with its flags")
            }

            fn visit_str<E>(self, _: &str) -> Result<Declared, E> {
                Ok(Declared::default())
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Declared, A::Error> {
                let mut declared = Declared::default();
                while let Some((path, flags)) = map.next_entry::<String, Option<Flags>>()? {
                    if flags.unwrap_or_default().cache == Some(false) {
                        declared.uncached.push(path);
                    }
                }
                Ok(declared)
            }
        }
        deserializer.deserialize_any(PathOrMap)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(text: &str) -> Output {
        let mut outputs = of_dvc_file(text, Path::new("data"), Path::new("data/x.dvc")).unwrap();
        assert_eq!(outputs.len(), 1, "{outputs:?}");
        outputs.remove(0)
    }

    #[test]
    fn a_dvc_file_of_either_generation() {
        let three =
            one("outs:\n- md5: 0c7c38bf95425bd6b65bc9f00455ca99.dir\n  size: 4\n  nfiles: 2\n  hash: md5\n  path: d\n");
        let contents = three.contents.unwrap();
        assert_eq!((three.path.as_path(), contents.is_directory), (Path::new("data/d"), true));
        assert_eq!((contents.size, contents.num_files, contents.generation), (Some(4), Some(2), Generation::Three));
        let two = one(
            "md5: abc\nwdir: ../w\nouts:\n- md5: 00000000000000000000000000000012\n  path: ./x\n  isexec: true\ndesc: y\n",
        );
        let contents = two.contents.unwrap();
        assert_eq!((two.path.as_path(), contents.generation), (Path::new("w/x"), Generation::Two));
        assert_eq!(contents.md5.to_string(), "00000000000000000000000000000012", "digits stay a text");
        assert!(contents.is_executable);
        let exponent = one("outs:\n- md5: 00000000000000000000000000001e12\n  path: 007\n").contents.unwrap();
        assert_eq!(exponent.md5.to_string(), "00000000000000000000000000001e12");
    }

    #[test]
    fn what_cannot_be_used_says_why_and_what_git_keeps_is_no_output() {
        assert_eq!(one("outs:\n- path: x\n  hash: md5\n").contents, Err(Unusable::NoMd5));
        let blake = one("outs:\n- path: x\n  hash: blake3\n  blake3: a\n").contents.unwrap_err();
        assert!(matches!(blake, Unusable::Unsupported(what) if what.contains("blake3")));
        let files = one("outs:\n- path: x\n  hash: md5\n  files:\n  - relpath: a\n    md5: b\n").contents;
        assert!(matches!(files, Err(Unusable::Unsupported(_))));
        assert!(of_dvc_file("outs:\n- path: x\n  cache: false\n", Path::new(""), Path::new("x")).unwrap().is_empty());
        assert!(of_dvc_file("deps:\n- path: x\n", Path::new(""), Path::new("x")).unwrap().is_empty());
        let error = of_dvc_file("outs: [", Path::new(""), Path::new("a/x.dvc")).unwrap_err();
        assert_eq!(error.to_string(), "`a/x.dvc` is not a valid DVC file");
    }

    #[test]
    fn a_lock_is_read_with_its_pipeline() {
        let yaml = "stages:\n  prepare:\n    cmd: x\n    wdir: work\n    outs:\n    - a\n    - b:\n        cache: false\n    - c:\n        persist: true\n    metrics:\n    - m.json:\n        cache: false\n  train:\n    foreach: [1, 2]\n    do:\n      cmd: y\n      wdir: t\n      outs: ['${item}']\n  odd:\n    matrix: {k: [1]}\n    cmd: z\n    wdir: ${item.k}\n";
        let lock = "schema: '2.0'\nstages:\n  prepare:\n    cmd: x\n    params: {p.yaml: {a: [1, {b: c}]}}\n    outs:\n    - {path: a, md5: &h b026324c6904b2a9cb4b88d6d61c81d1, hash: md5, size: 2}\n    - {path: b, md5: *h, hash: md5}\n    - {path: c, md5: *h, hash: md5}\n    - {path: m.json, md5: *h, hash: md5}\n  train@1:\n    cmd: y\n    outs: [{path: '1', md5: *h}]\n  odd@1:\n    cmd: z\n    outs: [{path: '1', md5: *h}]\n  gone:\n    cmd: z\n    outs: [{path: '1', md5: *h}]\n";
        let outputs = of_lock(lock, yaml, Path::new("p"), Path::new("p/dvc.lock")).unwrap();
        let paths: Vec<_> = outputs.iter().map(|output| output.path.to_str().unwrap()).collect();
        assert_eq!(paths, ["p/work/a", "p/work/c", "p/t/1"]);
        for nothing in ["", "# only this\n", "stages:\n", "vars: [a: 1]\n"] {
            assert_eq!(of_lock(lock, nothing, Path::new(""), Path::new("dvc.lock")).unwrap(), [], "{nothing}");
            assert_eq!(of_lock(nothing, yaml, Path::new(""), Path::new("dvc.lock")).unwrap(), [], "{nothing}");
        }
        assert_eq!(of_dvc_file("", Path::new(""), Path::new("x.dvc")).unwrap(), []);
    }
}
