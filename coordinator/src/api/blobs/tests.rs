//! Uploads and downloads, and their limits for slow clients and many clients.

use std::io;
use std::time::Duration;

use lockstep_common::Domain;
use lockstep_rpc::is_busy;
use tonic::Code;

use super::*;
use crate::identity::IdentityError;

/// A store below `dir`, without a reserve.
fn open(dir: &Path) -> Blobs {
    let store = dir.join("store");
    let identity = Identity::take(&store, dir, || Ok::<_, IdentityError>(Vec::new()), || Ok("id".into())).unwrap();
    Blobs::open(&store, identity, Reserve::new(&store, dir, 0)).unwrap()
}

#[test]
fn a_store_that_takes_nothing_is_told_from_stored_bytes_that_are_damaged() {
    let io = |action, kind: io::ErrorKind| {
        refusal(&BlobError::Io { action, path: "/store/tmp".into(), source: kind.into() }).code()
    };
    assert_eq!(io("write", io::ErrorKind::StorageFull), Code::ResourceExhausted);
    assert_eq!(io("make", io::ErrorKind::PermissionDenied), Code::ResourceExhausted);
    assert_eq!(io("read", io::ErrorKind::Other), Code::DataLoss);
}

#[tokio::test]
async fn a_truncated_blob_is_refused_with_both_lengths() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let piece = blobs.store.put(b"weights").unwrap();
    blobs.sees(&piece).await.unwrap();
    std::fs::write(blobs.store.local_path(&piece.digest), b"we").unwrap();
    let refused = blobs.sees(&piece).await.unwrap_err();
    assert_eq!(refused.code(), Code::DataLoss);
    assert!(refused.message().contains("is truncated: 2 bytes instead of 7"), "{}", refused.message());
    std::fs::write(blobs.store.local_path(&piece.digest), b"weights and more").unwrap();
    assert!(blobs.sees(&piece).await.unwrap_err().message().contains("is too long: 16 bytes instead of 7"));
    let other = Piece { digest: Domain::Blob.digest(b"other"), bytes: 5 };
    assert_eq!(blobs.sees(&other).await.unwrap_err().code(), Code::NotFound);
}

/// Downloads a blob. Returns the received bytes, and the error code at the end.
async fn received(blobs: &Blobs, piece: &Piece, offset: u64) -> (Vec<u8>, Option<Code>) {
    let (to, mut from) = mpsc::channel(1);
    let sending = tokio::spawn(blobs.clone().send(blobs.permit(None).unwrap(), piece.clone(), offset, to));
    let (mut bytes, mut end) = (Vec::new(), None);
    while let Some(chunk) = from.recv().await {
        match chunk {
            Ok(chunk) => bytes.extend(chunk.data),
            Err(status) => end = Some(status.code()),
        }
    }
    sending.await.unwrap();
    (bytes, end)
}

#[tokio::test]
async fn a_blob_is_hashed_on_the_way_and_one_that_has_changed_breaks_the_stream() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let mut whole: Vec<u8> = (0..2_500_000_u32).map(|index| index as u8).collect();
    let chunks = whole.chunks(700_000).map(|data| Ok(BlobChunk { data: data.to_vec() }));
    let piece = blobs.put(None, tokio_stream::iter(chunks.collect::<Vec<_>>())).await.unwrap();
    assert_eq!(received(&blobs, &piece, 0).await, (whole.clone(), None));
    assert_eq!(received(&blobs, &piece, 2_000_000).await, (whole[2_000_000..].to_vec(), None));
    assert_eq!(received(&blobs, &piece, u64::MAX).await, (Vec::new(), Some(Code::InvalidArgument)));
    whole[2_400_000] ^= 1;
    std::fs::write(blobs.store.local_path(&piece.digest), &whole).unwrap();
    let (bytes, end) = received(&blobs, &piece, 0).await;
    assert_eq!((bytes.len(), end), (whole.len(), Some(Code::DataLoss)));
    let broken = [Ok(BlobChunk { data: vec![1] }), Err(Status::cancelled("gone"))];
    assert_eq!(blobs.put(None, tokio_stream::iter(broken)).await.unwrap_err().code(), Code::Cancelled);
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "no file is left");
}

/// A user who can write to the store could place a link to a file that only the coordinator's user can read.
#[tokio::test]
async fn nothing_is_sent_of_what_a_link_in_the_place_of_a_blob_leads_to() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let piece = blobs.store.put(b"weights").unwrap();
    let path = blobs.store.local_path(&piece.digest);
    std::fs::remove_file(&path).unwrap();
    std::fs::write(dir.path().join("key"), "SECRETS").unwrap();
    std::os::unix::fs::symlink(dir.path().join("key"), &path).unwrap();
    for (bytes, offset) in [(7, 0), (7, 1), (1, 0)] {
        let of = Piece { bytes, ..piece.clone() };
        assert_eq!(received(&blobs, &of, offset).await, (Vec::new(), Some(Code::DataLoss)));
        let refused = blobs.sees(&of).await.unwrap_err();
        assert!(
            !refused.message().contains("7 bytes"),
            "the message tells the size of the file: {}",
            refused.message()
        );
    }
    assert_eq!(blobs.commit_of(piece).await.unwrap_err().code(), Code::DataLoss);
}

