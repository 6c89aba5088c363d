//! Each format is read as it was written, and each way to be broken is an error that names the file and the place.
#![expect(clippy::unwrap_used, reason = "a helper that cannot go on fails its test")]

mod support;

use std::fmt::Write as _;
use std::fs;
use std::io::Write as _;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use lockstep_common::preprocessing::{self, Inputs, Preprocessing, Standardised};
use lockstep_host::blobs::BlobStore;
use lockstep_host::data::{Listed, Reading, hash_files, locate};
use lockstep_models::{DataSets, Dataset, InputKind, SampleShape, Targets};
use support::open;
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

/// Every sample, to see which ones a data set has.
fn everything(data: &dyn Dataset) -> Vec<(Vec<f64>, Vec<f64>)> {
    (0..data.len()).map(|position| read(data, &[position])).collect()
}

fn refused(model: &str, data: &str, dir: &Path) -> String {
    open(model, data, dir).map(|_: DataSets| ()).unwrap_err().replace(&format!("{}/", dir.display()), "")
}

#[test]
fn tokens_come_in_windows_with_their_successors() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..23).collect();
    fs::write(dir.path().join("t.bin"), &bytes).unwrap();
    let sets = open(&gpt(3, 23), r#"{ kind = "tokens", path = "t.bin", validation = 0.4 }"#, dir.path()).unwrap();
    let (train, validation) = (sets.train, sets.validation.unwrap());
    // Five windows of four tokens; the last three tokens fill none.
    assert_eq!((train.len(), validation.len()), (3, 2));
    assert_eq!(read(train.as_ref(), &[2, 0]).0, [8.0, 9.0, 10.0, 0.0, 1.0, 2.0]);
    assert_eq!(read(train.as_ref(), &[2, 0]).1, [9.0, 10.0, 11.0, 1.0, 2.0, 3.0]);
    assert_eq!(read(validation.as_ref(), &[1]).1, [17.0, 18.0, 19.0]);
    let batch = train.batch(&[0, 1], Device::Cpu).unwrap();
    assert_eq!((batch.inputs.kind(), batch.targets.kind()), (Kind::Int64, Kind::Int64));
    assert_eq!(train.batch(&[0, 3], Device::Cpu).unwrap_err().to_string(), "position 3 was asked of 3 samples");

    let wide: Vec<u8> = [0_u16, 40_000, 65_535, 7].iter().flat_map(|token| token.to_le_bytes()).collect();
    fs::write(dir.path().join("w.bin"), &wide).unwrap();
    let sets = open(&gpt(3, 65_536), r#"{ kind = "tokens", path = "w.bin", dtype = "u16" }"#, dir.path()).unwrap();
    assert_eq!(read(sets.train.as_ref(), &[0]), (vec![0.0, 40_000.0, 65_535.0], vec![40_000.0, 65_535.0, 7.0]));
    assert!(sets.validation.is_none());
}

#[test]
fn bad_token_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "tokens", path = "t.bin" }"#;
    let wide = r#"{ kind = "tokens", path = "t.bin", dtype = "u16" }"#;
    let path = dir.path().join("t.bin");
    assert_eq!(refused(&gpt(3, 256), job, dir.path()), "data file `t.bin` does not exist");
    fs::write(&path, b"").unwrap();
    assert_eq!(refused(&gpt(3, 256), job, dir.path()), "data file `t.bin` holds no samples");
    fs::write(&path, b"abc").unwrap();
    assert!(refused(&gpt(3, 256), job, dir.path()).ends_with("3 tokens do not fill one window of 4"));
    assert!(refused(&gpt(3, 256), wide, dir.path()).ends_with("3 bytes are not a whole number of them"));
    fs::write(&path, [0, 1, 2, 3, 4, 9, 9]).unwrap();
    assert_eq!(
        refused(&gpt(3, 9), job, dir.path()),
        "data file `t.bin`: token 9 at position 5 is not below `model.vocabulary` = 9"
    );
    fs::write(&path, [0, 0, 1, 0, 44, 1, 0, 0]).unwrap();
    assert!(refused(&gpt(3, 256), wide, dir.path()).contains("token 300 at position 2 is"));
    fs::remove_file(&path).unwrap();
    fs::create_dir(&path).unwrap();
    assert!(refused(&gpt(3, 256), job, dir.path()).contains("it is a directory or a device"));
}

