//! IDX files of images and labels, plain and gzipped.

use super::*;

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
    // Colour images have an axis for their channels.
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
    assert_eq!(with(&good[..21], &labels), "data file `i` has 21 bytes, but its header declares 22");
    assert_eq!(with(&[&good[..], b"x"].concat(), &labels), "data file `i` has 23 bytes, but its header declares 22");
    assert_eq!(with(&gzip(&good[..21]), &labels), "data file `i` has 21 bytes, but its header declares 22");
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
    assert_eq!(with(&good, &idx(&[2], &[1, 1])), "`i` holds 3 inputs, but `l` holds 2 targets");
    assert_eq!(
        with(&good, &idx(&[3], &[2, 3, 1])),
        "data file `l`: label 3 at position 1 is not a class from 0 to 2 (`model.outputs` = 3)"
    );
    fs::write(dir.path().join("l"), &labels).unwrap();
    fs::write(dir.path().join("v"), idx(&[3, 2, 2], &[0; 12])).unwrap();
    let job = r#"{ kind = "idx", images = "i", labels = "l", validation_images = "v", validation_labels = "l" }"#;
    assert_eq!(
        refused(MLP3, job, dir.path()),
        "`i` has samples of shape [1, 1, 2] for training, but `v` has samples of shape [1, 2, 2] for validation"
    );
}
