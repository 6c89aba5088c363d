//! Remotes that are servers.

use std::fs;

use lockstep_dvc::DvcError;

use crate::repo::{Repo, chain};
use crate::servers;

/// More than one chunk of a stream, and not of one kind of bytes.
fn large() -> Vec<u8> {
    (0..3_000_000_u32).flat_map(|i| i.wrapping_mul(2_654_435_761).to_le_bytes()).collect()
}

fn filled() -> Repo {
    let repo = Repo::new();
    repo.write("data/ü 1", "one\n");
    repo.write("data/sub/large", large());
    repo.write("data/empty", "");
    repo.dvc(&["add", "-q", "data"]);
    repo
}

async fn fetch_all(repo: &Repo) {
    repo.lose(&["data"]);
    let fetched = repo.fetch("data").await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    assert_eq!((fetched.num_downloaded, fetched.num_written), (4, 3));
    assert!(fetched.bytes_downloaded > 12_000_000, "{}", fetched.bytes_downloaded);
    assert!(fs::read(repo.path("data/sub/large")).unwrap() == large());
    repo.assert_clean();
    assert_eq!(repo.dvc(&["status", "-c"]).trim(), "Cache and remote 'store' are in sync.");
}

#[tokio::test]
async fn over_http() {
    let repo = filled();
    repo.dvc(&["push", "-q"]);
    let top = repo.remote().parent().unwrap().to_owned();
    let server = servers::http(&top);
    repo.write(".dvc/config.local", format!("['remote \"store\"']\nurl = {}/remote/\n", server.url));
    fetch_all(&repo).await;

    repo.lose(&["data"]);
    fs::rename(repo.remote(), top.join("away")).unwrap();
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(&error, DvcError::MissingObject { object, .. } if object.starts_with(&server.url)), "{error}");
    // `remote://` stands on another remote.
    let keys = format!("['remote \"base\"']\nurl = {}\n['remote \"store\"']\nurl = remote://base/away\n", server.url);
    repo.write(".dvc/config.local", keys);
    fetch_all(&repo).await;
    // A server that has nothing to say is an error with its cause.
    repo.lose(&["data"]);
    let url = server.url.clone();
    drop(server);
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::Remote { .. }), "{error}");
    assert!(error.to_string().contains(&url), "{error}");
}

#[tokio::test]
async fn over_https_from_whom_the_repository_trusts() {
    let repo = Repo::new();
    repo.write("a", "one\n");
    repo.dvc(&["add", "-q", "a"]);
    repo.dvc(&["push", "-q"]);
    repo.lose(&["a"]);
    let top = repo.remote().parent().unwrap().to_owned();
    let server = servers::https(&top);
    let config = format!("['remote \"store\"']\nurl = {}/remote\nssl_verify = ", server.url);
    repo.write(".dvc/config.local", format!("{config}true\n"));
    let error = repo.fetch("a").await.unwrap_err();
    assert!(matches!(error, DvcError::Remote { .. }), "{error}");
    assert!(!repo.path("a").exists());
    for trusted in [top.join("ca.pem").to_str().unwrap(), "false"] {
        repo.lose(&["a"]);
        repo.write(".dvc/config.local", format!("{config}{trusted}\n"));
        repo.fetch("a").await.unwrap_or_else(|error| panic!("{}", chain(&error)));
    }
    repo.assert_clean();
}

#[tokio::test]
async fn from_s3() {
    let repo = filled();
    let place = tempfile::tempdir().unwrap();
    let server = servers::s3(place.path());
    let keys = servers::s3_remote(&server);
    repo.write(".dvc/config.local", format!("['remote \"store\"']\n{keys}"));
    repo.dvc(&["push", "-q"]);
    fetch_all(&repo).await;

    repo.write("data/new", "never pushed\n");
    repo.dvc(&["add", "-q", "data"]);
    repo.lose(&["data"]);
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(&error, DvcError::MissingObject { remote, .. } if remote == "store"), "{error}");
    // Wrong keys are not taken for a missing object.
    repo.write(".dvc/config.local", format!("['remote \"store\"']\n{}", keys.replace("-secret", "-other")));
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::Remote { .. }), "{error}");
    // Keys may be in AWS's own file.
    let credentials = "[team]\naws_access_key_id = lockstep\naws_secret_access_key = lockstep-secret\n";
    repo.write(".aws", credentials);
    let keys: Vec<_> = keys.lines().filter(|line| !line.contains("_key")).collect();
    let keys = format!("['remote \"store\"']\n{}\ncredentialpath = ../.aws\nprofile = team\n", keys.join("\n"));
    repo.write(".dvc/config.local", keys);
    let error = repo.fetch("data").await.unwrap_err();
    assert!(matches!(error, DvcError::MissingObject { .. }), "{}", chain(&error));
}
