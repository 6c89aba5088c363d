//! Files that PyTorch has written (`tests/data/make.py`) get other weights.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use super::archive::Archive;
use super::error::TorchScriptError;
use super::pickle::{Pickle, Value};
use super::replace::{Weight, replace_weights};
use super::tensor::View;
use super::writer::Writer;

const ALL: u64 = u64::MAX;

fn module(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data").join(name)
}

/// Name, type, shape and bytes of a tensor.
type Given = (&'static str, &'static str, Vec<i64>, Vec<u8>);

/// What a checkpoint of `net.pt` holds: no byte is as it was.
fn weights() -> Vec<Given> {
    let bytes = |count: u8, from: u8| (from..from + count).collect::<Vec<u8>>();
    vec![
        ("first.weight", "float", vec![2, 3], bytes(24, 100)),
        ("norm.weight", "float", vec![2], bytes(8, 1)),
        ("norm.bias", "float", vec![2], bytes(8, 11)),
        ("norm.running_mean", "float", vec![2], bytes(8, 21)),
        ("norm.running_var", "float", vec![2], bytes(8, 31)),
        ("norm.num_batches_tracked", "int64", vec![], bytes(8, 41)),
        ("table", "double", vec![3, 2], bytes(48, 51)),
        ("small", "bfloat16", vec![3], bytes(6, 61)),
        ("low", "int16", vec![5], bytes(10, 71)),
        // Its first element is the last of `low`.
        ("high", "int16", vec![4], bytes(8, 79)),
    ]
}

fn replace(original: &Path, to: &Path, given: &[Given]) -> Result<(), TorchScriptError> {
    let list: Vec<Weight> = given.iter().map(|(name, dtype, shape, _)| Weight { name, dtype, shape }).collect();
    let mut read = |name: &str| Ok(given.iter().find(|(own, ..)| *own == name).unwrap().3.clone());
    replace_weights(original, to, &list, &mut read)
}

fn refused(original: &Path, given: &[Given]) -> String {
    let dir = tempfile::tempdir().unwrap();
    replace(original, &dir.path().join("made.pt"), given).unwrap_err().to_string()
}

/// `net.pt` with `part` as `change` makes it.
fn altered(to: &Path, part: &str, change: impl Fn(Vec<u8>) -> Vec<u8>, wide: u64) {
    let mut archive = Archive::open(&module("net.pt")).unwrap();
    let mut writer = Writer::with_limit(File::create(to).unwrap(), wide);
    for entry in archive.entries().to_vec() {
        let name = entry.name.split_once('/').unwrap().1.to_owned();
        let bytes = archive.read(&name, ALL).unwrap();
        let bytes = if name == part { change(bytes) } else { bytes };
        writer.store(&entry, &bytes).unwrap();
    }
    writer.finish().unwrap();
}

fn swapped(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let at = bytes.windows(from.len()).position(|part| part == from).unwrap();
    [&bytes[..at], to, &bytes[at + from.len()..]].concat()
}

#[test]
fn weights_are_replaced_and_all_else_stays() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made.pt");
    replace(&module("net.pt"), &made, &weights()).unwrap();
    let (mut before, mut after) = (Archive::open(&module("net.pt")).unwrap(), Archive::open(&made).unwrap());
    let names = |archive: &Archive| archive.entries().iter().map(|entry| entry.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&before), names(&after));

    let data = after.read("data.pkl", ALL).unwrap();
    let pickle = Pickle::read(&data).unwrap();
    let attribute = |path: &str| path.split('.').fold(pickle.root(), |id, part| pickle.attribute(id, part).unwrap());
    // The second name of a weight has its values, too.
    let mut all = weights();
    all.push(("again.weight", all[0].1, all[0].2.clone(), all[0].3.clone()));
    let mut storages = BTreeMap::new();
    for (name, dtype, shape, values) in all {
        let view = View::of(&pickle, attribute(name)).unwrap();
        let storage = after.read(&format!("data/{}", view.key), ALL).unwrap();
        assert!(view.holds(&values, &storage), "{name}");
        assert_eq!((view.dtype, &view.shape), (dtype, &shape), "{name}");
        storages.insert(format!("data/{}", view.key), storage);
    }
    for module in ["", "first.", "again.", "norm."] {
        let training = pickle.value(attribute(&format!("{module}training")));
        assert!(matches!(training, Value::Bool { value: false, .. }), "{module}");
    }
    for entry in before.entries().to_vec() {
        let part = entry.name.split_once('/').unwrap().1;
        if part != "data.pkl" && !storages.contains_key(part) {
            assert_eq!(before.read(part, ALL).unwrap(), after.read(part, ALL).unwrap(), "{part}");
        }
    }
    let flags = before.read("data.pkl", ALL).unwrap();
    let changed = flags.iter().zip(&data).filter(|(before, after)| before != after).count();
    assert_eq!((flags.len(), changed), (data.len(), 4), "nothing but `training` of four modules");
}

