//! The gRPC service for clients.

use std::collections::BTreeMap;

use lockstep_common::Digest;
use lockstep_common::manifest::{CodeVersion, DataFile, Manifest, Piece};
use lockstep_core::command::Original;
use lockstep_core::state::Replay;
use lockstep_rpc::control_server;
use lockstep_rpc::{
    AnnotateRequest, BlobChunk, BlobRef, CancelRequest, Empty, FenceRequest, FollowRequest, GetBlobRequest,
    HasBlobReply, JsonReply, LogChunk, LogsRequest, QueryRequest, RemoveNodeRequest, ReplayRequest, ReportsRequest,
    ResumeRequest, RunReply, StoredBlock, SubmitRequest,
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};
use tracing::info;

use super::STREAM_QUEUE;
use super::blobs::Blobs;
use super::convert::{invalid, request_id, run_id, text};
use super::followers::Followers;
use super::submission::{accepted, all_of, base_dir, code, data, job};
use super::{logs, reports};
use crate::node::{CallError, Handle};
use crate::query::Answers;
use crate::store::BlockReader;

/// The gRPC service for clients. Clones share its limits.
#[derive(Clone, Debug)]
pub struct Control {
    handle: Handle,
    reader: BlockReader,
    blobs: Blobs,
    answers: Answers,
    followers: Followers,
    stop: CancellationToken,
}

impl Control {
    /// The service. Its streams end when `stop` is cancelled.
    pub(crate) fn new(answers: Answers, reader: BlockReader, blobs: Blobs, stop: CancellationToken) -> Self {
        let handle = answers.handle().clone();
        let followers = Followers::new(handle.clone(), answers.runs().clone(), stop.clone());
        Self { handle, reader, blobs, answers, followers, stop }
    }

    /// The checkpoint with this id or unique prefix, and its manifest. Checks that the store has all its blobs, so that a damaged
    /// checkpoint is rejected before processes are placed.
    async fn checked(&self, prefix: &str) -> Result<(Digest, Manifest), Status> {
        let (id, manifest) = self.answers.manifests().find(prefix).await?;
        Ok((id, self.blobs.check(manifest).await?))
    }

    /// Checks that the store has the work tree of `code`, and that the tree is based on the commit of `code`.
    async fn check_code(&self, code: Option<&CodeVersion>) -> Result<(), Status> {
        let Some(code) = code else { return Ok(()) };
        for piece in code.tree.iter().chain(&code.source) {
            if !self.blobs.has(piece.clone()).await? {
                return Err(invalid("code", format!("blob `{}` is not in the store: upload it first", piece.digest)));
            }
        }
        let Some(tree) = &code.tree else { return Ok(()) };
        let (commit, built_on) = (&code.commit, self.blobs.commit_of(tree.clone()).await?);
        if *commit != built_on {
            let words = format!("the stored work tree is based on commit `{built_on}`, not on `{commit}`");
            return Err(invalid("code.commit", words));
        }
        Ok(())
    }

    /// Checks that `data` matches the paths of the job, and that the store has the file lists of its directories.
    async fn check_data(&self, job: &str, data: &[DataFile]) -> Result<(), Status> {
        all_of(job, data)?;
        for directory in data.iter().filter(|file| file.is_directory()) {
            if !self.blobs.has(directory.piece()).await? {
                let words = format!("the file list of `{}` is not in the store: upload it first", directory.path);
                return Err(invalid("data", words));
            }
        }
        Ok(())
    }

    /// A stream that `produce` fills. It ends when `produce` does, or when the coordinator shuts down.
    fn stream<T, F, P>(&self, produce: P) -> Response<ReceiverStream<Result<T, Status>>>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
        P: FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
    {
        self.stream_of(STREAM_QUEUE, produce)
    }