#[test]
fn files_that_only_look_like_tokens_are_refused_unless_the_job_takes_them_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let job = |more: &str| format!(r#"{{ kind = "tokens", path = "t.bin"{more} }}"#);
    let with = |bytes: &[u8], more: &str| {
        fs::write(dir.path().join("t.bin"), bytes).unwrap();
        let vocabulary = if more.contains("u16") { 65_536 } else { 256 };
        refused(&gpt(3, vocabulary), &job(more), dir.path())
    };
    let numbers: Vec<u8> = (0..800_u32).map(|index| (index * 7919 % 251) as u8).collect();
    let array = npy("<u2", "False", "(400,)", &numbers);
    assert_eq!(
        with(&array, ", dtype = \"u16\""),
        "data file `t.bin` looks like an npy array, not like a flat file of 16-bit tokens; if it does hold flat 16-bit tokens, set \
         `data.accept_as_is = true`"
    );
    assert!(
        with(&gzip(&numbers), "").contains("looks like a file packed by gzip, not like a flat file of 8-bit tokens")
    );
    let text = "In the beginning God created the heaven and the earth.\n".repeat(8);
    let said = with(text.as_bytes(), ", dtype = \"u16\"");
    assert!(said.contains("looks like text: tokens of one byte, `data.dtype = \"u8\"`"), "{said}");
    let wide: Vec<u8> = (0..400_u32).flat_map(|index| (index * 7919 % 1000).to_le_bytes()[..2].to_vec()).collect();
    assert!(with(&wide, "").contains("looks like 16-bit integers, `data.dtype = \"u16\"`"));

    fs::write(dir.path().join("t.bin"), &array).unwrap();
    let taken = open(&gpt(3, 65_536), &job(", dtype = \"u16\", accept_as_is = true"), dir.path()).unwrap();
    assert_eq!(taken.train.len(), array.len() as u64 / 8);
    // Values beyond the vocabulary are refused all the same.
    let said = refused(&gpt(3, 9), &job(", accept_as_is = true"), dir.path());
    assert!(said.contains("token 147 at position 0 is not below `model.vocabulary` = 9"), "{said}");
    let spec = |more: &str| support::job(&gpt(3, 256), &job(more), &[]);
    assert_eq!(spec("").digest(), spec(", accept_as_is = false").digest(), "where it is not used, no job changes");
    assert_ne!(spec("").digest(), spec(", accept_as_is = true").digest());
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

#[test]
fn idx_images_are_read_plain_and_gzipped() {
    let dir = tempfile::tempdir().unwrap();
    let images = idx(&[3, 1, 2], &[0, 255, 51, 102, 153, 204]);
    fs::write(dir.path().join("i"), gzip(&images)).unwrap();
    fs::write(dir.path().join("l"), idx(&[3], &[2, 0, 1])).unwrap();
    fs::write(dir.path().join("vi"), &images).unwrap();
    fs::write(dir.path().join("vl"), gzip(&idx(&[3], &[0, 0, 0]))).unwrap();
    let job = r#"{ kind = "idx", images = "i", labels = "l", validation_images = "vi", validation_labels = "vl" }"#;
    let sets = open(MLP3, job, dir.path()).unwrap();
    let expected = SampleShape { input: vec![1, 1, 2], kind: InputKind::Image, targets: Targets::Classes { count: 3 } };
    assert_eq!((sets.train.shape(), sets.train.len()), (&expected, 3));
    let (pixels, labels) = read(sets.train.as_ref(), &[2, 0]);
    assert_eq!(labels, [1.0, 2.0]);
    for (pixel, expected) in pixels.iter().zip([0.2, 0.6, -1.0, 1.0]) {
        assert!((pixel - expected).abs() < 1e-6, "{pixels:?}");
    }
    let validation = sets.validation.unwrap();
    assert_eq!(everything(validation.as_ref())[0].0, [-1.0, 1.0]);
    assert_eq!(validation.shape().targets, Targets::Classes { count: 1 });
    // Colour images carry their channels.
    fs::write(dir.path().join("i"), idx(&[3, 3, 1, 2], &[7; 18])).unwrap();
    assert_eq!(open(MLP3, IDX, dir.path()).unwrap().train.shape().input, [3, 1, 2]);
}

#[test]
fn bad_idx_files_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let good = idx(&[3, 1, 2], &[0; 6]);
    let labels = idx(&[3], &[2, 0, 1]);
    let with = |images: &[u8], labels: &[u8]| {
        fs::write(dir.path().join("i"), images).unwrap();
        fs::write(dir.path().join("l"), labels).unwrap();
        refused(MLP3, IDX, dir.path())
    };
    assert_eq!(with(&good[..21], &labels), "data file `i` has 21 bytes where its header asks for 22");
    assert_eq!(with(&[&good[..], b"x"].concat(), &labels), "data file `i` has 23 bytes where its header asks for 22");
    assert_eq!(with(&gzip(&good[..21]), &labels), "data file `i` has 21 bytes where its header asks for 22");
    assert!(with(&good[..9], &labels).ends_with("it ends within its header"));
    assert!(with(b"PNG, really", &labels).contains("it starts with the bytes [50, 4e, 47, 2c]"));
    let packed = gzip(&good);
    assert!(with(&packed[..packed.len() - 9], &labels).contains("it ends"), "{}", with(&packed[..20], &labels));
    let mut floats = good.clone();
    floats[2] = 0x0d;
    assert!(with(&floats, &labels).contains("its element type is 0x0d"));
    assert!(with(&labels, &labels).ends_with("its sizes are [3]"));
    assert!(with(&idx(&[u32::MAX; 4], &[0]), &labels).contains("its sizes are"));
    assert_eq!(with(&idx(&[3, 0, 2], &[]), &labels), "data file `i` holds no samples");
    assert_eq!(with(&good, &idx(&[2], &[1, 1])), "`i` holds 3 inputs and `l` holds 2 targets");
    assert_eq!(
        with(&good, &idx(&[3], &[2, 3, 1])),
        "data file `l`: label 3 at position 1 is not from 0 to below `model.outputs` = 3"
    );
    fs::write(dir.path().join("l"), &labels).unwrap();
    fs::write(dir.path().join("v"), idx(&[3, 2, 2], &[0; 12])).unwrap();
    let job = r#"{ kind = "idx", images = "i", labels = "l", validation_images = "v", validation_labels = "l" }"#;
    assert_eq!(refused(MLP3, job, dir.path()), "`i` has samples of [1, 1, 2] and `v` of [1, 2, 2]");
}

