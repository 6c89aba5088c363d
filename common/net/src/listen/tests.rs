//! Connections over loopback, with limits of milliseconds.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy, split};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{Limits, Port, Speaks};

const DEADLINE: Duration = Duration::from_secs(10);
const LONG: Duration = Duration::from_hours(1);
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A port that sends back all bytes.
async fn echo(speaks: Speaks, limits: Limits) -> (SocketAddr, super::permits::Permits) {
    let port = Port::open(SocketAddr::from(([127, 0, 0, 1], 0)), speaks, limits).await.unwrap();
    let (address, permits) = (port.address().unwrap(), port.permits());
    tokio::spawn(async move {
        loop {
            let (mut from, mut to) = split(port.accept().await);
            tokio::spawn(async move { copy(&mut from, &mut to).await });
        }
    });
    (address, permits)
}

/// Sends `words` and receives their echo.
async fn say(stream: &mut TcpStream, words: &[u8]) {
    stream.write_all(words).await.unwrap();
    let mut heard = vec![0; words.len()];
    timeout(DEADLINE, stream.read_exact(&mut heard)).await.unwrap().unwrap();
    assert_eq!(heard, words);
}

/// Waits until the other side has closed the connection.
async fn closed(mut stream: TcpStream) {
    // Bytes before the end do not matter; a reset counts as closed, too.
    let _ = timeout(DEADLINE, stream.read_to_end(&mut Vec::new())).await.expect("it is closed");
}

#[tokio::test]
async fn a_connection_whose_first_words_are_late_is_closed_and_one_that_spoke_stays() {
    let limits = Limits { greeting: Duration::from_millis(100), still: LONG, ..Limits::of(100) };
    let (address, permits) = echo(Speaks::Http2, limits).await;
    let mut spoken = TcpStream::connect(address).await.unwrap();
    say(&mut spoken, PREFACE).await;
    let silent = TcpStream::connect(address).await.unwrap();
    let mut half = TcpStream::connect(address).await.unwrap();
    say(&mut half, &PREFACE[..10]).await;
    closed(silent).await;
    closed(half).await;
    say(&mut spoken, b"still here").await;
    assert_eq!(permits.count(), 1);
}

#[tokio::test]
async fn a_connection_on_which_nothing_moves_is_closed_also_where_nobody_reads() {
    let limits = Limits { greeting: LONG, still: Duration::from_millis(300), ..Limits::of(100) };
    let (address, _) = echo(Speaks::Http2, limits).await;
    let mut idle = TcpStream::connect(address).await.unwrap();
    say(&mut idle, PREFACE).await;
    let mut busy = TcpStream::connect(address).await.unwrap();
    // This client sends, but does not read the echo, until the buffers of both sides are full.
    let (mut deaf, bytes) = (TcpStream::connect(address).await.unwrap(), vec![7; 1 << 20]);
    let deaf = tokio::spawn(async move { while deaf.write_all(&bytes).await.is_ok() {} });
    let idle = tokio::spawn(closed(idle));
    let both = async {
        while !(idle.is_finished() && deaf.is_finished()) {
            say(&mut busy, PREFACE).await;
            tokio::task::yield_now().await;
        }
    };
    timeout(DEADLINE, both).await.expect("both are closed");
    idle.await.unwrap();
    say(&mut busy, b"still here").await;
}

#[tokio::test]
async fn silent_connections_give_way_and_those_that_spoke_keep_their_places() {
    let limits = Limits { silent: 4, greeting: LONG, still: LONG, ..Limits::of(8) };
    for speaks in [Speaks::Http2, Speaks::Http1] {
        let (address, permits) = echo(speaks, limits).await;
        let mut spoken = Vec::new();
        for _ in 0..4 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            say(&mut stream, PREFACE).await;
            spoken.push(stream);
        }
        let mut silent = Vec::new();
        for _ in 0..40 {
            silent.push(TcpStream::connect(address).await.unwrap());
        }
        // A new client is served while all others stay connected.
        let mut newcomer = TcpStream::connect(address).await.unwrap();
        say(&mut newcomer, PREFACE).await;
        for stream in silent.drain(..36) {
            closed(stream).await;
        }
        assert!(permits.count() <= 8, "{}", permits.count());
        for stream in &mut spoken {
            say(stream, b"still here").await;
        }
        // No connection is silent now: new ones are rejected at once.
        drop(silent);
        while permits.count() < 8 {
            let mut stream = TcpStream::connect(address).await.unwrap();
            if timeout(DEADLINE, stream.write_all(PREFACE)).await.unwrap().is_ok()
                && timeout(DEADLINE, stream.read_exact(&mut [0; PREFACE.len()])).await.unwrap().is_ok()
            {
                spoken.push(stream);
            }
        }
        for stream in &mut spoken {
            say(stream, b"still here").await;
        }
    }
}
