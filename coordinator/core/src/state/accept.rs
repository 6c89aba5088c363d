//! Accepted differences between a resumed run and its checkpoint (`coord resume --accept`): checks and records them.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::manifest::{CodeVersion, DataFile, Override};
use lockstep_common::numerics::{of_earlier_builds, of_gpu_libraries};

use super::runs::bounded;

/// Whether `accepted` contains `key`, or a prefix of `key` that ends before a dot.
pub(crate) fn accepts(accepted: &[String], key: &str) -> bool {
    accepted
        .iter()
        .any(|name| key.strip_prefix(name.as_str()).is_some_and(|rest| rest.is_empty() || rest.starts_with('.')))
}

/// The differences between the numerics `was` of a checkpoint and `now`, sorted by key.
pub(crate) fn numerics(was: &BTreeMap<String, String>, now: &BTreeMap<String, String>) -> Vec<Override> {
    let text = |map, key| value(map, key).unwrap_or("nothing").to_owned();
    let differ = differing(was, now).into_iter();
    differ.map(|key| Override { key: format!("numerics.{key}"), was: text(was, key), now: text(now, key) }).collect()
}

/// The keys whose values differ between two numerics fingerprints, sorted. Keys about GPU libraries are ignored if both are of CPUs.
pub(crate) fn differing<'a>(a: &'a BTreeMap<String, String>, b: &'a BTreeMap<String, String>) -> Vec<&'a str> {
    let on_cpus = [a, b].iter().all(|map| map.get("device").is_some_and(|device| device == "cpu"));
    let keys: BTreeSet<&String> = a.keys().chain(b.keys()).collect();
    let compared = keys.into_iter().filter(|key| !(on_cpus && of_gpu_libraries(key)));
    compared.filter(|key| value(a, key) != value(b, key)).map(String::as_str).collect()
}

/// The value of a key of a numerics fingerprint. If an earlier build did not measure the key yet, the value that it is known to have had.
pub(crate) fn value<'a>(numerics: &'a BTreeMap<String, String>, key: &str) -> Option<&'a str> {
    numerics.get(key).map(String::as_str).or_else(|| of_earlier_builds(key))
}

/// Replaces each file in `all` that has the path of one of `files`; a job may name a path twice. Returns the differences.
///
/// # Errors
/// The first path that is not in `all`.
pub(crate) fn data(all: &mut [DataFile], files: &[DataFile]) -> Result<Vec<Override>, String> {
    let mut changed = Vec::new();
    for file in files {
        let was = all.iter().find(|place| place.path == file.path).ok_or_else(|| file.path.clone())?;
        if was.digest != file.digest {
            let text = |file: &DataFile| format!("{} bytes, {}", file.bytes, file.digest);
            let key = format!("data.{}", file.path.trim_end_matches('/'));
            changed.push(Override { key, was: text(was), now: text(file) });
        }
        all.iter_mut().filter(|place| place.path == file.path).for_each(|place| place.clone_from(file));
    }
    Ok(changed)
}

/// The overrides that are accepted from a process: at most [`DERIVED`] with keys of data, and cut texts.
pub(crate) fn derived(said: &[Override]) -> Vec<Override> {
    let of_data = said.iter().filter(|one| one.key.starts_with("data.")).take(DERIVED);
    let short = |one: &Override| Override { key: bounded(&one.key), was: bounded(&one.was), now: bounded(&one.now) };
    of_data.map(short).collect()
}

/// Maximum number of overrides in one `Derived` report.
const DERIVED: usize = 8;

/// Key in `--accept` for the code that a program is built from.
pub(crate) const CODE: &str = "code";

