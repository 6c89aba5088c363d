//! From wire messages to commands: texts, ids, and what nodes and processes say (a submission: `submission.rs`). Everything here comes
//! from a network: what is wrong is said in a `Status`.

use lockstep_common::manifest::{Override, Piece};
use lockstep_common::{Digest, Ending, NodeId, RequestId, RunId, is_steering, printable, quoted};
use lockstep_core::placement::DeviceKind;
use lockstep_core::state::{Device, Progress, ReportBody};
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{
    BlobRef, BlockHeader, CheckpointShare, EncodedBlock, ExitCause, Hello, MAX_BLOCK_BYTES, MAX_SHARE_BYTES,
    ProcessMessage,
};
use tonic::Status;

/// Devices of one node at most: a bound on what a broken agent can make us place on.
const MAX_DEVICES: usize = 1024;

/// Bytes of what a process measures of itself.
const MAX_MEASURED_BYTES: usize = 1 << 20;

/// Bytes of what names a node or a device.
const MAX_SHORT_BYTES: usize = 256;

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
/// `process` is its number: the record is told by process 0, which hosts rank 0.
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
        Body::Block(block) => match refused(&block, process, job) {
            Some(reason) => ReportBody::Failed { reason, transient: false },
            None => ReportBody::Block {
                progress: progress(&block.known(), job.map(|job| job.batch)),
                bytes: block.into_stored(),
            },
        },
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

/// Why `block` cannot be recorded, by its header. Whoever decodes it sees whether the header is true.
fn refused(block: &EncodedBlock, process: u32, job: Option<Asked>) -> Option<String> {
    let BlockHeader { first_step, last_step, reach, .. } = block.known();
    let (bytes, reach) = (block.num_bytes(), reach.max(last_step));
    let holds_steps = last_step > 0;
    if bytes > MAX_BLOCK_BYTES {
        Some(format!(
            "what it reports at once up to step {last_step} takes {bytes} bytes, and at most {MAX_BLOCK_BYTES} can be recorded: report \
             less at a step"
        ))
    } else if process != 0 && holds_steps {
        Some("it reports steps, which process 0 reports".to_owned())
    } else if first_step > last_step || (holds_steps && first_step == 0) {
        Some("the steps that it reports do not follow each other".to_owned())
    } else {
        let beyond = job.filter(|job| reach > job.steps);
        beyond.map(|job| format!("it reports of step {reach}, and the job's last is {}", job.steps))
    }
}

/// Progress at the end of a block, if it holds steps.
fn progress(known: &BlockHeader, batch: Option<u64>) -> Option<Progress> {
    let steps = known.last_step.checked_sub(known.first_step)?.saturating_add(1);
    let steps_per_second = if known.micros == 0 { 0.0 } else { steps as f64 * 1e6 / known.micros as f64 };
    (known.last_step > 0).then(|| Progress {
        step: known.last_step,
        loss: known.loss,
        grad_norm: known.grad_norm,
        samples_per_second: steps_per_second * batch.unwrap_or(0) as f64,
    })
}

fn piece(key: &str, blob: Option<&BlobRef>) -> Result<Piece, Status> {
    let blob = blob.ok_or_else(|| invalid(key, "it is missing"))?;
    Ok(Piece { digest: digest(key, &blob.digest)?, bytes: blob.bytes })
}

#[cfg(test)]
mod tests;
