//! Errors of the event loop and the store as gRPC statuses.

use lockstep_common::chain;
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
            // Of no error of its own: a client that looks for something else by the same name must not go on.
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

impl From<StoreError> for Status {
    fn from(error: StoreError) -> Self {
        Self::data_loss(chain(&error))
    }
}
