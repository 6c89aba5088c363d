//! Token files: windows, and files of other formats.

use super::*;

#[test]
fn tokens_come_in_windows_with_their_successors() {
    let dir = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..23).collect();
    fs::write(dir.path().join("t.bin"), &bytes).unwrap();
    let sets = open(&gpt(3, 23), r#"{ kind = "tokens", path = "t.bin", validation = 0.4 }"#, dir.path()).unwrap();
    let (train, validation) = (sets.train, sets.validation.unwrap());
    // Five windows of four tokens; the last three tokens are not used.
    assert_eq!((train.len(), validation.len()), (3, 2));
    assert_eq!(read(train.as_ref(), &[2, 0]).0, [8.0, 9.0, 10.0, 0.0, 1.0, 2.0]);
    assert_eq!(read(train.as_ref(), &[2, 0]).1, [9.0, 10.0, 11.0, 1.0, 2.0, 3.0]);
    assert_eq!(read(validation.as_ref(), &[1]).1, [17.0, 18.0, 19.0]);
    let batch = train.batch(&[0, 1], Device::Cpu).unwrap();
    assert_eq!((batch.inputs.kind(), batch.targets.kind()), (Kind::Int64, Kind::Int64));
    assert_eq!(
        train.batch(&[0, 3], Device::Cpu).unwrap_err().to_string(),
        "position 3 is out of range: the data set has 3 samples"
    );

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
    assert!(
        refused(&gpt(3, 256), job, dir.path())
            .ends_with("its 3 tokens do not fill one window of 4 (`model.context` + 1)")
    );
    assert!(refused(&gpt(3, 256), wide, dir.path()).ends_with("its 3 bytes are not a multiple of 2"));
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
    assert!(said.contains("looks like text (one byte for each token: `data.dtype = \"u8\"`)"), "{said}");
    let wide: Vec<u8> = (0..400_u32).flat_map(|index| (index * 7919 % 1000).to_le_bytes()[..2].to_vec()).collect();
    assert!(with(&wide, "").contains("looks like 16-bit integers (`data.dtype = \"u16\"`)"));

    fs::write(dir.path().join("t.bin"), &array).unwrap();
    let taken = open(&gpt(3, 65_536), &job(", dtype = \"u16\", accept_as_is = true"), dir.path()).unwrap();
    assert_eq!(taken.train.len(), array.len() as u64 / 8);
    // Values beyond the vocabulary are still rejected.
    let said = refused(&gpt(3, 9), &job(", accept_as_is = true"), dir.path());
    assert!(said.contains("token 147 at position 0 is not below `model.vocabulary` = 9"), "{said}");
    let spec = |more: &str| support::job(&gpt(3, 256), &job(more), &[]);
    assert_eq!(spec("").digest(), spec(", accept_as_is = false").digest(), "where it is not used, no job changes");
    assert_ne!(spec("").digest(), spec(", accept_as_is = true").digest());
}
