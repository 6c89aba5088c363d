//! Each format is read as it was written, and each kind of damage is an error that names the file and the position.

#![cfg(test)]

mod arrays;
mod idx;
mod support;
mod table;
mod tokens;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use crate::support::open;
use flate2::Compression;
use flate2::write::GzEncoder;
use lockstep_common::preprocessing::{self, Inputs, Preprocessing, Standardised};
use lockstep_data::files::{Reading, locate};
use lockstep_data::{DataSets, Dataset, InputKind, SampleShape, Targets};
use lockstep_host::data::{Listed, hash_files};
use lockstep_store::BlobStore;
use tch::{Device, Kind, Tensor};

const MLP3: &str = r#"{ kind = "mlp", hidden = [4], outputs = 3 }"#;
const REGRESSION: &str = r#"{ kind = "mlp", hidden = [4], outputs = 1 }"#;

fn gpt(context: u32, vocabulary: u32) -> String {
    format!(r#"{{ kind = "gpt", layers = 1, heads = 1, width = 4, context = {context}, vocabulary = {vocabulary} }}"#)
}

fn values(tensor: &Tensor) -> Vec<f64> {
    Vec::try_from(tensor.to_kind(Kind::Double).flatten(0, -1)).unwrap()
}

/// Inputs and targets of the samples at `positions`.
fn read(data: &dyn Dataset, positions: &[u64]) -> (Vec<f64>, Vec<f64>) {
    let batch = data.batch(positions, Device::Cpu).unwrap();
    assert_eq!(batch.inputs.size()[1..], data.shape().input);
    assert_eq!((batch.inputs.size()[0], batch.targets.size()[0]), (positions.len() as i64, positions.len() as i64));
    (values(&batch.inputs), values(&batch.targets))
}

/// Inputs and targets of every sample of a data set.
fn everything(data: &dyn Dataset) -> Vec<(Vec<f64>, Vec<f64>)> {
    (0..data.len()).map(|position| read(data, &[position])).collect()
}

fn refused(model: &str, data: &str, dir: &Path) -> String {
    open(model, data, dir).map(|_: DataSets| ()).unwrap_err().replace(&format!("{}/", dir.display()), "")
}

fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0, 0, 8, sizes.len() as u8];
    for size in sizes {
        file.extend(size.to_be_bytes());
    }
    file.extend(bytes);
    file
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const IDX: &str = r#"{ kind = "idx", images = "i", labels = "l" }"#;

fn npy(descr: &str, order: &str, shape: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = format!("{{'descr': '{descr}', 'fortran_order': {order}, 'shape': {shape}, }}");
    header += &" ".repeat((64 - (11 + header.len()) % 64) % 64);
    header.push('\n');
    let length = (header.len() as u16).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), bytes].concat()
}