#[test]
fn csv_tables_are_standardised_by_their_training_rows() {
    let dir = tempfile::tempdir().unwrap();
    let mut text = String::from("a,label, b ,constant\n");
    for row in 0..40 {
        writeln!(text, "{row}, {} ,{},5", row % 3, 1e3 - f64::from(row) / 4.0).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "label", validation = 0.25 }"#;
    let sets = open(MLP3, job, dir.path()).unwrap();
    let validation = sets.validation.unwrap();
    assert_eq!((sets.train.len(), validation.len()), (30, 10));
    let expected = SampleShape { input: vec![3], kind: InputKind::Float, targets: Targets::Classes { count: 3 } };
    assert_eq!(sets.train.shape(), &expected);
    let rows = everything(sets.train.as_ref());
    for column in 0..2 {
        let mean = rows.iter().map(|(inputs, _)| inputs[column]).sum::<f64>() / 30.0;
        let square = rows.iter().map(|(inputs, _)| inputs[column].powi(2)).sum::<f64>() / 30.0;
        assert!(mean.abs() < 1e-6 && (square - 1.0).abs() < 1e-5, "{column}: {mean} {square}");
    }
    // The third column says nothing, the second falls as the first rises, and labels stay with their rows.
    let all: Vec<_> = rows.into_iter().chain(everything(validation.as_ref())).collect();
    assert!(all.iter().all(|(inputs, _)| inputs[2] == 0.0 && (inputs[0] + inputs[1]).abs() < 1e-5));
    let mut sorted = all;
    sorted.sort_by(|(a, _), (b, _)| a[0].total_cmp(&b[0]));
    assert!(sorted.iter().enumerate().all(|(row, (_, label))| label[0] == (row % 3) as f64));

    let job = r#"{ kind = "csv", path = "t.csv", target = "a", task = "regression" }"#;
    let sets = open(REGRESSION, job, dir.path()).unwrap();
    assert_eq!(sets.train.shape().targets, Targets::Values { count: 1 });
    let targets = read(sets.train.as_ref(), &(0..40).collect::<Vec<_>>()).1;
    assert!(targets.windows(2).all(|pair| pair[0] < pair[1]) && targets.iter().sum::<f64>().abs() < 1e-5);
    assert_eq!(sets.train.batch(&[3], Device::Cpu).unwrap().targets.size(), [1, 1]);
}

