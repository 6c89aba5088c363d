//! `coord tag` and `coord note`: what people write on a run. It changes nothing about it.

use lockstep_rpc::AnnotateRequest;

use super::args::{NoteArguments, TagArguments};
use super::client::Client;
use super::error::Failure;
use super::exit::Exit;
use super::prepare::new_request;

pub(super) async fn tag(arguments: TagArguments) -> Result<Exit, Failure> {
    let request =
        AnnotateRequest { tags: Some(lockstep_rpc::Tags { tags: arguments.tags }), ..annotate(arguments.run)? };
    Client::connect(&arguments.address.addr).await?.annotate(request).await?;
    Ok(Exit::Done)
}

pub(super) async fn note(arguments: NoteArguments) -> Result<Exit, Failure> {
    let request = AnnotateRequest { note: Some(arguments.text), ..annotate(arguments.run)? };
    Client::connect(&arguments.address.addr).await?.annotate(request).await?;
    Ok(Exit::Done)
}

fn annotate(run: String) -> Result<AnnotateRequest, Failure> {
    Ok(AnnotateRequest { request_id: new_request()?.to_string(), run, tags: None, note: None })
}
