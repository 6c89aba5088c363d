//! The trained weights into a TorchScript file.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, BufWriter, Write as _};
use std::ops::Range;
use std::path::Path;

use super::archive::Archive;
use super::classes::Classes;
use super::error::TorchScriptError;
use super::pickle::{Id, Pickle, Value};
use super::tensor::View;
use super::writer::Writer;

/// The tree of modules.
const DATA: &str = "data.pkl";
/// Tensors that are part of the code.
const CONSTANTS: &str = "constants.pkl";
/// Present where the order of bytes was not taken for granted.
const BYTE_ORDER: &str = "byteorder";
/// More is not the tree of a module: about a hundred bytes describe a tensor.
const PICKLE_BYTES: u64 = 64 << 20;

/// A tensor of a checkpoint: a parameter or a buffer.
#[derive(Clone, Copy, Debug)]
pub struct Weight<'a> {
    /// Its path in the model, as in a `state_dict`.
    pub name: &'a str,
    /// libtorch's name of the element type, such as `float`.
    pub dtype: &'a str,
    /// Its sizes.
    pub shape: &'a [i64],
}

/// Writes the TorchScript file `original` to `to` with the values of `weights`, in evaluation mode and on the CPU. All else stays byte
/// for byte. Nothing of the file is run.
///
/// `read` gives the elements of the tensor of a name, row by row, in little-endian bytes. A tensor that goes by two names may stand in
/// `weights` under one of them. The digest of `original` must have been verified: checksums of the archive are not.
///
/// # Errors
/// What does not fit, by its name; `to` is not usable then.
pub fn replace_weights(
    original: &Path,
    to: &Path,
    weights: &[Weight<'_>],
    read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<(), TorchScriptError> {
    let mut archive = Archive::open(original)?;
    if archive.bytes(BYTE_ORDER).is_some() && archive.read(BYTE_ORDER, 64)? != b"little" {
        return Err(TorchScriptError::malformed(BYTE_ORDER, "its tensors are not little-endian"));
    }
    let constants = archive.read(CONSTANTS, PICKLE_BYTES)?;
    let data = archive.read(DATA, PICKLE_BYTES)?;
    let pickle = Pickle::read(&data).map_err(|what| TorchScriptError::malformed(DATA, what))?;
    let found = visit(&pickle, &mut Classes::new(&mut archive))?;
    let placed = place(&pickle, &archive, weights)?;
    covers(&pickle, &placed, &found)?;

    let mut edits = on_cpu(&pickle, DATA)?;
    edits.extend(found.training.into_iter().map(|at| (at..at + 1, vec![0x89])));
    let code = Pickle::read(&constants).map_err(|what| TorchScriptError::malformed(CONSTANTS, what))?;
    let mut changed = BTreeMap::from([
        (archive.name(DATA), edited(&data, edits)),
        (archive.name(CONSTANTS), edited(&constants, on_cpu(&code, CONSTANTS)?)),
    ]);
    let storages: BTreeMap<String, &String> = placed.keys().map(|key| (archive.name(&storage(key)), key)).collect();

    let unwritten = || TorchScriptError::io("write", to);
    let file = File::create(to).map_err(unwritten())?;
    let mut writer = Writer::new(BufWriter::new(file));
    for entry in archive.entries().to_vec() {
        let bytes = match (storages.get(&entry.name), changed.remove(&entry.name)) {
            (Some(&key), _) => filled(&mut archive, key, &placed[key], read)?,
            (None, Some(bytes)) => bytes,
            (None, None) => {
                let mut packed = archive.packed(&entry).map_err(TorchScriptError::io("read", original))?;
                writer.copy(&entry, &mut packed).map_err(unwritten())?;
                continue;
            }
        };
        writer.store(&entry, &bytes).map_err(unwritten())?;
    }
    writer.finish().and_then(|mut file| file.flush()).map_err(unwritten())
}

/// Weights with their places, by storage.
type Placed<'a> = BTreeMap<String, Vec<(&'a str, View)>>;

/// The file of a storage.
fn storage(key: &str) -> String {
    format!("data/{key}")
}

/// Finds the place of every weight.
fn place<'a>(pickle: &Pickle, archive: &Archive, weights: &[Weight<'a>]) -> Result<Placed<'a>, TorchScriptError> {
    let mut placed = Placed::new();
    for &Weight { name, dtype, shape } in weights {
        let no_place = |what: String| TorchScriptError::NoPlace { name: name.to_owned(), what };
        let id = named(pickle, name).map_err(no_place)?;
        let view = View::of(pickle, id).map_err(no_place)?;
        if view.dtype != dtype || view.shape != shape {
            let (checkpoint, module) = (format!("{dtype} {shape:?}"), view.words());
            return Err(TorchScriptError::Unlike { name: name.to_owned(), checkpoint, module });
        }
        let part = storage(&view.key);
        let bytes = archive.bytes(&part).ok_or_else(|| TorchScriptError::Missing { part: part.clone() })?;
        if !usize::try_from(bytes).is_ok_and(|bytes| view.fits(bytes)) {
            let what = format!("it has {bytes} bytes, and tensor `{name}` does not lie in them");
            return Err(TorchScriptError::malformed(&part, what));
        }
        placed.entry(view.key.clone()).or_default().push((name, view));
    }
    Ok(placed)
}