#[test]
fn bad_csv_tables_are_refused_with_line_and_column() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y" }"#;
    let with = |text: &[u8]| {
        fs::write(dir.path().join("t.csv"), text).unwrap();
        refused(MLP3, job, dir.path())
    };
    assert_eq!(
        with(b"x,y\n1,2\n\n2.5,1\nabc,1\n"),
        "data file `t.csv`, line 5, column `x`: `abc` is not a finite number"
    );
    assert!(with(b"x,y\n1,2\n,1\n").contains("line 3, column `x`: the cell is empty: it needs a finite number"));
    assert!(with(b"x,y\nnan,2\n").contains("`nan` is not a finite number"));
    assert!(with(b"x,y\n1e999,2\n").contains("`1e999` is not a finite number"));
    assert!(with(b"x,y\n\xff\xfe,2\n").contains("line 2, column `x`"));
    assert!(with(b"x,y\n1,1.5\n").contains("line 2, column `y`: `1.5` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,-1\n").contains("`-1` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,blue\n").contains("column `y`: `blue` is not a class (a whole number from 0)"));
    assert!(with(b"x,y\n1,\n").contains("column `y`: the cell is empty: it needs a class (a whole number from 0)"));
    assert!(with(b"x,y\n,1\n").contains("column `x`: the cell is empty: it needs a finite number"));
    assert_eq!(with(b"x,y\n1,2\n1\n"), "data file `t.csv`, line 3: 1 cells where the header has 2");
    assert_eq!(with(b"x,y\n1,2,3\n"), "data file `t.csv`, line 2: 3 cells where the header has 2");
    assert_eq!(with(b"x,z\n1,2\n"), "data file `t.csv` has no column `y`; it has `x`, `z`");
    assert_eq!(with(b"x,y\n"), "data file `t.csv` holds no samples");
    assert_eq!(with(b""), "data file `t.csv` holds no samples");
    assert!(with(b"y\n1\n").ends_with("the target is its only column"));
    assert!(with(b"x,y\n1,0\n1,3\n").contains("label 3 at position 1 is not from 0 to below `model.outputs` = 3"));
    let few = r#"{ kind = "csv", path = "t.csv", target = "y", validation = 0.1 }"#;
    fs::write(dir.path().join("t.csv"), "x,y\n1,2\n").unwrap();
    assert!(
        refused(MLP3, few, dir.path()).ends_with("has 1 samples: `data.validation` = 0.1 leaves none for validation")
    );
}

#[test]
fn a_column_that_is_constant_up_to_rounding_is_not_divided_by_rounding() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "label", validation = 0.2 }"#;
    let mut text = String::from("price,x,label\n");
    for row in 0..50 {
        writeln!(text, "{},{row},{}", if row == 7 { 0.2 } else { 0.1 }, row % 2).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    // Row 7 is one of the validation rows of this seed, so that all training prices are 0.1.
    let sets = support::open_seeded(MLP3, job, dir.path(), 2).unwrap();
    let train = everything(sets.train.as_ref());
    assert!(train.iter().all(|(inputs, _)| inputs[0] == 0.0), "{:?}", train[0]);
    let mut prices: Vec<f64> = everything(sets.validation.unwrap().as_ref()).iter().map(|(row, _)| row[0]).collect();
    prices.sort_by(f64::total_cmp);
    assert_eq!((prices[8], prices[9]), (0.0, f64::from(0.1_f32)), "the odd price is as far away as it is");
}