    /// As [`Control::stream`], with up to `waiting` queued messages.
    fn stream_of<T, F, P>(&self, waiting: usize, produce: P) -> Response<ReceiverStream<Result<T, Status>>>
    where
        T: Send + 'static,
        F: Future<Output = ()> + Send + 'static,
        P: FnOnce(mpsc::Sender<Result<T, Status>>) -> F,
    {
        let (to, stream) = mpsc::channel(waiting);
        let (stop, last_word, work) = (self.stop.clone(), to.clone(), produce(to));
        tokio::spawn(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => {
                    // An error means that the client is gone.
                    let _ = last_word.send(Err(CallError::Stopping.into())).await;
                }
                () = work => {}
            }
        });
        Response::new(ReceiverStream::new(stream))
    }
}

#[tonic::async_trait]
impl control_server::Control for Control {
    type FollowStream = ReceiverStream<Result<JsonReply, Status>>;
    type ReportsStream = ReceiverStream<Result<StoredBlock, Status>>;
    type LogsStream = ReceiverStream<Result<LogChunk, Status>>;
    type GetBlobStream = ReceiverStream<Result<BlobChunk, Status>>;

    async fn submit(&self, request: Request<SubmitRequest>) -> Result<Response<RunReply>, Status> {
        let SubmitRequest { request_id: id, job: text_of_job, base_dir: dir, code: wire, data: files } =
            request.into_inner();
        let (id, job, base_dir) = (request_id(&id)?, job(text_of_job)?, base_dir(dir)?);
        let (code, data) = (code(wire)?, data(files)?);
        self.check_code(code.as_ref()).await?;
        self.check_data(&job, &data).await?;
        let run = self.handle.submit(id, job, base_dir, code, data).await?;
        info!(%run, "submitted");
        Ok(Response::new(RunReply { run: run.into() }))
    }

    async fn resume(&self, request: Request<ResumeRequest>) -> Result<Response<RunReply>, Status> {
        let ResumeRequest { request_id: id, checkpoint, accept, base_dir: dir, data: files, code: wire } =
            request.into_inner();
        let (id, accept) = (request_id(&id)?, accepted(accept)?);
        let base_dir = if dir.is_empty() { None } else { Some(base_dir(dir)?) };
        let (code, data) = (code(wire)?, data(files)?);
        self.check_code(code.as_ref()).await?;
        let (made, manifest) = self.checked(&checkpoint).await?;
        let run = self.handle.resume(id, (made, manifest.into()), accept, base_dir, data, code).await?;
        info!(%run, checkpoint, "resumed");
        Ok(Response::new(RunReply { run: run.into() }))
    }

    async fn start_replay(&self, request: Request<ReplayRequest>) -> Result<Response<RunReply>, Status> {
        let ReplayRequest { request_id: id, replay: wire, checkpoint } = request.into_inner();
        let wire = wire.ok_or_else(|| invalid("replay", "it is missing"))?;
        let replay = Replay { of: run_id(&wire.of)?, until: wire.until, fingerprints_every: wire.fingerprints_every };
        let original = self.answers.runs().one(replay.of.clone(), |run| Original::of(run, BTreeMap::new())).await?;
        let no_run = || Status::not_found(format!("there is no run `{}`", replay.of));
        let mut original = original.ok_or_else(no_run)?;
        let named = (!checkpoint.is_empty()).then_some(checkpoint);
        let begin = named.clone().or_else(|| original.parent.map(|parent| parent.to_string()));
        let mut made = None;
        if let Some(begin) = begin {
            let (id, manifest) = self.checked(&begin).await?;
            (made, original.restored) = (named.map(|_| id), manifest.numerics);
        }
        let run = self.handle.replay(request_id(&id)?, replay, made, original).await?;
        info!(%run, of = wire.of, "replay submitted");
        Ok(Response::new(RunReply { run: run.into() }))
    }

    async fn cancel(&self, request: Request<CancelRequest>) -> Result<Response<RunReply>, Status> {
        let request = request.into_inner();
        let run = self.handle.cancel(request_id(&request.request_id)?, &request.run).await?;
        info!(%run, "cancelled");
        Ok(Response::new(RunReply { run: run.into() }))
    }

    async fn annotate(&self, request: Request<AnnotateRequest>) -> Result<Response<RunReply>, Status> {
        let AnnotateRequest { request_id: id, run, tags, note } = request.into_inner();
        let run = self.handle.annotate(request_id(&id)?, &run, tags.map(|tags| tags.tags), note).await?;
        Ok(Response::new(RunReply { run: run.into() }))
    }

