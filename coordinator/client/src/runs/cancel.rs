//! `coord cancel`.

use lockstep_rpc::CancelRequest;

use crate::args::CancelArguments;
use crate::connection::Client;
use crate::runs::prepare::new_request;
use crate::terminal::{Exit, Failure, Output};

pub(crate) async fn cancel(arguments: CancelArguments, out: &mut Output) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let run = client.cancel(CancelRequest { request_id: new_request()?.to_string(), run: arguments.run }).await?;
    out.line(&format!("cancelled {run}"));
    Ok(Exit::Done)
}