#[test]
fn numbers_that_cannot_be_standardised_are_refused_by_line_column_and_value() {
    let dir = tempfile::tempdir().unwrap();
    let with = |text: &str, target: &str| {
        fs::write(dir.path().join("t.csv"), text).unwrap();
        let job = format!(r#"{{ kind = "csv", path = "t.csv", target = "{target}", task = "regression" }}"#);
        refused(REGRESSION, &job, dir.path())
    };
    assert_eq!(
        with("x,y\n1,2\n\n-1e308,3\n-1e308,4\n2,1\n", "y"),
        "data file `t.csv`, line 4, column `x`: -1e308 cannot be standardised: the sum of the column's training values \
         is not a finite 64-bit number; scale the column, or leave it out"
    );
    assert!(
        with("x,y\n1,2\n1e200,3\n", "y").contains("line 3, column `x`: 1e200 cannot be standardised: the variance")
    );
    assert!(
        with("x,y\n1,2\n1e200,3\n", "x").contains("line 3, column `x`: 1e200 cannot be standardised: the variance")
    );
    assert!(
        with("x,y\n0,2\n1e-200,3\n", "y").contains("line 3, column `x`: 1e-200 cannot be standardised: the squares")
    );
    // Finite moments, but a row that is not trained on lies 1e150 deviations away.
    let mut text = String::from("x,y\n");
    for row in 0..50 {
        writeln!(text, "{},{row}", if row == 7 { 1e150 } else { 0.1 }).unwrap();
    }
    fs::write(dir.path().join("t.csv"), text).unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y", task = "regression", validation = 0.2 }"#;
    let said = support::open_seeded(REGRESSION, job, dir.path(), 2).map(|_| ()).unwrap_err();
    assert!(said.contains("line 9, column `x`: 1e150 cannot be standardised: what is left is not a finite"), "{said}");
}

#[test]
fn a_name_that_stands_twice_in_the_header_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let job = r#"{ kind = "csv", path = "t.csv", target = "y" }"#;
    for (header, name) in [("x,y,y", "y"), ("x,x,y", "x"), ("y,z, y ", "y"), ("\"a b\",y,a b", "a b")] {
        fs::write(dir.path().join("t.csv"), format!("{header}\n1,2,2\n")).unwrap();
        assert_eq!(
            refused(MLP3, job, dir.path()),
            format!("data file `t.csv` has two columns `{name}`: rename one, or remove it")
        );
    }
    fs::write(dir.path().join("t.csv"), "y,Y,x\n1,2,2\n").unwrap();
    assert!(open(MLP3, job, dir.path()).is_ok());
}

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

#[test]
fn npy_arrays_are_read_as_numpy_wrote_them() {
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("write.py");
    fs::write(
        &script,
        "import numpy, sys\n\
         numpy.save('x.npy', numpy.arange(24, dtype='f4').reshape(4, 3, 2) / 8)\n\
         numpy.save('pixels.npy', numpy.arange(0, 240, 10, dtype='u1').reshape(4, 2, 3))\n\
         numpy.save('y.npy', numpy.array([2, 0, 1, 2]))\n\
         numpy.save('y4.npy', numpy.array([[2], [0], [1], [2]], dtype='i4'))\n\
         numpy.save('v.npy', numpy.array([.5, -1, 2, 3], dtype='f4'))\n",
    )
    .unwrap();
    let done = std::process::Command::new("python3").arg(&script).current_dir(dir.path()).status().unwrap();
    assert!(done.success());
    let sets = open(MLP3, NPY, dir.path()).unwrap();
    let expected = SampleShape { input: vec![3, 2], kind: InputKind::Float, targets: Targets::Classes { count: 3 } };
    assert_eq!(sets.train.shape(), &expected);
    assert_eq!(read(sets.train.as_ref(), &[3, 1]).0[..7], [2.25, 2.375, 2.5, 2.625, 2.75, 2.875, 0.75]);
    assert_eq!(read(sets.train.as_ref(), &[0, 1, 2, 3]).1, [2.0, 0.0, 1.0, 2.0]);

    let job = r#"{ kind = "npy", inputs = "pixels.npy", targets = "y4.npy", validation = 0.5 }"#;
    let sets = open(MLP3, job, dir.path()).unwrap();
    assert_eq!((sets.train.shape().kind, sets.train.len()), (InputKind::Image, 2));
    let mut seen: Vec<_> =
        everything(sets.train.as_ref()).into_iter().chain(everything(sets.validation.unwrap().as_ref())).collect();
    seen.sort_by(|(a, _), (b, _)| a[0].total_cmp(&b[0]));
    assert_eq!(seen.iter().map(|(_, label)| label[0]).collect::<Vec<_>>(), [2.0, 0.0, 1.0, 2.0]);
    assert_eq!(seen[0].0[0], -1.0);

    let job = r#"{ kind = "npy", inputs = "x.npy", targets = "v.npy" }"#;
    let sets = open(REGRESSION, job, dir.path()).unwrap();
    assert_eq!(read(sets.train.as_ref(), &[1, 3]).1, [-1.0, 3.0]);
    assert_eq!(sets.train.batch(&[1, 3], Device::Cpu).unwrap().targets.size(), [2, 1]);
}

