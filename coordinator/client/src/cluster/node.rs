//! `coord fence`, `coord unfence` and `coord node remove`.

use lockstep_rpc::{FenceRequest, RemoveNodeRequest};

use crate::args::{FenceArguments, NodeRemoveArguments};
use crate::connection::Client;
use crate::runs::prepare::new_request;
use crate::terminal::{Exit, Failure};

pub(crate) async fn fence(arguments: FenceArguments, fenced: bool) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let FenceArguments { node, device, .. } = arguments;
    let request_id = new_request()?.to_string();
    client.fence(FenceRequest { request_id, node, device: device.unwrap_or_default(), fenced }).await?;
    Ok(Exit::Done)
}

pub(crate) async fn remove(arguments: NodeRemoveArguments) -> Result<Exit, Failure> {
    let client = Client::connect(&arguments.address.addr).await?;
    let request_id = new_request()?.to_string();
    client.remove_node(RemoveNodeRequest { request_id, node: arguments.node }).await?;
    Ok(Exit::Done)
}