#[test]
fn bytes_of_a_file_begin_where_they_can_be_mapped_and_sums_are_right() {
    let dir = tempfile::tempdir().unwrap();
    let made = dir.path().join("made.pt");
    replace(&module("net.pt"), &made, &weights()).unwrap();
    let (bytes, archive) = (fs::read(&made).unwrap(), Archive::open(&made).unwrap());
    for entry in archive.entries() {
        let header = &bytes[entry.offset as usize..];
        let lengths = u16::from_le_bytes([header[26], header[27]]) + u16::from_le_bytes([header[28], header[29]]);
        assert_eq!((entry.offset + 30 + u64::from(lengths)) % 64, 0, "{}", entry.name);
        if entry.method == 0 {
            let at = entry.offset as usize + 30 + usize::from(lengths);
            let mut crc = flate2::Crc::new();
            crc.update(&bytes[at..at + entry.bytes as usize]);
            assert_eq!(crc.sum(), entry.crc, "{}", entry.name);
        }
    }
}

#[test]
fn what_does_not_fit_is_refused_by_name() {
    let net = module("net.pt");
    let with = |name: &'static str, dtype: &'static str, shape: &[i64]| {
        let mut given = weights();
        given.retain(|(own, ..)| *own != name);
        given.push((name, dtype, shape.to_vec(), vec![0; 64]));
        given
    };
    let without = |name: &str| {
        let mut given = weights();
        given.retain(|(own, ..)| *own != name);
        given
    };
    let mut torn = weights();
    torn[9].3[0] ^= 1;
    let cases = [
        (
            with("second.weight", "float", &[2]),
            "the module has no tensor `second.weight` of the checkpoint: there is no attribute `second`",
        ),
        (
            with("first", "float", &[2]),
            "the module has no tensor `first` of the checkpoint: it holds a module or another object",
        ),
        (with("norm.training", "float", &[2]), "it holds no tensor"),
        (
            with("table", "float", &[3, 2]),
            "tensor `table` is float [3, 2] in the checkpoint, but double [3, 2] in the module",
        ),
        (
            with("table", "double", &[2, 3]),
            "tensor `table` is double [2, 3] in the checkpoint, but double [3, 2] in the module",
        ),
        (with("low", "int16", &[5]), "cannot read the checkpoint's tensor `low`"),
        (
            without("norm.running_var"),
            "`norm.running_var` is not in the checkpoint, so the export would contain its value from before",
        ),
        (torn, "tensors `low` and `high` share memory"),
    ];
    for (given, words) in cases {
        let said = refused(&net, &given);
        assert!(said.contains(words), "{said}");
    }
    // What a plain attribute holds is no state of the model.
    assert!(weights().iter().all(|(name, ..)| *name != "kept"));
}

#[test]
fn a_module_that_fills_itself_is_refused_without_running_it() {
    let given = vec![("inner.weight", "float", vec![2], vec![0; 8])];
    let said = refused(&module("packs.pt"), &given);
    assert!(
        said.contains("`inner` runs its own code when it is loaded (`__setstate__` of `__torch__.Packs`)"),
        "{said}"
    );
}

#[test]
fn a_module_that_was_saved_from_a_gpu_is_loaded_onto_the_cpu() {
    let dir = tempfile::tempdir().unwrap();
    let (from, made) = (dir.path().join("cuda.pt"), dir.path().join("made.pt"));
    let cuda = |bytes: Vec<u8>| swapped(&bytes, b"X\x03\0\0\0cpu", b"X\x06\0\0\0cuda:0");
    altered(&from, "data.pkl", cuda, ALL);
    replace(&from, &made, &weights()).unwrap();
    let plain = dir.path().join("plain.pt");
    replace(&module("net.pt"), &plain, &weights()).unwrap();
    let data = |path: &Path| Archive::open(path).unwrap().read("data.pkl", ALL).unwrap();
    assert_eq!(data(&made), data(&plain));
    // Not where an attribute is the same text, and would change with it.
    let named = |bytes: Vec<u8>| {
        let bytes = cuda(bytes);
        let at = bytes.windows(6).position(|part| part == b"cuda:0").unwrap() + 6;
        assert_eq!(bytes[at], b'q');
        swapped(&bytes, b"hookq\x17N", &[b"hookq\x17h", &bytes[at + 1..at + 2]].concat())
    };
    altered(&from, "data.pkl", named, ALL);
    let said = refused(&from, &weights());
    assert!(said.contains("`cuda:0` is a device and an attribute as well: save the module from the CPU"), "{said}");
}

