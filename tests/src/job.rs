//! Jobs for tests, on `tests/data/digits.csv`.

use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use lockstep_support::repository;

/// A job file in a directory of its own, outside of any git work tree.
#[derive(Debug)]
pub struct Job {
    /// Path of the job file.
    pub path: PathBuf,
}

impl Job {
    /// Writes `text` as `job.toml` in `dir`.
    pub fn write(dir: &Path, text: &str) -> Self {
        let path = dir.join("job.toml");
        fs::write(&path, text).expect("the test's directory is writable");
        Self { path }
    }

    /// The path as an argument.
    pub fn argument(&self) -> &str {
        self.path.to_str().expect("test paths are UTF-8")
    }
}

/// A job with everything that could hide state: dropout, shuffling, momentum, a schedule with warm-up, clipping, evaluation. An
/// epoch has 17 steps, so that all checkpoints lie in the middle of one.
pub fn digits(dir: &Path) -> Job {
    let data = repository().join("tests/data/digits.csv");
    fs::copy(&data, dir.join("digits.csv")).expect("the digits are in the repository");
    Job::write(
        dir,
        r#"
            name = "digits"
            seed = 20
            steps = 90
            ranks = 4
            batch = { size = 96 }
            model = { kind = "mlp", hidden = [48, 32], outputs = 10, dropout = 0.25 }
            data = { kind = "csv", path = "digits.csv", target = "label", validation = 0.09 }
            optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9, weight_decay = 1e-4, clip_norm = 1.0 }
            schedule = { kind = "cosine", warmup_steps = 10 }
            eval = { every_steps = 30 }
            checkpoint = { every_steps = 15 }
        "#,
    )
}

/// Writes these rows of the digits into `dir` as two IDX files: images of 8 × 8 pixels, and their labels.
pub fn write_images(dir: &Path, rows: Range<usize>, [images, labels]: [&str; 2]) {
    let text =
        fs::read_to_string(repository().join("tests/data/digits.csv")).expect("the digits are in the repository");
    let lines = text.lines().skip(1 + rows.start).take(rows.len());
    let cells = |line: &str| line.split(',').map(|cell| cell.parse().expect("small numbers")).collect::<Vec<u8>>();
    let rows: Vec<Vec<u8>> = lines.map(cells).collect();
    let pixels: Vec<u8> = rows.iter().flat_map(|row| row[..64].iter().map(|value| value * 15)).collect();
    let numbers: Vec<u8> = rows.iter().map(|row| row[64]).collect();
    for (name, sizes, bytes) in [(images, &[8_u32, 8][..], pixels), (labels, &[], numbers)] {
        let mut file = vec![0, 0, 8, 1 + sizes.len() as u8];
        file.extend([&[rows.len() as u32], sizes].concat().iter().flat_map(|size| size.to_be_bytes()));
        file.extend(bytes);
        fs::write(dir.join(name), file).expect("the test's directory is writable");
    }
}
