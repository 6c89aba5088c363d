//! From wire messages to commands: texts, ids, and what nodes and processes say (a submission: `submission.rs`). Everything here comes
//! from a network: what is wrong is said in a `Status`.

use lockstep_common::manifest::{Override, Piece};
use lockstep_common::{Digest, Ending, NodeId, RequestId, RunId, is_steering, printable, quoted};
use lockstep_core::command::{Device, Progress, ReportBody};
use lockstep_core::placement::DeviceKind;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    BlobRef, CheckpointShare, ExitCause, Hello, MAX_BLOCK_BYTES, MAX_SHARE_BYTES, ProcessMessage, ReportBlock,
};
use prost::Message;
use tonic::Status;

/// Devices of one node at most: a bound on what a broken agent can make us place on.
const MAX_DEVICES: usize = 1024;

/// Bytes of what a process measures of itself.
const MAX_MEASURED_BYTES: usize = 1 << 20;

/// Bytes of what names a node or a device.
const MAX_SHORT_BYTES: usize = 256;

/// Bytes of a text that a run keeps, where it goes with a report: longer ones are for the blob store, and processes put them there.
const MAX_KEPT_TEXT_BYTES: usize = 64 << 10;

/// Longest text (bytes) that is taken for a name or a path.
const MAX_TEXT_BYTES: usize = 4096;

const DIGEST_BYTES: usize = 32;

/// A refusal that names the field.
pub(super) fn invalid(field: &str, why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("field `{field}`: {why}"))
}

/// A text of sane length, without letters that steer a terminal.
pub(super) fn text(field: &str, text: String) -> Result<String, Status> {
    if text.len() > MAX_TEXT_BYTES {
        Err(invalid(field, format!("{} bytes are too long", text.len())))
    } else if text.contains(is_steering) {
        Err(invalid(field, format!("`{}` has control characters", quoted(&text))))
    } else {
        Ok(text)
    }
}

/// A name that git gave: whatever letters it has, it is one, and is shown without what steers a terminal.
pub(super) fn name(field: &str, given: &str) -> Result<String, Status> {
    text(field, printable(given).into_owned())
}

/// As [`text`], of what every list of nodes shows.
fn short(field: &str, given: String) -> Result<String, Status> {
    if given.len() > MAX_SHORT_BYTES {
        return Err(invalid(field, format!("{} bytes are more than {MAX_SHORT_BYTES}", given.len())));
    }
    text(field, given)
}

/// At most `most` of something.
pub(super) fn few<T>(field: &str, all: Vec<T>, most: usize) -> Result<Vec<T>, Status> {
    if all.len() <= most { Ok(all) } else { Err(invalid(field, format!("{} are more than {most}", all.len()))) }
}

/// What a process measured of itself: not more than is compared and shown.
fn measured(
    field: &str,
    values: std::collections::HashMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>, Status> {
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_MEASURED_BYTES {
        return Err(invalid(field, format!("{bytes} bytes are more than {MAX_MEASURED_BYTES}")));
    }
    Ok(values.into_iter().collect())
}

pub(super) fn request_id(text: &str) -> Result<RequestId, Status> {
    text.parse().map_err(|error| invalid("request_id", error))
}

pub(super) fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|error| invalid("run", error))
}

fn digest(field: &str, bytes: &[u8]) -> Result<Digest, Status> {
    let bytes: [u8; DIGEST_BYTES] =
        bytes.try_into().map_err(|_| invalid(field, format!("a digest has {DIGEST_BYTES} bytes")))?;
    Ok(Digest::from_bytes(bytes))
}

/// A node that wants to join.
#[derive(Debug)]
pub(super) struct Joining {
    pub(super) node: NodeId,
    pub(super) incarnation: String,
    pub(super) agent: String,
    pub(super) host: String,
    pub(super) devices: Vec<Device>,
}

impl TryFrom<Hello> for Joining {
    type Error = Status;

