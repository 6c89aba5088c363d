//! Hashes of DVC 2, as the DVC of today computes them for its repositories.

use std::fs;
use std::process::Command;

use lockstep_dvc::Generation;

use lockstep_support::{printed, tool};

const SCRIPT: &str = "import sys
from dvc_data.hashfile.hash import file_md5
for path in sys.argv[1:]:
    print(file_md5(path), file_md5(path, name='md5-dos2unix'))
";

#[test]
fn both_generations_hash_as_dvc_does() {
    const MEBIBYTE: usize = 1 << 20;
    let line = |bytes: usize| "0123456789abcd\r\n".bytes().cycle().take(bytes).collect::<Vec<_>>();
    let mut cases: Vec<Vec<u8>> = vec![
        Vec::new(),
        b"\r\n".to_vec(),
        b"a\r\r\n\n\r".to_vec(),
        "ünïcödé\r\n".repeat(9).into_bytes(),
        b"\0\r\n".to_vec(),
        (0..=255).collect(),
        [line(512), vec![0], line(512)].concat(),
        [line(511), vec![0], line(512)].concat(),
        line(3 * MEBIBYTE + 7),
        [line(MEBIBYTE - 1), b"\r\n".to_vec(), line(99)].concat(),
        [line(MEBIBYTE), vec![0], line(MEBIBYTE), line(99)].concat(),
    ];
    // On both sides of the limit of what is text.
    cases.extend((28..33).map(|strange| [vec![0xe4; strange], line(98 - strange), b"\r\n".to_vec()].concat()));
    let dir = tempfile::tempdir().unwrap();
    let paths: Vec<_> = (0..cases.len()).map(|i| dir.path().join(i.to_string())).collect();
    for (path, bytes) in paths.iter().zip(&cases) {
        fs::write(path, bytes).unwrap();
    }
    let expected = printed(Command::new(tool("python3")).args(["-c", SCRIPT]).args(&paths));
    assert_eq!(expected.lines().count(), paths.len());
    for (path, expected) in paths.iter().zip(expected.lines()) {
        let ours =
            [Generation::Three, Generation::Two].map(|generation| generation.hash_file(path).unwrap().to_string());
        assert_eq!(ours.join(" "), expected, "{}", path.display());
    }
}