/// Replaces the code by `new`. Returns the difference, if there is one.
pub(crate) fn code(was: &mut Option<CodeVersion>, new: &CodeVersion) -> Vec<Override> {
    // These decide what is built: the commit, the uncommitted changes, and the directory of the job.
    let text = |code: &CodeVersion| {
        let tree = code.tree.as_ref().map_or_else(|| "nothing".to_owned(), |tree| tree.digest.to_hex());
        format!("commit {}, tree {tree}, directory `{}`", code.commit, code.directory)
    };
    let before = was.as_ref().map_or_else(|| "nothing".to_owned(), text);
    *was = Some(new.clone());
    let one = Override { key: CODE.to_owned(), was: before, now: text(new) };
    if one.was == one.now { Vec::new() } else { vec![one] }
}

/// Adds the overrides in `new` that `known` does not contain yet.
pub(crate) fn remember(known: &mut Vec<Override>, new: Vec<Override>) {
    for one in new {
        if !known.contains(&one) {
            known.push(one);
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::Domain;

    use super::*;

    #[test]
    fn a_key_that_an_earlier_build_did_not_measure_counts_with_its_value() {
        let map = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let earlier = map(&[("threads", "1")]);
        assert_eq!(numerics(&earlier, &map(&[("threads", "1"), ("lockstep.arithmetic", "1")])), []);
        let later = numerics(&earlier, &map(&[("threads", "1"), ("lockstep.arithmetic", "2")]));
        let expected = Override { key: "numerics.lockstep.arithmetic".into(), was: "1".into(), now: "2".into() };
        assert_eq!(later, [expected]);
        assert_eq!(
            numerics(&earlier, &map(&[("threads", "1"), ("other", "1")])).len(),
            1,
            "earlier builds imply no value of this key"
        );
    }

    #[test]
    fn libraries_of_a_gpu_are_compared_only_where_one_computes() {
        let map = |device: &str, nccl: &str| {
            let pairs = [("device", device), ("nccl.runtime", nccl), ("cudnn.used", "on")];
            pairs.into_iter().map(|(key, value)| (key.to_owned(), value.to_owned())).collect::<BTreeMap<_, _>>()
        };
        let mut without = map("cpu", "");
        without.remove("nccl.runtime");
        assert_eq!(numerics(&map("cpu", "2.29.7"), &without), [], "an older build recorded it");
        assert_eq!(numerics(&map("cuda", "2.29.7"), &map("cuda", "2.30.0")).len(), 1);
        without.insert("cudnn.used".to_owned(), "off".to_owned());
        assert_eq!(numerics(&map("cpu", "2.29.7"), &without).len(), 1);
    }

    #[test]
    fn a_name_accepts_itself_and_what_is_below_it() {
        let accepted = ["numerics.cpu".to_owned(), "data".to_owned()];
        for key in ["numerics.cpu", "numerics.cpu.model", "data.x.csv"] {
            assert!(accepts(&accepted, key), "{key}");
        }
        for key in ["numerics", "numerics.cpus", "numerics.device", "database"] {
            assert!(!accepts(&accepted, key), "{key}");
        }
        assert!(!accepts(&[String::new()], "data"));
    }

    #[test]
    fn a_file_that_a_job_names_twice_is_changed_in_both_places() {
        let file = |path: &str, bytes: &[u8]| DataFile {
            path: path.to_owned(),
            bytes: bytes.len() as u64,
            digest: Domain::Blob.digest(bytes),
        };
        let mut all = [file("x", b"old"), file("y", b"y"), file("x", b"old")];
        let changed = data(&mut all, &[file("x", b"new"), file("x", b"new")]).unwrap();
        assert_eq!(changed.iter().map(|one| one.key.as_str()).collect::<Vec<_>>(), ["data.x"]);
        assert_eq!(all, [file("x", b"new"), file("y", b"y"), file("x", b"new")]);
        assert_eq!(data(&mut all, &[file("z", b"")]), Err("z".to_owned()));
    }

    #[test]
    fn only_few_overrides_of_data_are_taken_from_a_process() {
        let one = |key: &str| Override { key: key.to_owned(), was: "a".to_owned(), now: "b".to_owned() };
        assert_eq!(derived(&[one("numerics.cpu"), one("data.positions")]), [one("data.positions")]);
        assert_eq!(derived(&vec![one("data.x"); 99]).len(), DERIVED);
    }
}
