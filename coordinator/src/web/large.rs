//! Large responses: bounds the memory of responses that wait for slow browsers.

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

/// Maximum size of a response without a permit, in bytes; also the size of the pieces of a larger one.
const SMALL_BYTES: usize = 64 << 10;

/// Total size of all larger responses, in units of [`SMALL_BYTES`]: 128 MiB.
const UNITS: usize = 2048;

/// Time in which a browser must receive [`SMALL_BYTES`]: about 2 KB/s.
const IDLE: Duration = Duration::from_secs(30);

/// Maximum number of simultaneous responses that are collected from many parts: jobs of all runs, logs.
const GATHERED: usize = 16;

/// Permits for large responses. Clones share them.
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
    /// Waits for a permit for a response that is collected from many parts.
    ///
    /// # Errors
    /// `Unavailable` at shutdown.
    pub(super) async fn permit(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.gathered)
            .acquire_owned()
            .await
            .map_err(|_| Status::unavailable("the coordinator is shutting down"))
    }

    /// A response with `bytes`; or 503 if the total size of large responses would exceed the limit.
    pub(super) fn answer(&self, kind: &'static str, bytes: impl Into<Bytes>) -> Response {
        let bytes = bytes.into();
        if bytes.len() <= SMALL_BYTES {
            return ([(CONTENT_TYPE, kind)], bytes).into_response();
        }
        // A response that is larger than the limit takes all permits.
        let units = bytes.len().div_ceil(SMALL_BYTES).min(UNITS);
        let Ok(room) = Arc::clone(&self.room).try_acquire_many_owned(u32::try_from(units).unwrap_or(u32::MAX)) else {
            let most = UNITS * SMALL_BYTES;
            let words =
                format!("too many large responses are in progress (at most {most} bytes in total): try again\n");
            return (StatusCode::SERVICE_UNAVAILABLE, words).into_response();
        };
        let (to, pieces) = mpsc::channel(1);
        tokio::spawn(send(bytes, room, self.idle, to));
        ([(CONTENT_TYPE, kind)], Body::from_stream(ReceiverStream::new(pieces))).into_response()
    }
}

/// Sends `bytes` to `to` until the browser has received them, is gone, or receives nothing for `idle`.
async fn send(mut bytes: Bytes, room: OwnedSemaphorePermit, idle: Duration, to: mpsc::Sender<Result<Bytes, Status>>) {
    while !bytes.is_empty() {
        // Copied, so that a queued piece does not keep the rest of the response in memory.
        let piece = Bytes::copy_from_slice(&bytes.split_to(bytes.len().min(SMALL_BYTES)));
        match timeout(idle, to.send(Ok(piece))).await {
            Ok(Ok(())) => {}
            Ok(Err(_)) => break,
            Err(_) => {
                // An error instead of the end of the stream, which would look like a complete response.
                drop(bytes);
                drop(room);
                let _ =
                    to.send(Err(Status::deadline_exceeded("the browser did not receive the response in time"))).await;
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
        // A response that takes all permits, and that nobody receives.
        let stuck = large.answer("text/plain", vec![0; UNITS * SMALL_BYTES + 1]);
        let refused = large.answer("text/plain", whole.clone());
        assert_eq!(refused.status(), StatusCode::SERVICE_UNAVAILABLE);
        let words = to_bytes(refused.into_body(), usize::MAX).await.unwrap();
        assert_eq!(words, "too many large responses are in progress (at most 134217728 bytes in total): try again\n");
        assert_eq!(large.answer("text/plain", "small").status(), StatusCode::OK);
        let again = timeout(Duration::from_secs(10), Arc::clone(&large.room).acquire_many_owned(UNITS as u32));
        drop(again.await.expect("the permits are free again").unwrap());
        assert!(to_bytes(stuck.into_body(), usize::MAX).await.is_err(), "an aborted response is an error");
    }
}
