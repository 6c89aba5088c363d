//! Transfers: they wait for a free place, leave nothing behind if they fail, and verify the received bytes.

use std::future::pending;
use std::mem::ManuallyDrop;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use lockstep_coordinator::serve::start;
use lockstep_coordinator::settings::Settings;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot::{Receiver, Sender, channel};
use tokio::time::timeout;

use super::*;

const DEADLINE: Duration = Duration::from_secs(20);

/// Opens uploads that never end, on a new connection.
async fn hold(address: &str, uploads: usize) -> (JoinSet<Result<(), Status>>, Vec<mpsc::Sender<BlobChunk>>) {
    let mut client = Client::connect(address).await.unwrap();
    let (mut held, mut senders) = (JoinSet::new(), Vec::new());
    for _ in 0..uploads {
        let (to, chunks) = mpsc::channel(1);
        to.send(BlobChunk { data: vec![7] }).await.unwrap();
        senders.push(to);
        let mut control = client.control().clone();
        held.spawn(async move { control.put_blob(ReceiverStream::new(chunks)).await.map(drop) });
    }
    (held, senders)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_connection_has_some_places_and_who_finds_none_waits_for_one() {
    let dir = tempfile::tempdir().unwrap();
    // Otherwise a failing test would wait for the coordinator's end.
    let running = ManuallyDrop::new(start(&Settings::embedded(dir.path())).await.unwrap());
    let address = running.address().to_string();
    // One more than a connection may have.
    let (mut greedy, senders) = hold(&address, 17).await;
    let refused = timeout(DEADLINE, greedy.join_next()).await.expect("one is refused").unwrap().unwrap();
    let refused = refused.unwrap_err();
    assert!(is_busy(&refused) && refused.message().starts_with("16 uploads of this connection"), "{refused}");
    let other = Client::connect(&address).await.unwrap();
    assert!(timeout(DEADLINE, other.put_blob(b"mine".to_vec())).await.expect("another has a place").unwrap());
    // Now all places are taken.
    let mut others = Vec::new();
    for _ in 0..7 {
        others.push(hold(&address, 16).await);
    }
    let full = async {
        loop {
            let mut last = hold(&address, 1).await;
            if let Ok(refused) = timeout(Duration::from_millis(100), last.0.join_next()).await {
                return refused.unwrap().unwrap().unwrap_err();
            }
            // It has one, too.
            others.push(last);
        }
    };
    let refused = timeout(DEADLINE, full).await.expect("all places are taken");
    assert!(refused.message().starts_with("128 uploads are in progress"), "{refused}");
    let mut waiting = tokio::spawn(async move { other.put_blob(b"late".to_vec()).await });
    assert!(timeout(Duration::from_millis(200), &mut waiting).await.is_err(), "it waits");
    drop((greedy, senders, others));
    assert!(timeout(DEADLINE, waiting).await.expect("it gets a place").unwrap().unwrap());
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}

/// Fails as soon as the other transfer writes, or writes until it is cancelled.
async fn transfer(wait: Option<Receiver<()>>, begun: Option<Sender<()>>, _writing: Arc<()>) -> Result<(), Failure> {
    if let Some(wait) = wait {
        wait.await.unwrap();
    } else {
        begun.unwrap().send(()).unwrap();
        pending::<()>().await;
    }
    Err(Failure::new(Exit::Local, "no"))
}

/// On one thread, a task that was only told to end would still exist.
#[tokio::test]
async fn when_one_transfer_fails_the_others_have_ended() {
    let (begun, wait) = channel();
    let writing = Arc::new(());
    let both = [transfer(Some(wait), None, writing.clone()), transfer(None, Some(begun), writing.clone())];
    assert!(at_once(both.into_iter()).await.is_err());
    assert_eq!(Arc::strong_count(&writing), 1, "it could still write to a directory that is being removed");
}

/// Contents of the blob that [`relay`] changes. Nothing else on a connection has so many equal bytes in a row.
const HONEST: [u8; 4096] = [0xf6; 4096];
/// Bytes at its beginning that [`relay`] leaves unchanged.
const LEFT: usize = 64;

/// Starts a relay to `coordinator` that changes [`HONEST`] in answers, and returns its address.
async fn relay(coordinator: SocketAddr) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let (mut from_client, mut to_client) = client.into_split();
            let (mut answers, mut requests) = TcpStream::connect(coordinator).await.unwrap().into_split();
            tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut requests).await });
            tokio::spawn(async move {
                let (mut bytes, mut alike) = (vec![0; 1 << 16], 0);
                while let Ok(read @ 1..) = answers.read(&mut bytes).await {
                    for byte in &mut bytes[..read] {
                        alike = if *byte == HONEST[0] { alike + 1 } else { 0 };
                        *byte ^= u8::from(alike > LEFT);
                    }
                    if to_client.write_all(&bytes[..read]).await.is_err() {
                        break;
                    }
                }
            });
        }
    });
    address
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_coordinator_tells_of_a_blob_is_checked_here_too() {
    let dir = tempfile::tempdir().unwrap();
    let running = ManuallyDrop::new(start(&Settings::embedded(dir.path())).await.unwrap());
    let mut honest = Client::connect(&running.address().to_string()).await.unwrap();
    let piece = Piece { digest: Domain::Blob.digest(&HONEST), bytes: HONEST.len() as u64 };
    assert!(honest.put_blob(HONEST.to_vec()).await.unwrap());
    assert_eq!(honest.blob(&piece).await.unwrap(), HONEST);

    let mut lied_to = Client::connect(&relay(running.address()).await).await.unwrap();
    let failure = lied_to.blob(&piece).await.unwrap_err();
    let words = format!("blob `{}` arrived with wrong bytes", piece.digest);
    assert!(failure.exit() == Exit::Damaged && failure.render().contains(&words), "{}", failure.render());
    // A blob that is fetched into a store gets its name only if its digest is right.
    let store = dir.path().join("fetched");
    let failure = lied_to.fetch(std::slice::from_ref(&piece), &store).await.unwrap_err();
    assert!(failure.exit() == Exit::Damaged && failure.render().contains("is corrupt"), "{}", failure.render());
    assert!(!BlobStore::open(&store).unwrap().has(&piece));
    honest.fetch(std::slice::from_ref(&piece), &store).await.unwrap();
    assert_eq!(BlobStore::open(&store).unwrap().get(&piece).unwrap(), HONEST);
    drop((honest, lied_to));
    ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
}