    fn try_from(hello: Hello) -> Result<Self, Status> {
        if hello.incarnation.is_empty() {
            return Err(invalid("incarnation", "it is empty"));
        }
        let devices = few("devices", hello.devices, MAX_DEVICES)?.into_iter().map(|device| {
            if DeviceKind::of(&device.name).is_none() {
                let words = format!("`{}` is no device: expected `cpu` or `cuda:N`", quoted(&device.name));
                return Err(invalid("devices.name", words));
            }
            Ok(Device {
                name: device.name,
                model: short("devices.model", device.model)?,
                memory_bytes: device.memory_bytes,
            })
        });
        Ok(Self {
            node: hello.node.parse().map_err(|error| invalid("node", error))?,
            incarnation: short("incarnation", hello.incarnation)?,
            agent: short("agent", hello.agent)?,
            host: short("host", hello.host)?,
            devices: devices.collect::<Result<_, Status>>()?,
        })
    }
}

/// What a run's job asked for, as far as what its processes say is judged by it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Samples of a step.
    pub(super) batch: u64,
    /// Steps in all.
    pub(super) steps: u64,
}

/// What a process said. `job` is what its run's job asked for, if the node was told of the run.
///
/// `process` is its number: the record, evaluations, fingerprints and the model are told by process 0, which hosts rank 0.
pub(super) fn said(message: Option<ProcessMessage>, process: u32, job: Option<Asked>) -> Result<ReportBody, Status> {
    let body = message.and_then(|message| message.body).ok_or_else(|| invalid("message", "it is empty"))?;
    Ok(match body {
        Body::Hello(_) | Body::Alive(_) => {
            return Err(invalid("message", "`hello` and `alive` are between a process and its agent"));
        }
        Body::Ready(ready) => ReportBody::Ready {
            address: text("ready.address", ready.address)?,
            numerics: measured("ready.numerics", ready.numerics)?,
            environment: measured("ready.environment", ready.environment)?,
        },
        // Its steps cannot be recorded, so that the run cannot go on.
        Body::Block(block) if block.encoded_len() > MAX_BLOCK_BYTES => ReportBody::Failed {
            reason: format!(
                "what it reports at once up to step {} takes {} bytes, and at most {MAX_BLOCK_BYTES} can be recorded: report less at a step",
                block.steps.last().map_or(0, |step| step.step),
                block.encoded_len()
            ),
            transient: false,
        },
        Body::Block(block) if misplaced(&block, process).is_some() => {
            ReportBody::Failed { reason: misplaced(&block, process).unwrap_or_default().to_owned(), transient: false }
        }
        Body::Block(block) if job.is_some_and(|job| block.last_step() > job.steps) => ReportBody::Failed {
            reason: format!(
                "it reports of step {}, and the job's last is {}",
                block.last_step(),
                job.map_or(0, |job| job.steps)
            ),
            transient: false,
        },
        Body::Block(block) => {
            ReportBody::Block { progress: progress(&block, job.map(|job| job.batch)), bytes: block.encode_to_vec() }
        }
        // A longer one fails that checkpoint in words, and the run goes on.
        Body::Share(CheckpointShare { step, blob }) => {
            let blob = piece("share.blob", blob.as_ref())?;
            if blob.bytes > MAX_SHARE_BYTES as u64 {
                let reason = format!("its description takes {} bytes, more than {MAX_SHARE_BYTES}", blob.bytes);
                ReportBody::ShareRefused { step, reason }
            } else {
                ReportBody::Share { step, blob }
            }
        }
        Body::CheckpointFailed(failed) => ReportBody::ShareFailed { step: failed.step, reason: failed.reason },
        Body::Finished(finished) => {
            ReportBody::Finished { step: finished.step, state: digest("finished.state", &finished.state)? }
        }
        Body::Failed(failed) => ReportBody::Failed { reason: failed.reason, transient: failed.transient },
        Body::Exited(exited) => {
            let ending = match exited.cause() {
                _ if !exited.hung.is_empty() => Ending::Transient { what: exited.hung },
                ExitCause::Unnamed => Ending::of_code(exited.code),
                ExitCause::Dismissed => Ending::Dismissed,
                ExitCause::NodeLeaving => Ending::NodeLeaving,
            };
            ReportBody::Exited { code: exited.code, output: exited.output, ending: Some(ending) }
        }
        Body::Corrupt(corrupt) => ReportBody::Corrupt {
            step: corrupt.step,
            agreed: corrupt.agreed,
            fingerprints: corrupt.fingerprints,
            tensors: corrupt.tensors,
            trail: corrupt.trail,
        },
        Body::Agreed(agreed) => {
            ReportBody::Agreed { step: agreed.step, fingerprint: agreed.fingerprint, trail: agreed.trail }
        }
        Body::Derived(derived) => ReportBody::Derived {
            overrides: derived
                .overrides
                .into_iter()
                .map(|one| Override { key: one.key, was: one.was, now: one.now })
                .collect(),
        },
    })
}

