//! Errors of the event loop and the store as gRPC statuses.

use std::borrow::Cow;

use axum::response::Response;
use lockstep_common::{chain, shortened};
use lockstep_core::Refusal;
use lockstep_core::replica::ProposeError;
use lockstep_core::state::NotFound;
use lockstep_rpc::busy;
use tonic::Status;

use crate::node::CallError;
use crate::store::StoreError;

impl From<CallError> for Status {
    fn from(error: CallError) -> Self {
        let words = error.to_string();
        match error {
            CallError::Refused(Refusal::Job(_) | Refusal::Annotation(_))
            | CallError::Propose(ProposeError::TooLarge { .. }) => Self::invalid_argument(words),
            CallError::Refused(
                Refusal::NoRun(_)
                | Refusal::NoCheckpoint(_)
                | Refusal::NoDevice(_)
                | Refusal::NoNode(_)
                | Refusal::NoData(_),
            )
            | CallError::NotFound(NotFound::Nothing { .. }) => Self::not_found(words),
            // A code of its own: a client that tries a name as several kinds must stop here, instead of trying the next kind.
            CallError::NotFound(NotFound::NotUnique { .. }) => Self::out_of_range(words),
            CallError::Refused(
                Refusal::Ended { .. }
                | Refusal::OutOfOrder { .. }
                | Refusal::NoProcess { .. }
                | Refusal::NotItsAgent { .. }
                | Refusal::NodeTaken { .. }
                | Refusal::NodeThere { .. }
                | Refusal::NodeFenced(_)
                | Refusal::Replay { .. }
                | Refusal::RequestTaken { .. }
                | Refusal::RequestUsed(_)
                | Refusal::TooManyNodes(_)
                | Refusal::NothingLeft { .. },
            ) => Self::failed_precondition(words),
            CallError::Propose(ProposeError::Busy) => busy(words),
            CallError::Propose(ProposeError::NotLeader { .. } | ProposeError::Indeterminate)
            | CallError::Stopping
            | CallError::NotConnected(_)
            | CallError::Entropy => Self::unavailable(words),
        }
    }
}

/// Header with the message of a status.
const GRPC_MESSAGE: &str = "grpc-message";

/// Shortens the message of a status, which may quote a client's input. Clients cannot read a header that is too long.
pub(crate) async fn shorten(mut response: Response) -> Response {
    let headers = response.headers_mut();
    if headers.get(GRPC_MESSAGE).is_some()
        && let Some(status) = Status::from_header_map(headers)
        && let Cow::Owned(words) = shortened(status.message())
    {
        // Replaces only the code and the message. A shortened message can always be encoded.
        let _ = Status::new(status.code(), words).add_header(headers);
    }
    response
}

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::data_loss(chain(&error))
    }
}

#[cfg(test)]
mod tests {
    use std::mem::ManuallyDrop;

    use axum::body::Body;
    use lockstep_rpc::control_client::ControlClient;
    use lockstep_rpc::{SubmitRequest, busy, is_busy};
    use tonic::Code;

    use super::*;
    use crate::serve::start;
    use crate::settings::Settings;

    #[tokio::test]
    async fn long_words_are_cut_and_code_and_marks_stay() {
        let answered = async |status: Status| {
            let response = shorten(status.into_http::<Body>().map(Body::new)).await;
            Status::from_header_map(response.headers()).unwrap()
        };
        let long = answered(busy("é".repeat(500_000))).await;
        assert!(long.code() == Code::Unavailable && is_busy(&long));
        assert_eq!(long.message(), format!("{}[..]", "é".repeat(1024)));
        assert_eq!(answered(Status::not_found("no `x`")).await.message(), "no `x`");
    }

    /// A client cannot read a header of 900 kB.
    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn a_job_with_a_huge_key_is_refused_in_words_that_arrive() {
        let dir = tempfile::tempdir().unwrap();
        // Not dropped if the test fails, because dropping waits for the coordinator's end.
        let running = ManuallyDrop::new(start(&Settings::embedded(dir.path())).await.unwrap());
        let mut client = ControlClient::connect(format!("http://{}", running.address())).await.unwrap();
        let job = format!("{{\"{}\":1}}", "k".repeat(900_000)).into_bytes();
        let request =
            SubmitRequest { request_id: "1".repeat(32), job, base_dir: "/x".into(), ..SubmitRequest::default() };
        let refused = client.submit(request).await.unwrap_err();
        assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
        let words = refused.message();
        assert!(words.starts_with("field `job`: not a valid job: unknown field `kkk") && words.len() < 4096, "{words}");
        drop(client);
        ManuallyDrop::into_inner(running).until(async {}).await.unwrap();
    }
}
