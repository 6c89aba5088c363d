//! Checks and converts messages of nodes and processes: texts, ids, joins and reports (submissions are in `submission.rs`). Invalid input
//! becomes a `Status` that names the field.

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

/// Maximum number of devices of one node. Bounds the damage of a faulty agent.
const MAX_DEVICES: usize = 1024;

/// Maximum size of a process's numerics or environment, in bytes.
const MAX_MEASURED_BYTES: usize = 1 << 20;

/// Maximum length of names of hosts, agents and device models, in bytes.
const MAX_SHORT_BYTES: usize = 256;

/// Maximum length of a name or a path, in bytes.
const MAX_TEXT_BYTES: usize = 4096;

const DIGEST_BYTES: usize = 32;

/// An `InvalidArgument` that names the field.
pub(super) fn invalid(field: &str, why: impl std::fmt::Display) -> Status {
    Status::invalid_argument(format!("field `{field}`: {why}"))
}

/// Checks that `text` has at most [`MAX_TEXT_BYTES`] and no control characters.
pub(super) fn text(field: &str, text: String) -> Result<String, Status> {
    if text.len() > MAX_TEXT_BYTES {
        Err(invalid(field, format!("{} bytes, but the maximum is {MAX_TEXT_BYTES}", text.len())))
    } else if text.contains(is_steering) {
        Err(invalid(field, format!("`{}` has control characters", quoted(&text))))
    } else {
        Ok(text)
    }
}

/// A name from git, which can contain any characters. Control characters are escaped.
pub(super) fn name(field: &str, given: &str) -> Result<String, Status> {
    text(field, printable(given).into_owned())
}

/// As [`text`], with at most [`MAX_SHORT_BYTES`].
fn short(field: &str, given: String) -> Result<String, Status> {
    if given.len() > MAX_SHORT_BYTES {
        return Err(invalid(field, format!("{} bytes, but the maximum is {MAX_SHORT_BYTES}", given.len())));
    }
    text(field, given)
}

/// Checks that `all` has at most `most` entries.
pub(super) fn few<T>(field: &str, all: Vec<T>, most: usize) -> Result<Vec<T>, Status> {
    if all.len() <= most {
        Ok(all)
    } else {
        Err(invalid(field, format!("{} entries, but the maximum is {most}", all.len())))
    }
}

/// Checks that the keys and values have at most [`MAX_MEASURED_BYTES`] in total.
fn measured(
    field: &str,
    values: std::collections::HashMap<String, String>,
) -> Result<std::collections::BTreeMap<String, String>, Status> {
    let bytes: usize = values.iter().map(|(key, value)| key.len() + value.len()).sum();
    if bytes > MAX_MEASURED_BYTES {
        return Err(invalid(field, format!("{bytes} bytes, but the maximum is {MAX_MEASURED_BYTES}")));
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
    let bytes: [u8; DIGEST_BYTES] = bytes
        .try_into()
        .map_err(|_| invalid(field, format!("{} bytes, but a digest has {DIGEST_BYTES}", bytes.len())))?;
    Ok(Digest::from_bytes(bytes))
}

/// A checked request of a node to join.
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
                let words = format!("`{}` is not a device: expected `cpu` or `cuda:N`", quoted(&device.name));
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

/// Values of a run's job, against which its reports are checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Asked {
    /// Samples per step, of all ranks together.
    pub(super) batch: u64,
    /// Number of steps in the job.
    pub(super) steps: u64,
}

/// Checks and converts a report of the process with index `process`. `job` is `None` if the run is not in the node's desired state.
///
/// Only process 0, which hosts rank 0, can report steps.
pub(super) fn said(message: Option<ProcessMessage>, process: u32, job: Option<Asked>) -> Result<ReportBody, Status> {
    let body = message.and_then(|message| message.body).ok_or_else(|| invalid("message", "it is empty"))?;
    Ok(match body {
        Body::Hello(_) | Body::Alive(_) => {
            return Err(invalid("message", "`hello` and `alive` are messages from a process to its agent"));
        }
        Body::Ready(ready) => ReportBody::Ready {
            address: text("ready.address", ready.address)?,
            numerics: measured("ready.numerics", ready.numerics)?,
            environment: measured("ready.environment", ready.environment)?,
        },
        // A block that cannot be recorded fails the run, because the record would have a gap.
        Body::Block(block) => match refused(&block, process, job) {
            Some(reason) => ReportBody::Failed { reason, transient: false },
            None => ReportBody::Block {
                progress: progress(&block.known(), job.map(|job| job.batch)),
                bytes: block.into_stored(),
            },
        },
        // A description that is too long fails the checkpoint, and the run continues.
        Body::Share(CheckpointShare { step, blob }) => {
            let blob = piece("share.blob", blob.as_ref())?;
            if blob.bytes > MAX_SHARE_BYTES as u64 {
                let reason =
                    format!("the description of its share has {} bytes, more than {MAX_SHARE_BYTES}", blob.bytes);
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

/// The reason why `block` cannot be recorded, judged by its header alone. A later decoder compares the header with the contents.
fn refused(block: &EncodedBlock, process: u32, job: Option<Asked>) -> Option<String> {
    let BlockHeader { first_step, last_step, reach, .. } = block.known();
    let (bytes, reach) = (block.num_bytes(), reach.max(last_step));
    let holds_steps = last_step > 0;
    if bytes > MAX_BLOCK_BYTES {
        Some(format!(
            "its report up to step {last_step} has {bytes} bytes, but the maximum is {MAX_BLOCK_BYTES}: log fewer values per step"
        ))
    } else if process != 0 && holds_steps {
        Some("it reports steps, but only process 0 reports steps".to_owned())
    } else if first_step > last_step || (holds_steps && first_step == 0) {
        Some(format!("the steps in its report are not consecutive: {first_step} to {last_step}"))
    } else {
        let beyond = job.filter(|job| reach > job.steps);
        beyond.map(|job| format!("its report contains step {reach}, but the job ends at step {}", job.steps))
    }
}

/// Progress after a block; `None` if the block has no steps.
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
