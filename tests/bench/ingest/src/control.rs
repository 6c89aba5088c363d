//! Client requests over gRPC.

use lockstep_common::job::parse_toml;
use lockstep_net::Dialer;
use lockstep_rpc::control_client::ControlClient;
use lockstep_rpc::query_request::What;
use lockstep_rpc::{AnnotateRequest, CancelRequest, DataFile, QueryRequest, ResumeRequest, SubmitRequest, Tags};
use serde_json::Value;
use tonic::transport::Channel;

use crate::failure::Failure;

pub(crate) async fn connect(address: &str) -> Result<ControlClient<Channel>, Failure> {
    let dialer =
        Dialer::to(address).ok_or_else(|| format!("the coordinator printed `{address}`, which is not an address"))?;
    Ok(ControlClient::new(dialer.connect().await?))
}

/// A client that numbers its requests.
pub(crate) struct Client {
    control: ControlClient<Channel>,
    last: u128,
}

impl Client {
    /// Connects; request ids count up from `last` + 1, and must be unique for the coordinator.
    pub(crate) async fn connect(address: &str, last: u128) -> Result<Self, Failure> {
        Ok(Self { control: connect(address).await?.max_decoding_message_size(usize::MAX), last })
    }

    fn request(&mut self) -> String {
        self.last += 1;
        format!("{:032x}", self.last)
    }

    /// Submits a job with one rank for each process and a checkpoint every `every` steps; returns the run's id.
    pub(crate) async fn submit(
        &mut self,
        name: &str,
        processes: u32,
        steps: u64,
        every: u64,
    ) -> Result<String, Failure> {
        let text = format!(
            "name = \"{name}\"\nsteps = {steps}\nranks = {processes}\nbatch = {{ size = {processes} }}\n\
             world = {{ min_processes = {processes} }}\ncheckpoint = {{ every_steps = {every} }}\n\
             model = {{ kind = \"mlp\", hidden = [4], outputs = 2 }}\n\
             data = {{ kind = \"csv\", path = \"data.csv\", target = \"y\" }}\n\
             optimizer = {{ kind = \"sgd\", lr = 0.1 }}\n"
        );
        let request = SubmitRequest {
            request_id: self.request(),
            job: parse_toml(&text, &[])?.canonical(),
            base_dir: "/srv/experiments/bench".to_owned(),
            data: vec![DataFile { path: "data.csv".to_owned(), bytes: 20, digest: vec![7; 32] }],
            ..SubmitRequest::default()
        };
        Ok(self.control.submit(request).await?.into_inner().run)
    }

    /// Resumes from a checkpoint; returns the new run's id.
    pub(crate) async fn resume(&mut self, checkpoint: &str) -> Result<String, Failure> {
        let (request_id, checkpoint) = (self.request(), checkpoint.to_owned());
        let request = ResumeRequest { request_id, checkpoint, ..ResumeRequest::default() };
        Ok(self.control.resume(request).await?.into_inner().run)
    }

    pub(crate) async fn cancel(&mut self, run: &str) -> Result<(), Failure> {
        let (request_id, run) = (self.request(), run.to_owned());
        self.control.cancel(CancelRequest { request_id, run }).await?;
        Ok(())
    }

    pub(crate) async fn tag(&mut self, run: &str, tag: String) -> Result<(), Failure> {
        let (request_id, run, tags) = (self.request(), run.to_owned(), Some(Tags { tags: vec![tag] }));
        self.control.annotate(AnnotateRequest { request_id, run, tags, note: None }).await?;
        Ok(())
    }

    /// The document that answers `what`.
    pub(crate) async fn ask(&mut self, what: What) -> Result<Value, Failure> {
        let answer = self.control.query(QueryRequest { what: Some(what) }).await?;
        Ok(serde_json::from_str(&answer.into_inner().json)?)
    }
}