/// Leaves out of `message` texts that are too long to go with a report, and blobs that nobody could find. Words stand in their place.
/// Returns what is said of the first.
pub(super) fn leave_out_media(message: &mut Option<ProcessMessage>) -> Option<String> {
    let Some(Body::Block(block)) = message.as_mut().and_then(|message| message.body.as_mut()) else { return None };
    let mut first = None;
    for one in &mut block.media {
        if let Some(bytes) = one.blob.as_ref().map(|blob| blob.digest.len()).filter(|bytes| *bytes != DIGEST_BYTES) {
            let words = format!("{} `{}` of step {}", quoted(&one.kind), quoted(&one.name), one.step);
            let why = format!("the digest of its blob has {bytes} bytes, not {DIGEST_BYTES}");
            first = first.or_else(|| Some(format!("{words} is left out: {why}")));
            one.blob = None;
            (one.kind, one.text) = ("text".to_owned(), format!("left out: {why}"));
        }
        let words = format!("text `{}` of step {}", quoted(&one.name), one.step);
        for text in [&mut one.text, &mut one.name, &mut one.kind, &mut one.file_name] {
            if text.len() > MAX_KEPT_TEXT_BYTES {
                let why = format!("{} bytes, and at most {MAX_KEPT_TEXT_BYTES} go with a report", text.len());
                first = first.or_else(|| Some(format!("{words} is left out: {why}")));
                *text = format!("left out: {why}");
            }
        }
    }
    first
}

/// Why `block` is none of `process`: what process 0 alone tells would stand in the place of what that said; and the record has each
/// step once, in order.
fn misplaced(block: &ReportBlock, process: u32) -> Option<&'static str> {
    let of_rank_0 = !block.steps.is_empty() || !block.evals.is_empty() || !block.fingerprints.is_empty();
    if process != 0 && (of_rank_0 || block.model.is_some()) {
        return Some("it reports steps, evaluations or the model, which process 0 reports");
    }
    let is_next = |pair: &[lockstep_rpc::StepReport]| pair[0].step.checked_add(1) == Some(pair[1].step);
    (!block.steps.windows(2).all(is_next)).then_some("the steps that it reports do not follow each other")
}

/// Progress at the end of `block`, if it holds steps.
fn progress(block: &ReportBlock, batch: Option<u64>) -> Option<Progress> {
    let last = block.steps.last()?;
    let micros: u64 = block.steps.iter().map(|step| step.micros).fold(0, u64::saturating_add);
    let steps_per_second = if micros == 0 { 0.0 } else { block.steps.len() as f64 * 1e6 / micros as f64 };
    Some(Progress {
        step: last.step,
        loss: last.loss,
        grad_norm: last.grad_norm,
        samples_per_second: steps_per_second * batch.unwrap_or(0) as f64,
    })
}

fn piece(key: &str, blob: Option<&BlobRef>) -> Result<Piece, Status> {
    let blob = blob.ok_or_else(|| invalid(key, "it is missing"))?;
    Ok(Piece { digest: digest(key, &blob.digest)?, bytes: blob.bytes })
}

#[cfg(test)]
mod tests;
