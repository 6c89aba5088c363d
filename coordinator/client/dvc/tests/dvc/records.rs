//! Where DVC writes down what it tracks: pipelines, DVC 2, other directories, and commits of git.

use std::fs;

use lockstep_dvc::{DvcError, Generation, Md5, Presence, Recorded, State, Tracked};

use crate::repo::Repo;

#[tokio::test]
async fn outputs_of_a_pipeline_come_back() {
    let repo = Repo::new();
    let stage = "printf '1\\n2\\n' > out.txt && mkdir -p parts && echo x > parts/p && echo '{\"n\": 1}' > m.json";
    repo.write(
        "flow/dvc.yaml",
        format!(
            "stages:\n  prepare:\n    cmd: {stage:?}\n    wdir: ../work\n    outs:\n    - out.txt\n    - parts\n    metrics:\n    - m.json:\n        cache: false\n  each:\n    foreach: [a, b]\n    do:\n      cmd: echo ${{item}} > ${{item}}.txt\n      outs:\n      - ${{item}}.txt\n"
        ),
    );
    fs::create_dir(repo.path("work")).unwrap();
    repo.dvc(&["repro", "-q", "-P"]);
    repo.dvc(&["push", "-q"]);
    assert_eq!(repo.tracked("flow/a.txt").recorded().recorded_in, repo.path("flow/dvc.lock"));
    // Known limit: this lock is neither beside its outputs nor above them.
    assert!(Tracked::find(&repo.path("work/out.txt")).unwrap().is_none());
    repo.lose(&["flow/a.txt", "flow/b.txt"]);
    for name in ["flow/a.txt", "flow/b.txt"] {
        assert_eq!(repo.fetch(name).await.unwrap().num_written, 1, "{name}");
    }
    assert_eq!(repo.read("flow/b.txt"), "b\n");

    let repo = Repo::new();
    repo.write(
        "dvc.yaml",
        format!(
            "stages:\n  prepare:\n    cmd: {stage:?}\n    wdir: work\n    outs:\n    - out.txt\n    - parts\n    metrics:\n    - m.json:\n        cache: false\n"
        ),
    );
    fs::create_dir(repo.path("work")).unwrap();
    repo.dvc(&["repro", "-q"]);
    repo.dvc(&["push", "-q"]);
    repo.lose(&["work/out.txt", "work/parts"]);
    repo.fetch("work/out.txt").await.unwrap();
    repo.fetch("work/parts/p").await.unwrap();
    assert_eq!((repo.read("work/out.txt").as_str(), repo.read("work/parts/p").as_str()), ("1\n2\n", "x\n"));
    assert!(Tracked::find(&repo.path("work/m.json")).unwrap().is_none(), "git keeps it");
    repo.assert_clean();
}

/// A repository of DVC 2 is written by hand, for the DVC of today writes none.
#[tokio::test]
async fn text_of_dvc_2_is_known_by_its_unix_form() {
    let repo = Repo::new();
    let (dos, unix) = ("a\r\nb\r\n", Md5::of(b"a\nb\n"));
    let binary = b"\0\r\n";
    let listing = format!(
        r#"[{{"md5": "{}", "relpath": "bin"}}, {{"md5": "{unix}", "relpath": "sub/dos.txt"}}]"#,
        Md5::of(binary)
    );
    let directory = Md5::of(listing.as_bytes());
    let place = |md5: Md5, suffix: &str, bytes: &[u8]| {
        let name = md5.to_string();
        let path = repo.remote().join(&name[..2]).join(format!("{}{suffix}", &name[2..]));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
    };
    place(unix, "", dos.as_bytes());
    place(Md5::of(binary), "", binary);
    place(directory, ".dir", listing.as_bytes());
    repo.write("dos.txt.dvc", format!("outs:\n- md5: {unix}\n  size: 6\n  path: dos.txt\n"));
    repo.write("d.dvc", format!("outs:\n- md5: {directory}.dir\n  size: 9\n  nfiles: 2\n  path: d\n"));
    for name in ["dos.txt", "d"] {
        assert_eq!(repo.tracked(name).recorded().generation, Generation::Two);
        repo.fetch(name).await.unwrap();
        assert!(repo.tracked(name).check().await.unwrap().is_present());
    }
    assert_eq!((repo.read("dos.txt").as_str(), repo.read("d/sub/dos.txt").as_str()), (dos, dos));
    repo.assert_clean();
    // The other form of the same text is the same to DVC 2, and so to us.
    repo.write("dos.txt", "a\nb\n");
    assert!(repo.tracked("dos.txt").check().await.unwrap().is_present());
    repo.write("dos.txt", "a\nc\n");
    let State::Files(files) = repo.tracked("dos.txt").check().await.unwrap() else { panic!("it is a file") };
    assert_eq!(files[0].presence, Presence::Other { expected: unix, found: Md5::of(b"a\nc\n") });
}