#[test]
fn an_archive_with_numbers_of_64_bits_is_read_as_any_other() {
    let dir = tempfile::tempdir().unwrap();
    let wide = dir.path().join("wide.pt");
    altered(&wide, "", |bytes| bytes, 1);
    assert!(fs::read(&wide).unwrap().windows(4).filter(|part| *part == [1, 0, 16, 0]).count() > 20);
    replace(&wide, &dir.path().join("made.pt"), &weights()).unwrap();
}

#[test]
fn files_that_are_cut_or_changed_are_refused_and_never_a_panic() {
    let dir = tempfile::tempdir().unwrap();
    let (path, to) = (dir.path().join("changed.pt"), dir.path().join("made.pt"));
    let whole = fs::read(module("net.pt")).unwrap();
    for length in (0..whole.len()).step_by(97) {
        fs::write(&path, &whole[..length]).unwrap();
        assert!(replace(&path, &to, &weights()).is_err(), "{length}");
    }
    // Whatever comes of one changed byte of the list or of the pickle, it ends.
    let list = whole.windows(4).position(|part| part == b"PK\x01\x02").unwrap();
    for at in (list..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] = bytes[at].wrapping_add(0x81);
        fs::write(&path, &bytes).unwrap();
        let _ends = replace(&path, &to, &weights());
    }
    let data = Archive::open(&module("net.pt")).unwrap().read("data.pkl", ALL).unwrap();
    for at in (0..data.len()).step_by(5) {
        let change = |mut bytes: Vec<u8>| {
            bytes[at] = bytes[at].wrapping_add(0x81);
            bytes
        };
        altered(&path, "data.pkl", change, ALL);
        let _ends = replace(&path, &to, &weights());
    }
    for (part, words) in
        [("byteorder", "not little-endian"), ("data.pkl", "is not valid"), ("constants.pkl", "is not valid")]
    {
        altered(&path, part, |_| b"big".to_vec(), ALL);
        let said = refused(&path, &weights());
        assert!(said.contains(words), "{said}");
    }
    fs::write(&path, b"a text").unwrap();
    assert!(refused(&path, &weights()).contains("it is no ZIP archive, or its end is cut"));
}

#[test]
fn an_archive_that_libtorch_reads_otherwise_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let (path, whole) = (dir.path().join("changed.pt"), fs::read(module("net.pt")).unwrap());
    // A second file for a storage, for the tree and for code, whose name differs only in case: libtorch takes either.
    let archive = Archive::open(&module("net.pt")).unwrap();
    let names: Vec<String> = archive.entries().iter().map(|entry| entry.name.clone()).collect();
    for name in names.iter().filter(|name| name.contains("data.pkl") || name.contains("/code/")) {
        let mut archive = Archive::open(&module("net.pt")).unwrap();
        let mut writer = Writer::with_limit(File::create(&path).unwrap(), ALL);
        for mut entry in archive.entries().to_vec() {
            let bytes = archive.read(entry.name.split_once('/').unwrap().1, ALL).unwrap();
            writer.store(&entry, &bytes).unwrap();
            if entry.name == *name {
                entry.name = name.to_ascii_uppercase();
                writer.store(&entry, &bytes).unwrap();
            }
        }
        writer.finish().unwrap();
        let said = refused(&path, &weights());
        assert!(said.contains("differs only in upper and lower case"), "{name}: {said}");
    }
    // A comment is none of the module; a second end in it is the one that libtorch takes.
    let end = whole.len() - 22;
    let commented = |comment: &[u8]| [&whole[..end + 20], &(comment.len() as u16).to_le_bytes(), comment].concat();
    fs::write(&path, commented(b"made by hand")).unwrap();
    replace(&path, &dir.path().join("made.pt"), &weights()).unwrap();
    fs::write(&path, commented(&[&whole[end..], b"!"].concat())).unwrap();
    assert!(refused(&path, &weights()).contains("its end is cut, or other bytes follow it"));
    // libtorch reads as many files of the list as the end says.
    let mut fewer = whole.clone();
    for at in [end + 8, end + 10] {
        fewer[at] -= 1;
    }
    if let Some(wide) = whole.windows(4).rposition(|part| part == b"PK\x06\x06") {
        fewer[wide + 32] -= 1;
    }
    fs::write(&path, fewer).unwrap();
    let said = refused(&path, &weights());
    assert!(said.contains("files, and its end says"), "{said}");
}
