//! What is lost comes back as DVC would bring it back.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::sync::Mutex;

use lockstep_dvc::{DvcError, Objects, Presence, Progress, State, Tracked};

use crate::repo::{Repo, mode};

const NAMES: [&str; 5] = ["data/a", "data/sub/deeper/b", "data/sub/ü€😀 \"q\"", "data/twin", "data/empty"];

/// A directory with nested, odd, equal and empty files, an executable, and an empty directory, all pushed.
fn pushed() -> Repo {
    let repo = Repo::new();
    repo.dvc(&["remote", "add", "-q", "-d", "-f", "Store", "../remote"]);
    for (name, bytes) in NAMES.into_iter().zip(["one\n", "two\r\n", "three", "one\n", ""]) {
        repo.write(name, bytes);
    }
    repo.write("tool.sh", "#!/bin/sh\n");
    fs::set_permissions(repo.path("tool.sh"), fs::Permissions::from_mode(0o755)).unwrap();
    fs::create_dir(repo.path("hollow")).unwrap();
    repo.dvc(&["add", "-q", "data", "tool.sh", "hollow"]);
    repo.dvc(&["push", "-q"]);
    repo
}

#[tokio::test]
async fn files_and_directories_come_back_from_the_remote() {
    let repo = pushed();
    let before = repo.tree();
    repo.lose(&["data", "tool.sh", "hollow"]);
    assert_eq!(repo.tracked("data").check().await.unwrap(), State::Unlisted);
    let State::Files(files) = repo.tracked("tool.sh").check().await.unwrap() else { panic!("it is a file") };
    assert_eq!(files[0].presence, Presence::Missing);

    let told = Mutex::new(Vec::new());
    let tracked = repo.tracked("data");
    let fetched = tracked.fetch(&|progress| told.lock().unwrap().push(progress)).await.unwrap();
    let told = told.into_inner().unwrap();
    assert_eq!(told.last(), Some(&Progress { files: 5, num_files: 5, bytes: fetched.bytes_downloaded }));
    // Two files have the same contents, and the listing came too.
    assert_eq!((fetched.num_downloaded, fetched.num_written, fetched.replaced.len()), (5, 5, 0));
    assert_eq!(fetched.files.iter().map(|file| file.size).sum::<u64>(), 4 + 5 + 5 + 4);
    assert!(fetched.files.iter().all(|file| mode(&file.cache_path) == 0o444), "DVC trusts what is read-only");
    for name in ["tool.sh", "hollow"] {
        repo.fetch(name).await.unwrap();
    }

    let after = repo.tree();
    assert!(before.keys().eq(after.keys()));
    for (path, (mode, _, bytes)) in &before {
        assert_eq!((&after[path].0, &after[path].2), (mode, bytes), "{}", path.display());
    }
    assert!(tracked.check().await.unwrap().is_present());
    repo.assert_clean();
    assert_eq!(repo.dvc(&["status", "-c"]).trim(), "Cache and remote 'store' are in sync.");

    let again = tokio::spawn(async move { tracked.fetch(&|_| {}).await.unwrap() }).await.unwrap();
    assert_eq!((again.num_downloaded, again.num_written, again.bytes_downloaded), (0, 0, 0));
    assert_eq!(after, repo.tree(), "what is right is not written again");
}

#[tokio::test]
async fn a_new_clone_gets_its_data() {
    let repo = pushed();
    repo.git(&["add", "."]);
    repo.git(&["commit", "-qm", "data"]);
    let (clone, old) = (repo.root().with_file_name("clone"), repo.root().with_file_name("old"));
    repo.git(&["clone", "-q", ".", clone.to_str().unwrap()]);
    fs::rename(repo.root(), old).unwrap();
    fs::rename(clone, repo.root()).unwrap();
    for name in ["data/sub", "data", "tool.sh", "hollow"] {
        repo.fetch(name).await.unwrap();
    }
    repo.assert_clean();
    assert_eq!(repo.git(&["status", "--short"]), "", "git sees none of it");
}