#[tokio::test]
async fn a_dvc_file_may_have_another_name_and_directory() {
    let repo = Repo::new();
    repo.write("raw/deep/a", "one\n");
    repo.dvc(&["add", "-q", "raw"]);
    repo.dvc(&["push", "-q"]);
    let text = repo.read("raw.dvc").replace("path: raw", "path: ./deep/../raw");
    fs::remove_file(repo.path("raw.dvc")).unwrap();
    repo.write("notes.dvc", format!("# kept by hand\nwdir: .\n{text}desc: \"all of it: raw\"\n"));
    repo.lose(&["raw"]);
    let tracked = Tracked::find(&repo.path("x/../raw/deep/./a")).unwrap().unwrap();
    assert_eq!(tracked.recorded().recorded_in, repo.path("notes.dvc"));
    assert_eq!((tracked.recorded().num_files, tracked.recorded().size), (Some(1), Some(4)));
    tracked.fetch(&|_| {}).await.unwrap();
    repo.assert_clean();
}

#[tokio::test]
async fn an_earlier_revision_goes_into_the_cache_alone() {
    let repo = Repo::new();
    repo.write("sub/data/a", "old\n");
    repo.write("sub/data/b", "same\n");
    repo.dvc(&["add", "-q", "sub/data"]);
    repo.git(&["add", "."]);
    repo.git(&["commit", "-qm", "old"]);
    repo.git(&["tag", "v1"]);
    repo.dvc(&["push", "-q"]);
    repo.write("sub/data/a", "newer\n");
    repo.dvc(&["add", "-q", "sub/data"]);
    repo.git(&["commit", "-qam", "new"]);
    repo.dvc(&["push", "-q"]);
    repo.lose(&[]);
    repo.fetch("sub/data").await.unwrap();
    repo.assert_clean();

    let before = repo.tree();
    let old = Recorded::at_revision(&repo.path("sub/data"), "v1").unwrap().unwrap();
    assert_ne!(old.md5, repo.tracked("sub/data").recorded().md5);
    let fetched = old.fetch_to_cache(&|_| {}).await.unwrap();
    assert_eq!((fetched.num_downloaded, fetched.num_written), (2, 0), "a listing and one file");
    let files: Vec<_> = fetched.files.iter().map(|file| (file.path.as_str(), file.size)).collect();
    assert_eq!(files, [("a", 4), ("b", 5)]);
    assert_eq!(fs::read_to_string(&fetched.files[0].cache_path).unwrap(), "old\n");
    assert_eq!(before, repo.tree(), "the work tree holds the other version");
    let one = Recorded::at_revision(&repo.path("sub/data/a"), "HEAD~1").unwrap().unwrap();
    assert_eq!(one.fetch_to_cache(&|_| {}).await.unwrap().files.len(), 1);

    assert!(Recorded::at_revision(&repo.path("sub/other"), "v1").unwrap().is_none());
    let error = Recorded::at_revision(&repo.path("sub/data"), "v9").unwrap_err();
    assert!(matches!(error, DvcError::Git { .. }) && error.to_string().contains("`v9`"), "{error}");

    // DVC itself needs no remote for it now.
    fs::remove_dir_all(repo.remote()).unwrap();
    repo.git(&["checkout", "-q", "v1"]);
    repo.dvc(&["checkout"]);
    assert_eq!(repo.read("sub/data/a"), "old\n");
    repo.assert_clean();
}