#[test]
fn bad_npy_arrays_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let labels = npy("|u1", "False", "(2,)", &[0, 2]);
    let with = |inputs: &[u8], labels: &[u8]| {
        fs::write(dir.path().join("x.npy"), inputs).unwrap();
        fs::write(dir.path().join("y.npy"), labels).unwrap();
        refused(MLP3, NPY, dir.path())
    };
    let good = npy("<f4", "False", "(2, 2)", &floats(&[1.0, 2.0, 3.0, 4.0]));
    assert_eq!(with(&good[..140], &labels), "data file `x.npy` has 140 bytes where its header asks for 144");
    assert!(with(b"\x93NUMPX", &labels).ends_with("it does not start with the magic number"));
    for cut in [0, 6, 7, 8, 9, 10, 60] {
        let refusal = with(&good[..cut], &labels);
        assert!(refusal.contains("holds no samples") || refusal.contains("is not an npy array"), "{cut}: {refusal}");
    }
    assert!(with(&npy("<f8", "False", "(2,)", &[0; 16]), &labels).contains("its element type is `<f8`"));
    assert!(with(&npy(">f4", "False", "(2,)", &[0; 8]), &labels).contains("its element type is `>f4`"));
    assert!(with(&npy("<f4", "True", "(2, 2)", &[0; 16]), &labels).contains("Fortran order"));
    assert!(with(&npy("<f4", "False", "()", &[0; 4]), &labels).ends_with("it has no axes"));
    assert_eq!(with(&npy("<f4", "False", "(0, 2)", &[]), &labels), "data file `x.npy` holds no samples");
    let huge = npy("<f4", "False", "(9223372036854775807, 9)", &[0; 4]);
    assert!(with(&huge, &labels).contains("its shape is"));
    assert!(with(&npy("|O", "False", "(2,)", &[0; 16]), &labels).contains("its element type is `|O`"));
    let mut version = good.clone();
    version[6] = 9;
    assert!(with(&version, &labels).ends_with("its version is not 1, 2 or 3"));
    assert_eq!(
        with(&good, &npy("|u1", "False", "(3,)", &[0; 3])),
        "`x.npy` holds 2 inputs and `y.npy` holds 3 targets"
    );
    assert!(with(&good, &npy("<i8", "False", "(2,)", &[0xff; 16])).contains("label -1 at position 0 is not from 0 to"));
    let script = r#"{ kind = "torchscript", path = "m.pt" }"#;
    assert!(refused(script, NPY, dir.path()).ends_with("label -1 at position 0 is not 0 or above"));
    assert!(with(&good, &npy("|u1", "False", "(2, 2)", &[0; 4])).contains("each label has the shape [2]"));
    assert!(with(&npy("<i4", "False", "(2,)", &[0; 8]), &labels).contains("its elements are Int"));
}

