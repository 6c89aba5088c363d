//! What cannot be fetched is named, with what to do, and nothing is harmed.

use std::fs;

use lockstep_dvc::{DvcError, Md5, Presence, State, Tracked};

use crate::repo::{Repo, chain};

fn pushed() -> Repo {
    let repo = Repo::new();
    repo.write("data/a", "one\n");
    repo.write("data/b", "two\n");
    repo.dvc(&["add", "-q", "data"]);
    repo.dvc(&["push", "-q"]);
    repo
}

#[tokio::test]
async fn a_changed_file_is_left_alone_and_so_is_all_beside_it() {
    let repo = pushed();
    repo.write("data/b", "mine\n");
    fs::remove_file(repo.path("data/a")).unwrap();
    let (expected, found) = (Md5::of(b"two\n"), Md5::of(b"mine\n"));
    let State::Files(files) = repo.tracked("data").check().await.unwrap() else { panic!("it is in the cache") };
    assert_eq!(files[1].presence, Presence::Other { expected, found });
    let before = repo.tree();
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::Changed { .. }), "{error}");
    let text = error.to_string();
    for part in ["data/b`", &expected.to_string(), &found.to_string()] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(before, repo.tree());
    // The file beside it can be had by itself.
    repo.fetch("data/a").await.unwrap();
    assert_eq!((repo.read("data/a").as_str(), repo.read("data/b").as_str()), ("one\n", "mine\n"));
}

#[tokio::test]
async fn what_is_in_the_way_is_named() {
    let repo = pushed();
    fs::remove_file(repo.path("data/a")).unwrap();
    fs::create_dir(repo.path("data/a")).unwrap();
    let error = repo.fetch("data").await.unwrap_err().to_string();
    assert!(error.contains("data/a`: DVC recorded a file there"), "{error}");
    fs::remove_dir_all(repo.path("data")).unwrap();
    repo.write("data", "x");
    let error = repo.fetch("data").await.unwrap_err().to_string();
    assert!(error.contains("data`: DVC recorded a directory there"), "{error}");
    assert_eq!(repo.read("data"), "x");
}

#[tokio::test]
async fn a_missing_and_a_corrupt_object_are_named_with_their_remote() {
    let repo = pushed();
    repo.lose(&["data"]);
    let (one, two) = (Md5::of(b"one\n"), Md5::of(b"two\n"));
    let object = |md5: Md5| {
        let name = md5.to_string();
        repo.remote().join("files/md5").join(&name[..2]).join(&name[2..])
    };
    fs::remove_file(object(one)).unwrap();
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::MissingObject { .. }), "{error}");
    let text = error.to_string();
    for part in ["data/a`", &one.to_string(), "remote `store`", object(one).to_str().unwrap(), "dvc push"] {
        assert!(text.contains(part), "{text}");
    }
    assert_eq!(repo.read("data/b"), "two\n", "what was under way is finished");
    repo.lose(&["data"]);
    fs::remove_file(object(two)).unwrap();
    fs::write(object(two), "too\n").unwrap();
    let error = repo.fetch("data/b").await.unwrap_err();
    assert!(matches!(error, DvcError::CorruptObject { md5, found, .. } if (md5, found) == (two, Md5::of(b"too\n"))));
    assert!(error.to_string().contains("data/b`"), "{error}");
    assert!(!repo.path("data/b").exists());
    let cached = fs::read_dir(repo.path(".dvc/cache")).unwrap();
    let left: Vec<_> = cached.map(|item| item.unwrap().file_name()).filter(|name| name != "files").collect();
    assert!(left.is_empty(), "nothing unfinished stays: {left:?}");
}

#[tokio::test]
async fn a_remote_that_only_dvc_can_read_is_named() {
    let repo = pushed();
    repo.lose(&["data"]);
    for (url, what) in [
        ("ssh://host/path", "`ssh`"),
        ("gs://bucket", "`gs`"),
        ("azure://container", "`azure`"),
        ("gdrive://folder", "`gdrive`"),
    ] {
        repo.write(".dvc/config.local", format!("['remote \"store\"']\nurl = {url}\n"));
        let error = repo.fetch("data").await.unwrap_err().to_string();
        for part in ["remote `store`", url, what, "dvc pull"] {
            assert!(error.contains(part), "{error}");
        }
    }
    repo.write(".dvc/config.local", "['remote \"store\"']\nurl = s3://bucket\nversion_aware = true\n");
    let error = repo.fetch("data").await.unwrap_err().to_string();
    assert!(error.contains("version_aware"), "{error}");
    repo.write(".dvc/config", "");
    repo.write(".dvc/config.local", "");
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(&error, DvcError::NoRemote { names, .. } if names.is_empty()), "{error}");
    repo.write(".dvc/config", "[core]\nremote = gone\n");
    assert!(matches!(repo.fetch("data").await.unwrap_err(), DvcError::UnknownRemote { name, .. } if name == "gone"));
    repo.write(".dvc/config", "[core\n");
    let error = repo.fetch("data").await.unwrap_err().to_string();
    assert!(error.contains(".dvc/config`, line 1"), "{error}");
}

