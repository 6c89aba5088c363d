//! `coord fence`, `coord unfence` and `coord node remove`.

use lockstep_rpc::{FenceRequest, RemoveNodeRequest};

use super::args::{FenceArguments, NodeRemoveArguments};
use super::client::Client;
use super::error::Failure;
use super::exit::Exit;
use super::prepare::new_request;

pub(super) async fn fence(arguments: FenceArguments, fenced: bool) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let FenceArguments { node, device, .. } = arguments;
    let request_id = new_request()?.to_string();
    client.fence(FenceRequest { request_id, node, device: device.unwrap_or_default(), fenced }).await?;
    Ok(Exit::Done)
}

pub(super) async fn remove(arguments: NodeRemoveArguments) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let request_id = new_request()?.to_string();
    client.remove_node(RemoveNodeRequest { request_id, node: arguments.node }).await?;
    Ok(Exit::Done)
}