#[tokio::test]
async fn the_commit_of_a_work_tree_is_read_from_its_header_and_of_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let tree = |header: &str| {
        [b"lockstep work tree 1\n".to_vec(), (header.len() as u64).to_le_bytes().to_vec(), header.as_bytes().to_vec()]
            .concat()
    };
    let part = |path: &str| {
        format!(r#"{{"path":"{path}","url":null,"commit":"c0","tree":"t0","objects":3,"empty_directories":[]}}"#)
    };
    let whole = [tree(&format!("[{}]", part(""))), vec![1, 2, 3]].concat();
    let piece = blobs.store.put(&whole).unwrap();
    assert_eq!(blobs.commit_of(piece).await.unwrap(), "c0");
    let huge = [b"lockstep work tree 1\n".to_vec(), u64::MAX.to_le_bytes().to_vec()].concat();
    for other in [b"".to_vec(), b"text".to_vec(), tree("["), tree("[]"), tree(&format!("[{}]", part("sub"))), huge] {
        let piece = blobs.store.put(&other).unwrap();
        let refused = blobs.commit_of(piece).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{other:?}");
        assert!(refused.message().starts_with("field `code.tree`: "), "{}", refused.message());
    }
}

/// At least one byte in 200 ms.
const PACE: Pace = Pace::new(Duration::from_millis(200), 1);

#[tokio::test]
async fn a_stream_that_stands_still_ends_and_there_are_only_so_many_at_a_time() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = Blobs { pace: PACE, ..open(dir.path()) };
    let piece = blobs.store.put(&vec![7; 4 * SENT_BYTES]).unwrap();
    // A silent upload.
    let silent = tokio_stream::once(Ok(BlobChunk { data: vec![1] })).chain(tokio_stream::pending());
    assert_eq!(blobs.put(None, silent).await.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "no file is left");
    // A download that nobody reads.
    let (to, mut from) = mpsc::channel(1);
    blobs.clone().send(blobs.permit(None).unwrap(), piece, 0, to).await;
    assert!(from.recv().await.unwrap().is_ok() && from.recv().await.is_none());
    // All permits are taken.
    let permits: Vec<Permit> = (0..UPLOADS).map(|_| blobs.uploads.take(None).unwrap()).collect();
    let whole = || tokio_stream::once(Ok(BlobChunk { data: vec![1] }));
    let refused = blobs.put(None, whole()).await.unwrap_err();
    assert_eq!(
        (refused.code(), refused.message()),
        (Code::Unavailable, "128 uploads are in progress, which is the maximum: try again")
    );
    drop(permits);
    blobs.put(None, whole()).await.unwrap();
    let permits: Vec<Permit> = (0..READERS).map(|_| blobs.permit(None).unwrap()).collect();
    assert!(is_busy(&blobs.permit(None).unwrap_err()));
    blobs.of_page().permit(None).unwrap();
    drop(permits);
    let piece = blobs.store.put(b"weights").unwrap();
    assert_eq!(received(&blobs, &piece, 0).await, (b"weights".to_vec(), None));
}

/// Empty chunks would hold a permit for ever without any progress.
#[tokio::test]
async fn empty_chunks_and_few_bytes_hold_no_place() {
    let dir = tempfile::tempdir().unwrap();
    let blobs = open(dir.path());
    let chunks = |lengths: &[usize]| {
        let chunks: Vec<_> = lengths.iter().map(|length| Ok(BlobChunk { data: vec![1; *length] })).collect();
        tokio_stream::iter(chunks)
    };
    for lengths in [&[0, 0][..], &[3, 0], &[3, 0, 3]] {
        let refused = blobs.put(None, chunks(lengths)).await.unwrap_err();
        assert_eq!(
            (refused.code(), refused.message()),
            (Code::InvalidArgument, "field `data`: a chunk after the first is empty"),
            "{lengths:?}"
        );
    }
    let empty = Domain::Blob.digest(b"");
    for lengths in [&[][..], &[0]] {
        assert_eq!(blobs.put(None, chunks(lengths)).await.unwrap(), Piece { digest: empty, bytes: 0 });
    }
    assert_eq!(blobs.put(None, chunks(&[0, 3])).await.unwrap().bytes, 3);
    // A steady upload below the minimum rate.
    let slow = Blobs { pace: Pace::new(Duration::from_millis(200), 1 << 20), ..blobs };
    let dripping = tokio_stream::iter(std::iter::repeat_with(|| Ok(BlobChunk { data: vec![1] })));
    let dripping = dripping.throttle(Duration::from_millis(5));
    let ended = timeout(Duration::from_secs(10), slow.put(None, Box::pin(dripping))).await.expect("it ends");
    assert_eq!(ended.unwrap_err().code(), Code::DeadlineExceeded);
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "no file is left");
}

#[tokio::test]
async fn an_upload_is_refused_when_it_reaches_the_reserve_of_the_logs_disk() {
    let dir = tempfile::tempdir().unwrap();
    let opened = open(dir.path());
    let whole = Reserve::whole(&dir.path().join("store"), dir.path());
    let full = Blobs { reserve: whole, ..opened.clone() };
    let chunk = || tokio_stream::once(Ok(BlobChunk { data: vec![1; 100] }));
    let refused = full.put(None, chunk()).await.unwrap_err();
    assert_eq!(refused.code(), Code::ResourceExhausted);
    for part in ["the disk of the store", "/store` is almost full: ", "MB are reserved", "`limits.disk_reserve`"] {
        assert!(refused.message().contains(part), "{part}: {}", refused.message());
    }
    assert_eq!(std::fs::read_dir(dir.path().join("store/tmp")).unwrap().count(), 0, "no file is left");
    opened.put(None, chunk()).await.unwrap();
}