/// The attribute of the path `name`.
fn named(pickle: &Pickle, name: &str) -> Result<Id, String> {
    let mut id = pickle.root();
    for part in name.split('.') {
        id = pickle.attribute(id, part).ok_or_else(|| format!("there is no attribute `{part}` on its path"))?;
    }
    Ok(id)
}

/// What the modules hold.
#[derive(Debug, Default)]
struct Found {
    /// Flags `training` that are set, by their places in the pickle.
    training: BTreeSet<usize>,
    /// Parameters and buffers, by path.
    tensors: Vec<(String, Id)>,
}

/// Looks at each module once, under the first of its paths.
fn visit(pickle: &Pickle, classes: &mut Classes) -> Result<Found, TorchScriptError> {
    let (mut found, mut seen) = (Found::default(), BTreeSet::new());
    let mut rest = vec![(String::new(), pickle.root())];
    while let Some((path, id)) = rest.pop() {
        let Value::Object { class: global, state } = pickle.value(id) else { continue };
        let Some((module, name)) = pickle.global(*global).filter(|_| seen.insert(id)) else { continue };
        let class = classes.class(module, name)?;
        if !class.is_module {
            continue;
        }
        let class_name = format!("{module}.{name}");
        if class.fills_itself {
            return Err(TorchScriptError::OwnCode { module: path, class: class_name });
        }
        let Some(Value::Dict(pairs)) = state.map(|state| pickle.value(state)) else {
            let what = format!("the module `{path}` of class `{class_name}` has no dictionary of attributes");
            return Err(TorchScriptError::malformed(DATA, what));
        };
        if let Some(Value::Bool { value: true, at }) = pickle.attribute(id, "training").map(|id| pickle.value(id)) {
            found.training.insert(*at);
        }
        let below = |name: &str| if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
        let tensors = class.tensors.iter().filter_map(|name| Some((below(name), pickle.attribute(id, name)?)));
        found.tensors.extend(tensors.filter(|(_, id)| pickle.call(*id).is_some()));
        for (key, value) in pairs.iter().rev() {
            rest.push((below(pickle.text(*key).unwrap_or_default()), *value));
        }
    }
    Ok(found)
}

/// That no parameter and no buffer keeps what it was before training.
fn covers(pickle: &Pickle, placed: &Placed, found: &Found) -> Result<(), TorchScriptError> {
    for (name, id) in &found.tensors {
        let view = View::of(pickle, *id);
        let is_covered = view.is_ok_and(|view| view.bytes() == Some(0) || placed.contains_key(&view.key));
        if !is_covered {
            return Err(TorchScriptError::Uncovered { name: name.clone() });
        }
    }
    Ok(())
}

/// Other bytes for a place.
type Edit = (Range<usize>, Vec<u8>);

/// What has to be changed in a pickle for its tensors to be loaded onto the CPU.
fn on_cpu(pickle: &Pickle, part: &str) -> Result<Vec<Edit>, TorchScriptError> {
    let mut devices: BTreeMap<Id, usize> = BTreeMap::new();
    for storage in pickle.outside() {
        let Some(&[_, _, _, device, _]) = pickle.tuple(storage) else {
            return Err(TorchScriptError::malformed(part, "a storage is not named by its five properties"));
        };
        if pickle.text(device) != Some("cpu") {
            *devices.entry(device).or_default() += 1;
        }
    }
    let edit = |(device, used): (Id, usize)| match pickle.place(device) {
        Some((place, named)) if named == used => Ok((place, b"X\x03\0\0\0cpu".to_vec())),
        _ => {
            let word = pickle.text(device).unwrap_or_default();
            let what =
                format!("`{word}` is a device and an attribute as well: save the module from the CPU (`.cpu()`)");
            Err(TorchScriptError::malformed(part, what))
        }
    };
    devices.into_iter().map(edit).collect()
}

/// `bytes` with all `edits`, which do not overlap.
fn edited(bytes: &[u8], mut edits: Vec<Edit>) -> Vec<u8> {
    edits.sort_unstable_by_key(|(place, _)| place.start);
    let (mut made, mut at) = (Vec::with_capacity(bytes.len()), 0);
    for (place, new) in edits {
        made.extend(&bytes[at..place.start]);
        made.extend(new);
        at = place.end;
    }
    made.extend(&bytes[at..]);
    made
}

/// The storage `key` with the values of its `weights`.
fn filled(
    archive: &mut Archive,
    key: &str,
    weights: &[(&str, View)],
    read: &mut dyn FnMut(&str) -> io::Result<Vec<u8>>,
) -> Result<Vec<u8>, TorchScriptError> {
    let mut bytes = archive.read(&storage(key), u64::MAX)?;
    let mut written: Vec<(&str, &View, Vec<u8>)> = Vec::new();
    for (name, view) in weights {
        let fails = |source| TorchScriptError::Weight { name: (*name).to_owned(), source };
        let values = read(name).map_err(fails)?;
        if view.bytes() != Some(values.len()) {
            let what = format!("it has {} bytes, which is not the size of {}", values.len(), view.words());
            return Err(fails(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        view.put(&values, &mut bytes);
        written.push((name, view, values));
    }
    let torn = written.iter().find(|(_, view, values)| !view.holds(values, &bytes));
    let Some((name, ..)) = torn else { return Ok(bytes) };
    // The last one of the storage always holds, unless it lies on itself.
    let (other, ..) = written.last().expect("one of them is torn");
    Err(TorchScriptError::Conflict { name: (*name).to_owned(), other: (*other).to_owned() })
}