fn floats(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

const NPY: &str = r#"{ kind = "npy", inputs = "x.npy", targets = "y.npy" }"#;

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn the_real_digits_are_read() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/data");
    let job = r#"{ kind = "csv", path = "digits.csv", target = "label", validation = 0.2 }"#;
    let sets = open(r#"{ kind = "mlp", hidden = [4], outputs = 10 }"#, job, &dir).unwrap();
    let validation = sets.validation.unwrap();
    assert_eq!((sets.train.len(), validation.len()), (1_438, 359));
    assert_eq!(sets.train.shape().input, [64]);
    let mut counts = [0; 10];
    for (_, label) in everything(sets.train.as_ref()).iter().chain(&everything(validation.as_ref())) {
        counts[label[0] as usize] += 1;
    }
    assert_eq!(counts, [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]);
    let nine = r#"{ kind = "mlp", hidden = [4], outputs = 9 }"#;
    assert!(
        open(nine, job, &dir).map(|_| ()).unwrap_err().contains("label 9 at position 9 is not a class from 0 to 8")
    );
}

#[test]
fn what_is_done_to_pixels_arrays_and_tokens_is_said() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("i"), idx(&[2, 1, 3], &[0, 255, 51, 1, 2, 3])).unwrap();
    fs::write(dir.path().join("l"), idx(&[2], &[2, 0])).unwrap();
    let data = open(MLP3, r#"{ kind = "idx", images = "i", labels = "l" }"#, dir.path()).unwrap().train;
    let said = data.preprocessing().unwrap();
    assert_eq!(said.targets, preprocessing::Targets::Classes { column: None, count: 3 });
    let Inputs::Pixels { shape, divisor, subtracted } = &said.inputs else { panic!("{said:?}") };
    assert_eq!(shape, &[1, 1, 3]);
    let read = read(data.as_ref(), &[0]).0;
    assert_eq!(read, [0.0_f32, 255.0, 51.0].map(|pixel| f64::from(pixel / *divisor as f32 - *subtracted as f32)));

    fs::write(dir.path().join("t"), b"abcdefgh").unwrap();
    let data = open(&gpt(3, 256), r#"{ kind = "tokens", path = "t" }"#, dir.path()).unwrap().train;
    assert_eq!(data.preprocessing().unwrap().summary(), "windows of 3 u8 tokens below 256; targets: the next token");
}

#[test]
fn what_is_read_is_the_file_that_was_verified_whatever_its_path_leads_to_now() {
    let dir = tempfile::tempdir().unwrap();
    let store = BlobStore::open(&dir.path().join("store")).unwrap();
    let (a, b): (Vec<u8>, Vec<u8>) = ((0..40).collect(), (40..80).collect());
    let pixels = |bytes: &[u8]| npy("|u1", "False", "(10, 4)", bytes);
    fs::write(dir.path().join("y"), npy("|u1", "False", "(10,)", &[0, 1, 2, 0, 1, 2, 0, 1, 2, 0])).unwrap();
    let table = |first: u8| format!("x,y\n{first},0\n3,1\n5,2\n");
    let cases = [
        (gpt(3, 256), r#"{ kind = "tokens", path = "x" }"#, a.clone(), b.clone()),
        (MLP3.to_owned(), r#"{ kind = "npy", inputs = "x", targets = "y" }"#, pixels(&a), pixels(&b)),
        (MLP3.to_owned(), r#"{ kind = "csv", path = "x", target = "y" }"#, table(1).into(), table(9).into()),
    ];
    for (model, spec, first, second) in cases {
        let job = support::job(&model, spec, &[]);
        let path = dir.path().join("x");
        fs::write(&path, &first).unwrap();
        let expected = everything(lockstep_data::open_data(&job, &dir.path().into()).unwrap().train.as_ref());
        let listed: Vec<Listed> = job.data_paths().iter().map(|path| Listed::new(dir.path(), path)).collect();
        let files = hash_files(&listed.iter().collect::<Vec<_>>(), None, &|_| ()).unwrap();
        for in_memory in [0, 1 << 20] {
            let reading = Reading { in_memory, by_path: false };
            let located = locate(dir.path(), &files, &store, false, reading).unwrap();
            // Another file with its name, as if the name were a link that was changed.
            fs::write(dir.path().join("other"), &second).unwrap();
            fs::rename(dir.path().join("other"), &path).unwrap();
            let data = lockstep_data::open_data(&job, &located.files).unwrap().train;
            assert_eq!(everything(data.as_ref()), expected, "{spec}");
            fs::write(dir.path().join("other"), &first).unwrap();
            fs::rename(dir.path().join("other"), &path).unwrap();
        }
        // Data in memory does not change with the file.
        let reading = Reading { in_memory: 1 << 20, by_path: false };
        let located = locate(dir.path(), &files, &store, false, reading).unwrap();
        let data = lockstep_data::open_data(&job, &located.files).unwrap().train;
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&second).unwrap();
        assert_eq!(everything(data.as_ref()), expected, "{spec}");
    }
}