#[tokio::test]
async fn what_is_in_cache_or_work_tree_is_not_fetched_again() {
    let repo = pushed();
    // Without its remote, DVC's own cache is enough.
    let away = repo.remote().with_extension("away");
    fs::rename(repo.remote(), &away).unwrap();
    fs::remove_dir_all(repo.path("data/sub")).unwrap();
    let fetched = repo.fetch("data").await.unwrap();
    assert_eq!((fetched.num_downloaded, fetched.num_written), (0, 2));
    repo.assert_clean();
    // So is a whole work tree, listing and all; the cache is whole afterwards.
    repo.lose(&[]);
    for name in ["data", "tool.sh", "hollow"] {
        assert!(repo.tracked(name).check().await.unwrap().is_present(), "{name}");
        let fetched = repo.fetch(name).await.unwrap();
        assert_eq!((fetched.num_downloaded, fetched.num_written), (0, 0), "{name}");
    }
    repo.assert_clean();
    // A fetch that was cut off has left the listing and one file in the cache.
    fs::rename(away, repo.remote()).unwrap();
    let kept = repo.fetch("data").await.unwrap().files;
    let listing = repo.path(".dvc/cache/files/md5").join(listing_of(&repo));
    let texts = [&listing, &kept[0].cache_path].map(|path| (path.clone(), fs::read(path).unwrap()));
    repo.lose(&["data"]);
    for (path, text) in texts {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let fetched = repo.fetch("data").await.unwrap();
    assert_eq!((fetched.num_downloaded, fetched.num_written), (3, 5), "three of four contents were missing");
}

fn listing_of(repo: &Repo) -> String {
    let md5 = repo.tracked("data").recorded().md5.to_string();
    format!("{}/{}.dir", &md5[..2], &md5[2..])
}

#[tokio::test]
async fn a_part_of_a_directory_is_fetched_alone() {
    let repo = pushed();
    repo.lose(&["data"]);
    let fetched = repo.fetch("data/sub/deeper/b").await.unwrap();
    assert_eq!((fetched.files.len(), fetched.num_written, fetched.num_downloaded), (1, 1, 2));
    assert_eq!(fetched.files[0].path, "sub/deeper/b");
    assert_eq!(repo.read("data/sub/deeper/b"), "two\r\n");
    assert!(repo.tracked("data/sub/deeper/b").check().await.unwrap().is_present());
    assert!(!repo.path("data/a").exists());
    // For DVC the directory is not there until all of it is; neither is it after DVC's own pull of that part.
    let said = repo.dvc(&["status", "data.dvc"]);
    assert!(said.contains("not in cache:       data\n"), "{said}");
    repo.lose(&["data"]);
    repo.dvc(&["pull", "-q", "data/sub/deeper/b"]);
    assert!(repo.path("data/sub/deeper/b").exists() && !repo.path("data/a").exists());
    assert_eq!(repo.dvc(&["status", "data.dvc"]), said);
    let fetched = repo.fetch("data/sub").await.unwrap();
    assert_eq!((fetched.files.len(), fetched.num_written), (2, 1));
    let State::Files(files) = repo.tracked("data").check().await.unwrap() else { panic!("it is listed now") };
    assert_eq!(files.iter().filter(|file| file.presence == Presence::Missing).count(), 3);
    for unknown in ["data/su", "data/sub/x", "data/a/x"] {
        let error = repo.fetch(unknown).await.unwrap_err();
        assert!(matches!(&error, DvcError::NotInListing { .. }), "{unknown}: {error}");
        assert!(error.to_string().contains(unknown), "{error}");
    }
    for name in ["data", "tool.sh", "hollow"] {
        repo.fetch(name).await.unwrap();
    }
    repo.assert_clean();
}

#[tokio::test]
async fn a_link_into_a_lost_cache_serves_again_or_is_replaced() {
    let repo = Repo::new();
    repo.dvc(&["config", "cache.type", "symlink"]);
    repo.dvc(&["cache", "dir", "../cache"]);
    repo.dvc(&["config", "cache.shared", "group"]);
    repo.write("a", "one\n");
    repo.dvc(&["add", "-q", "a"]);
    repo.dvc(&["push", "-q"]);
    assert!(repo.path("a").is_symlink());
    assert!(repo.tracked("a").check().await.unwrap().is_present());
    fs::remove_dir_all(repo.path("../cache")).unwrap();
    let fetched = repo.fetch("a").await.unwrap();
    assert!(fetched.files[0].cache_path.starts_with(repo.path("../cache").canonicalize().unwrap()));
    assert_eq!(mode(fetched.files[0].cache_path.parent().unwrap()), 0o775, "a shared cache is for all of the group");
    assert!(repo.path("a").is_symlink(), "DVC's link leads to the right contents again");
    assert_eq!(repo.read("a"), "one\n");
    repo.assert_clean();
    // A link into a cache that is not used any more leads nowhere.
    fs::remove_dir_all(repo.path("../cache")).unwrap();
    repo.dvc(&["cache", "dir", "../other"]);
    repo.fetch("a").await.unwrap();
    assert!(!repo.path("a").is_symlink());
    assert_eq!(repo.read("a"), "one\n");
    repo.assert_clean();
}

#[test]
fn links_of_dvc_are_known_by_where_they_lead() {
    for cache in [None, Some("../cache")] {
        let repo = Repo::new();
        repo.dvc(&["config", "cache.type", "symlink"]);
        if let Some(dir) = cache {
            repo.dvc(&["cache", "dir", dir]);
        }
        repo.write("data/a", "one\n");
        repo.dvc(&["add", "-q", "data"]);
        let (link, objects) = (repo.path("data/a"), Objects::around(&repo.path("data")).unwrap().unwrap());
        assert!(link.is_symlink());
        let object = link.canonicalize().unwrap();
        assert!(objects.have(&object));
        // Any other file of a directory that is configured as the cache.
        for other in ["key", "files/md5/key", "files/md5/ab/key", ".ssh/0123456789abcdef0123456789abcd"] {
            assert!(!objects.have(&object.ancestors().nth(4).unwrap().join(other)), "{other}");
        }
        assert!(!objects.have(&repo.root().canonicalize().unwrap().join("data/ab/0123456789abcdef0123456789abcd")));
    }
    assert!(Objects::around(std::path::Path::new("/")).unwrap().is_none());
}

#[tokio::test]
async fn a_corrupt_cache_file_is_fetched_anew_and_named() {
    let repo = pushed();
    let cache_path = repo.fetch("data/a").await.unwrap().files[0].cache_path.clone();
    let spoil = || {
        fs::set_permissions(&cache_path, fs::Permissions::from_mode(0o644)).unwrap();
        fs::write(&cache_path, "rot").unwrap();
        fs::set_permissions(&cache_path, fs::Permissions::from_mode(0o444)).unwrap();
    };
    spoil();
    fs::remove_dir_all(repo.path("data")).unwrap();
    let fetched = repo.fetch("data").await.unwrap();
    assert_eq!((fetched.replaced.as_slice(), fetched.num_downloaded), ([cache_path.clone()].as_slice(), 1));
    assert_eq!((fs::read_to_string(&cache_path).unwrap(), mode(&cache_path)), ("one\n".to_owned(), 0o444));
    repo.assert_clean();
    // A listing too, which would otherwise be taken for a directory of nothing.
    let listing = repo.path(".dvc/cache/files/md5").join(listing_of(&repo));
    fs::remove_file(&listing).unwrap();
    fs::write(&listing, "[]").unwrap();
    fs::remove_dir_all(repo.path("data")).unwrap();
    assert_eq!(repo.fetch("data").await.unwrap().replaced, [listing]);

    spoil();
    fs::remove_dir_all(repo.path("data")).unwrap();
    fs::remove_dir_all(repo.remote()).unwrap();
    let error = repo.fetch("data/a").await.unwrap_err();
    let DvcError::CorruptCache { path, found, .. } = &error else { panic!("{error}") };
    assert_eq!((path, found.to_string().as_str()), (&cache_path, "0d3d238b089a67e34e39b5abf80db19b"));
    assert!(!repo.path("data/a").exists(), "what is corrupt does not get into the work tree");
}

#[test]
fn what_dvc_does_not_track_is_not_found() {
    let repo = Repo::new();
    repo.write("sub/plain", "x");
    for path in [repo.path("sub/plain"), repo.path("nowhere/x"), repo.root(), "/proc/self/maps".into()] {
        assert!(Tracked::find(&path).unwrap().is_none(), "{}", path.display());
    }
}
