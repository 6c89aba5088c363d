//! `coord tag` and `coord note`: tags and a note that describe a run, and change nothing else about it.

use lockstep_rpc::AnnotateRequest;

use crate::args::{NoteArguments, TagArguments};
use crate::connection::Client;
use crate::runs::prepare::new_request;
use crate::terminal::{Exit, Failure};

pub(crate) async fn tag(arguments: TagArguments) -> Result<Exit, Failure> {
    let request =
        AnnotateRequest { tags: Some(lockstep_rpc::Tags { tags: arguments.tags }), ..annotate(arguments.run)? };
    Client::connect(&arguments.address.addr).await?.annotate(request).await?;
    Ok(Exit::Done)
}

pub(crate) async fn note(arguments: NoteArguments) -> Result<Exit, Failure> {
    let request = AnnotateRequest { note: Some(arguments.text), ..annotate(arguments.run)? };
    Client::connect(&arguments.address.addr).await?.annotate(request).await?;
    Ok(Exit::Done)
}

fn annotate(run: String) -> Result<AnnotateRequest, Failure> {
    Ok(AnnotateRequest { request_id: new_request()?.to_string(), run, tags: None, note: None })
}