fn safetensors(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

#[test]
fn tensors_of_a_safetensors_file_are_read_by_name() {
    let dir = tempfile::tempdir().unwrap();
    let header = r#"{"x":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},"y":{"dtype":"I64","shape":[2],"data_offsets":[16,32]}}"#;
    let data = [floats(&[1.0, 2.0, 3.0, 4.0]), 1_i64.to_le_bytes().to_vec(), 2_i64.to_le_bytes().to_vec()].concat();
    let path = dir.path().join("s");
    let job = |inputs: &str, targets: &str| {
        format!(r#"{{ kind = "safetensors", path = "s", inputs = "{inputs}", targets = "{targets}" }}"#)
    };
    fs::write(&path, safetensors(header, &data)).unwrap();
    let sets = open(MLP3, &job("x", "y"), dir.path()).unwrap();
    assert_eq!(read(sets.train.as_ref(), &[1, 0]), (vec![3.0, 4.0, 1.0, 2.0], vec![2.0, 1.0]));

    let with = |bytes: &[u8], inputs: &str| {
        fs::write(&path, bytes).unwrap();
        refused(MLP3, &job(inputs, "y"), dir.path())
    };
    let good = safetensors(header, &data);
    assert_eq!(with(&good, "z"), "data file `s` has no tensor `z`; it has `x`, `y`");
    assert!(with(&good, "y").contains("its elements are Int64"));
    assert_eq!(with(&good[..150], "x"), "data file `s` has 150 bytes where its header asks for 152");
    assert!(with(&good[..20], "x").contains("its header would have 112 bytes"));
    assert!(with(b"1234", "x").contains("it is shorter than 8 bytes"));
    assert!(with(&[0xff; 32], "x").contains("its header would have 18446744073709551615 bytes"));
    assert!(with(&safetensors("{\"x\":3}", b""), "x").contains("is not a safetensors file"));
    let overlapping = header.replace("[16,32]", "[8,24]");
    assert!(with(&safetensors(&overlapping, &data), "x").contains("is not a safetensors file"));
    let half = header.replace("F32\",\"shape\":[2,2]", "F16\",\"shape\":[2,4]");
    assert!(with(&safetensors(&half, &data), "x").contains("tensor `x` has elements of F16"));
    let huge = r#"{"x":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#;
    assert!(with(&safetensors(huge, &data), "x").contains("bytes where its header asks for 2305843009213694"));
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
    assert!(open(nine, job, &dir).map(|_| ()).unwrap_err().contains("label 9 at position 9 is not from 0 to below"));
}

#[test]
fn a_checkpoints_moments_take_the_place_of_a_tables_own() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("t.csv"), "a,b,y\n1,5,10\n3,5,30\n").unwrap();
    let spec = r#"{ kind = "csv", path = "t.csv", target = "y", task = "regression" }"#;
    let own = open(REGRESSION, spec, dir.path()).unwrap().train;
    let column =
        |name: &str, mean, deviation, constant| Standardised { column: name.into(), mean, deviation, constant };
    let preprocessing = Preprocessing {
        inputs: Inputs::Columns(vec![column("a", 2.0, 1.0, false), column("b", 5.0, 1.0, true)]),
        targets: preprocessing::Targets::Standardised(column("y", 20.0, 10.0, false)),
    };
    assert_eq!((own.preprocessing(), own.measured()), (Some(&preprocessing), Some(&preprocessing)));
    assert_eq!(everything(own.as_ref()), [(vec![-1.0, 0.0], vec![-1.0]), (vec![1.0, 0.0], vec![1.0])]);

    let read = |known: &Preprocessing| {
        let job = support::job(REGRESSION, spec, &[]);
        lockstep_models::open_data_as(&job, &dir.path().into(), Some(known)).unwrap().train
    };
    let known = Preprocessing {
        inputs: Inputs::Columns(vec![column("a", 1.0, 4.0, false), column("b", 3.0, 0.5, false)]),
        targets: preprocessing::Targets::Standardised(column("y", 0.0, 20.0, false)),
    };
    let data = read(&known);
    assert_eq!((data.preprocessing(), data.measured()), (Some(&known), Some(&preprocessing)));
    assert_eq!(everything(data.as_ref()), [(vec![0.0, 4.0], vec![0.5]), (vec![0.5, 4.0], vec![1.5])]);
    // Those of other columns are of no use; whoever resumes sees that the two differ.
    let other = Preprocessing { inputs: Inputs::Columns(vec![column("b", 1.0, 4.0, false)]), ..known };
    let data = read(&other);
    assert!(!other.fits(data.measured().unwrap()) && data.preprocessing() != Some(&other));
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
        let expected = everything(lockstep_models::open_data(&job, &dir.path().into()).unwrap().train.as_ref());
        let listed: Vec<Listed> = job.data_paths().iter().map(|path| Listed::new(dir.path(), path)).collect();
        let files = hash_files(&listed.iter().collect::<Vec<_>>(), None, &|_| ()).unwrap();
        for in_memory in [0, 1 << 20] {
            let reading = Reading { in_memory, by_path: false };
            let located = locate(dir.path(), &files, &store, false, reading).unwrap();
            // Another file under its name, as behind a link that leads elsewhere.
            fs::write(dir.path().join("other"), &second).unwrap();
            fs::rename(dir.path().join("other"), &path).unwrap();
            let data = lockstep_models::open_data(&job, &located.files).unwrap().train;
            assert_eq!(everything(data.as_ref()), expected, "{spec}");
            fs::write(dir.path().join("other"), &first).unwrap();
            fs::rename(dir.path().join("other"), &path).unwrap();
        }
        // What is in memory cannot be changed, not even through a mapping.
        let reading = Reading { in_memory: 1 << 20, by_path: false };
        let located = locate(dir.path(), &files, &store, false, reading).unwrap();
        let data = lockstep_models::open_data(&job, &located.files).unwrap().train;
        fs::OpenOptions::new().write(true).open(&path).unwrap().write_all(&second).unwrap();
        assert_eq!(everything(data.as_ref()), expected, "{spec}");
    }
}
