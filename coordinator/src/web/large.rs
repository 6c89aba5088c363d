//! Answers that are too large to be held for each browser that does not take them.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

/// Bytes of an answer that are held for anybody; also what a browser takes at a time of a larger one.
const SMALL_BYTES: usize = 64 << 10;

/// What larger answers may have together, in units of [`SMALL_BYTES`]: 128 MiB.
const UNITS: usize = 2048;

/// Time in which a browser takes [`SMALL_BYTES`]: two kilobytes in a second.
const IDLE: Duration = Duration::from_secs(30);

/// Answers that are made at a time of what must be gathered first: jobs of all runs, logs.
const GATHERED: usize = 16;

/// Room for large answers. A clone is the same.
#[derive(Clone, Debug)]
pub(super) struct Large {
    room: Arc<Semaphore>,
    gathered: Arc<Semaphore>,
    idle: Duration,
}

impl Default for Large {
    fn default() -> Self {
        Self { room: Arc::new(Semaphore::new(UNITS)), gathered: Arc::new(Semaphore::new(GATHERED)), idle: IDLE }
    }
}

impl Large {
    /// A permit for an answer that must be gathered; whoever comes later waits.
    ///
    /// # Errors
    /// `Unavailable` at the end.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.gathered).acquire_owned().await.map_err(|_| Status::unavailable("it is shutting down"))
    }

    /// `bytes` as an answer; refused in words if too many are on their way to others.
    pub(super) fn answer(&self, kind: &'static str, bytes: impl Into<Bytes>) -> Response {
        let bytes = bytes.into();
        if bytes.len() <= SMALL_BYTES {
            return ([(CONTENT_TYPE, kind)], bytes).into_response();
        }
        // One that is larger than the room has all of it.
        let units = bytes.len().div_ceil(SMALL_BYTES).min(UNITS);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)) else {
            let most = UNITS * SMALL_BYTES;
            let words = format!("browsers have {most} bytes of answers on their way already: try again\n");
            return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
        };
        let (to, pieces) = mpsc::channel(1);
        tokio::spawn(send(bytes, room, self.idle, to));
        ([(CONTENT_TYPE, kind)], Body::from_stream(ReceiverStream::new(pieces))).into_response()
    }
}

/// Sends `bytes` into `to` until the browser has them, is gone, or takes nothing for `idle`.
async fn send(mut bytes: Bytes, room: OwnedSemaphorePermit, idle: Duration, to: mpsc::Sender<Result<Bytes, Status>>) {
    while !bytes.is_empty() {
        // A copy: what waits in the connection keeps nothing of the rest.
        let piece = Bytes::copy_from_slice(&bytes.split_to(bytes.len().min(SMALL_BYTES)));
        match timeout(idle, to.send(Ok(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => {
                // Not to be taken for the end of the answer.
                drop(bytes);
                drop(room);
                let _ = to.send(Err(Status::deadline_exceeded("the answer was not taken in time"))).await;
                return;
            }
        }
    }
    drop(room);
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;

    use super::*;

    #[tokio::test]
    async fn large_answers_have_room_together_which_one_that_is_not_taken_gives_back() {
        let large = Large { idle: Duration::from_millis(50), ..Large::default() };
        let whole = vec![7; 10 * SMALL_BYTES + 3];
        let answer = large.answer("text/plain", whole.clone());
        assert_eq!(to_bytes(answer.into_body(), usize::MAX).await.unwrap(), whole);
        // One that has all the room, and that nobody takes.
        let stuck = large.answer("text/plain", vec![0; UNITS * SMALL_BYTES + 1]);
        let refused = large.answer("text/plain", whole.clone());
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let words = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
        assert_eq!(words, "browsers have 134217728 bytes of answers on their way already: try again\n");
        assert_eq!(large.answer("text/plain", "small").status(), StatusCode::OK);
        let again = timeout(Duration::from_secs(10), Arc::clone(&large.room).acquire_many_owned(UNITS as u32));
        drop(again.await.expect("the room comes back").unwrap());
        assert!(to_bytes(stuck.into_body(), usize::MAX).await.is_err(), "it is not taken for a whole one");
    }
}