#[tokio::test]
async fn what_was_imported_comes_with_the_command_that_the_refusal_names() {
    let repo = Repo::new();
    repo.write("../source/data/a", "one\n");
    repo.write("../source/data/b", "two\n");
    for arguments in [&["init", "-q"][..], &["add", "."], &["commit", "-qm", "data"]] {
        repo.git(&[&["-C", "../source"], arguments].concat());
    }
    repo.dvc(&["import", "-q", "../source", "data"]);
    assert_eq!(repo.read("data/a"), "one\n");
    repo.lose(&["data"]);
    // Its own remote never had it.
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::MissingObject { .. }), "{error}");
    assert!(error.to_string().contains("or `dvc pull` for imported data"), "{error}");
    repo.write(".dvc/config", "");
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::NoRemote { .. }), "{error}");
    assert!(error.to_string().contains("for imported data (`dvc import`), run `dvc pull`"), "{error}");
    repo.dvc(&["pull", "-q"]);
    let fetched = repo.fetch("data").await.unwrap();
    assert_eq!((fetched.files.len(), fetched.num_written, fetched.num_downloaded), (2, 0, 0));
    assert_eq!((repo.read("data/a").as_str(), repo.read("data/b").as_str()), ("one\n", "two\n"));
}

#[tokio::test]
async fn records_that_cannot_be_followed_are_named() {
    let repo = Repo::new();
    repo.write("a.dvc", "outs:\n- path: a\n  hash: md5\n");
    let error = Tracked::find(&repo.path("a")).unwrap_err().to_string();
    assert!(error.contains("a.dvc` has no md5 of `a`"), "{error}");
    repo.write("a.dvc", "outs: {\n");
    let error = Tracked::find(&repo.path("a")).unwrap_err();
    assert!(chain(&error).contains("a.dvc` is not a valid DVC file: "), "{}", chain(&error));
    // A listing that would write outside of its directory.
    let listing = br#"[{"md5": "b026324c6904b2a9cb4b88d6d61c81d1", "relpath": "../../x"}]"#;
    let md5 = Md5::of(listing).to_string();
    let object = repo.remote().join("files/md5").join(&md5[..2]).join(format!("{}.dir", &md5[2..]));
    fs::create_dir_all(object.parent().unwrap()).unwrap();
    fs::write(object, listing).unwrap();
    repo.write("a.dvc", format!("outs:\n- path: a\n  md5: {md5}.dir\n  hash: md5\n"));
    let error = repo.fetch("a").await.unwrap_err();
    assert!(matches!(&error, DvcError::BadListing { .. }) && error.to_string().contains("../../x"), "{error}");
}

#[tokio::test]
async fn nothing_is_written_behind_a_link_and_nothing_is_fetched_for_it() {
    let repo = Repo::new();
    repo.write("one/f", "one file\n");
    repo.write("data/a", "a\n");
    repo.write("data/sub/b", "b\n");
    repo.dvc(&["add", "-q", "data", "one/f"]);
    repo.dvc(&["push", "-q"]);
    let record = repo.read("one/f.dvc").replace("path: f", "path: one/f");
    repo.lose(&["data", "one/f"]);
    // The record of a file behind the link lies before the link.
    fs::remove_dir_all(repo.path("one")).unwrap();
    repo.write("f.dvc", &record);
    let outside = tempfile::tempdir().unwrap();
    for (link, asked) in [("one", "one/f"), ("data", "data"), ("data", "data/a")] {
        std::os::unix::fs::symlink(outside.path(), repo.path(link)).unwrap();
        let error = repo.fetch(asked).await.unwrap_err();
        assert!(matches!(&error, DvcError::BehindLink { link: found, .. } if *found == repo.path(link)), "{error}");
        assert_eq!(fs::read_dir(outside.path()).unwrap().count(), 0, "{asked}");
        assert!(!repo.path(".dvc/cache/files").exists(), "{asked}: nothing was fetched");
        fs::remove_file(repo.path(link)).unwrap();
    }
    // A link in a tracked directory.
    fs::create_dir(repo.path("data")).unwrap();
    std::os::unix::fs::symlink(outside.path(), repo.path("data/sub")).unwrap();
    let error = repo.fetch("data").await.unwrap_err().to_string();
    assert!(error.contains("data/sub` in its path is a symbolic link"), "{error}");
    assert!(fs::read_dir(outside.path()).unwrap().count() == 0 && !repo.path("data/a").exists());
    fs::remove_file(repo.path("data/sub")).unwrap();
    repo.fetch("data").await.unwrap();
    assert_eq!(repo.read("data/sub/b"), "b\n");
}