    async fn fence(&self, request: Request<FenceRequest>) -> Result<Response<Empty>, Status> {
        let FenceRequest { request_id: id, node, device, fenced } = request.into_inner();
        let named = node.parse().map_err(|error| invalid("node", error))?;
        let device = if device.is_empty() { None } else { Some(text("device", device)?) };
        self.handle.fence(request_id(&id)?, named, device.clone(), fenced).await?;
        info!(node, device, "{}", if fenced { "fenced" } else { "unfenced" });
        Ok(Response::new(Empty {}))
    }

    async fn remove_node(&self, request: Request<RemoveNodeRequest>) -> Result<Response<Empty>, Status> {
        let RemoveNodeRequest { request_id: id, node } = request.into_inner();
        let named = node.parse().map_err(|error| invalid("node", error))?;
        self.handle.remove_node(request_id(&id)?, named).await?;
        info!(node, "removed");
        Ok(Response::new(Empty {}))
    }

    async fn query(&self, request: Request<QueryRequest>) -> Result<Response<JsonReply>, Status> {
        let what = request.into_inner().what.ok_or_else(|| invalid("what", "it is empty"))?;
        Ok(Response::new(JsonReply { json: self.answers.answer(what).await? }))
    }

    async fn follow(&self, request: Request<FollowRequest>) -> Result<Response<Self::FollowStream>, Status> {
        let permit = self.followers.permit()?;
        let run = self.handle.find_run(&request.into_inner().run).await?;
        let followers = self.followers.clone();
        // Queues one message, because a document can have megabytes.
        Ok(self.stream_of(1, move |to| async move { followers.follow(run, permit, to).await }))
    }

    async fn reports(&self, request: Request<ReportsRequest>) -> Result<Response<Self::ReportsStream>, Status> {
        let ReportsRequest { run, follow } = request.into_inner();
        let permit = if follow { Some(self.followers.permit()?) } else { None };
        let run = self.handle.find_run(&run).await?;
        let (handle, reader) = (self.handle.clone(), self.reader.clone());
        // Queues one message, because a block can have megabytes.
        Ok(self.stream_of(1, move |to| async move {
            reports::stream(handle, reader, run, follow, to).await;
            drop(permit);
        }))
    }

    async fn logs(&self, request: Request<LogsRequest>) -> Result<Response<Self::LogsStream>, Status> {
        let LogsRequest { run, process, follow } = request.into_inner();
        let permit = if follow { Some(self.followers.permit()?) } else { None };
        let run = self.handle.find_run(&run).await?;
        let (handle, runs) = (self.handle.clone(), self.answers.runs().clone());
        Ok(self.stream(move |to| async move {
            logs::stream(handle, runs, run, process, follow, to).await;
            drop(permit);
        }))
    }

    async fn has_blob(&self, request: Request<BlobRef>) -> Result<Response<HasBlobReply>, Status> {
        Ok(Response::new(HasBlobReply { there: self.blobs.has(piece(request.into_inner())?).await? }))
    }

    async fn put_blob(&self, request: Request<Streaming<BlobChunk>>) -> Result<Response<BlobRef>, Status> {
        let from = request.remote_addr();
        let piece = self.blobs.put(from, request.into_inner()).await?;
        Ok(Response::new((&piece).into()))
    }

    async fn get_blob(&self, request: Request<GetBlobRequest>) -> Result<Response<Self::GetBlobStream>, Status> {
        let permit = self.blobs.permit(request.remote_addr())?;
        let GetBlobRequest { blob, offset } = request.into_inner();
        let (piece, blobs) = (piece(blob.unwrap_or_default())?, self.blobs.clone());
        blobs.sees(&piece).await?;
        // Queues one message, so that a slow reader holds little memory.
        Ok(self.stream_of(1, move |to| blobs.send(permit, piece, offset, to)))
    }
}

fn piece(blob: BlobRef) -> Result<Piece, Status> {
    blob.try_into().map_err(|_| invalid("digest", "a digest must have 32 bytes"))
}
