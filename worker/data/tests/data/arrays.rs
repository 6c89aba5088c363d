//! Arrays: npy and safetensors files.

use super::*;

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
    lockstep_support::printed(std::process::Command::new("python3").arg(&script).current_dir(dir.path()));
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
    assert_eq!(with(&good[..140], &labels), "data file `x.npy` has 140 bytes, but its header declares 144");
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
        "`x.npy` holds 2 inputs, but `y.npy` holds 3 targets"
    );
    assert!(
        with(&good, &npy("<i8", "False", "(2,)", &[0xff; 16]))
            .contains("label -1 at position 0 is not a class from 0 to 2")
    );
    let script = r#"{ kind = "torchscript", path = "m.pt" }"#;
    assert!(
        refused(script, NPY, dir.path()).ends_with("label -1 at position 0 is not a class (a whole number from 0)")
    );
    assert!(with(&good, &npy("|u1", "False", "(2, 2)", &[0; 4])).contains("each label has the shape [2]"));
    assert!(with(&npy("<i4", "False", "(2,)", &[0; 8]), &labels).contains("its elements are Int"));
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
    assert_eq!(with(&good[..150], "x"), "data file `s` has 150 bytes, but its header declares 152");
    assert!(with(&good[..20], "x").contains("announce a header of 112 bytes"));
    assert!(with(b"1234", "x").contains("it is shorter than 8 bytes"));
    assert!(with(&[0xff; 32], "x").contains("announce a header of 18446744073709551615 bytes"));
    assert!(with(&safetensors("{\"x\":3}", b""), "x").contains("is not a safetensors file"));
    let overlapping = header.replace("[16,32]", "[8,24]");
    assert!(with(&safetensors(&overlapping, &data), "x").contains("is not a safetensors file"));
    let half = header.replace("F32\",\"shape\":[2,2]", "F16\",\"shape\":[2,4]");
    assert!(with(&safetensors(&half, &data), "x").contains("tensor `x` has elements of F16"));
    let huge = r#"{"x":{"dtype":"U8","shape":[2305843009213693951],"data_offsets":[0,2305843009213693951]}}"#;
    assert!(with(&safetensors(huge, &data), "x").contains("bytes, but its header declares 2305843009213694"));
}
