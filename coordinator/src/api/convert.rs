//! From wire messages to commands. Everything here comes from a network: what is wrong is said in a `Status`.

use std::path::{Component, Path};

use lockstep_common::job::JobSpec;
use lockstep_common::manifest;
use lockstep_common::manifest::{Override, Share};
use lockstep_common::{Digest, Ending, NodeId, RequestId, RunId, chain, is_steering, printable, quoted};
use lockstep_core::command::{Device, Progress, Said};
use lockstep_core::placement::Kind;
use lockstep_rpc::process_message::Body;
use lockstep_rpc::{CheckpointShare, ExitCause, Hello, MAX_BLOCK_BYTES, MAX_SHARE_BYTES, ProcessMessage, ReportBlock};
use prost::Message;
use tonic::Status;

/// Devices of one node at most: a bound on what a broken agent can make us place on.
const MAX_DEVICES: usize = 1024;

/// Data files and directories of one job; a directory of thousands is one.
const MAX_DATA: usize = 10_000;

/// Bytes of a job.
const MAX_JOB_BYTES: usize = 1 << 20;

/// Tags of a commit.
const MAX_TAGS: usize = 1_000;

/// Bytes of what a process measures of itself.
const MAX_MEASURED_BYTES: usize = 1 << 20;

/// Bytes of what names a node or a device.
const MAX_SHORT_BYTES: usize = 256;

/// Bytes of a text that a run keeps, where it goes with a report: longer ones are for the blob store, and processes put them there.
const MAX_KEPT_TEXT_BYTES: usize = 64 << 10;

/// Longest text (bytes) that is taken for a name or a path.
const MAX_TEXT_BYTES: usize = 4096;

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
fn name(field: &str, given: &str) -> Result<String, Status> {
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
fn few<T>(field: &str, all: Vec<T>, most: usize) -> Result<Vec<T>, Status> {
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

/// Where a run's code comes from, if it can be.
pub(super) fn code(wire: Option<lockstep_rpc::CodeVersion>) -> Result<Option<manifest::CodeVersion>, Status> {
    let Some(wire) = wire else { return Ok(None) };
    let code = manifest::CodeVersion::try_from(wire).map_err(|_| invalid("code", "a digest does not have 32 bytes"))?;
    let is_hex = |id: &str| id.len() == 40 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    if !is_hex(&code.commit) {
        return Err(invalid(
            "code.commit",
            format!("`{}` is no commit: expected 40 hexadecimal characters", quoted(&code.commit)),
        ));
    }
    let below = |part: Component<'_>| matches!(part, Component::Normal(_) | Component::CurDir);
    if !Path::new(&code.directory).components().all(below) {
        return Err(invalid("code.directory", format!("`{}` is not in the work tree", quoted(&code.directory))));
    }
    Ok(Some(manifest::CodeVersion {
        commit: code.commit,
        branch: code.branch.map(|branch| name("code.branch", &branch)).transpose()?,
        remote: code.remote.map(|remote| text("code.remote", remote)).transpose()?,
        tags: few("code.tags", code.tags, MAX_TAGS)?
            .into_iter()
            .map(|tag| name("code.tags", &tag))
            .collect::<Result<_, _>>()?,
        directory: text("code.directory", code.directory)?,
        ..code
    }))
}

pub(super) fn request_id(text: &str) -> Result<RequestId, Status> {
    text.parse().map_err(|error| invalid("request_id", error))
}

pub(super) fn run_id(text: &str) -> Result<RunId, Status> {
    text.parse().map_err(|error| invalid("run", error))
}

/// The job's text, if it is a sound job in canonical form.
pub(super) fn job(bytes: Vec<u8>) -> Result<String, Status> {
    if bytes.len() > MAX_JOB_BYTES {
        return Err(invalid("job", format!("{} bytes are more than {MAX_JOB_BYTES}", bytes.len())));
    }
    JobSpec::from_submitted(&bytes).map_err(|error| invalid("job", chain(&error)))?;
    String::from_utf8(bytes).map_err(|error| invalid("job", error))
}

/// That `files` are what a job reads, each of its paths once and in their order: of a path that is left out nobody would know later
/// what was in it.
pub(super) fn all_of(job: &str, files: &[manifest::DataFile]) -> Result<(), Status> {
    let job = JobSpec::from_canonical(job.as_bytes()).map_err(|error| invalid("job", chain(&error)))?;
    let asked: Vec<&str> = job.data_paths().iter().map(|path| path.trim_end_matches('/')).collect();
    let given: Vec<&str> = files.iter().map(|file| file.path.trim_end_matches('/')).collect();
    if asked == given {
        return Ok(());
    }
    let list = |paths: &[&str]| paths.iter().map(|path| format!("`{}`", quoted(path))).collect::<Vec<_>>().join(", ");
    let none = if given.is_empty() { "nothing".to_owned() } else { list(&given) };
    Err(invalid("data", format!("the job reads {}, and {none} was measured", list(&asked))))
}

pub(super) fn data(files: Vec<lockstep_rpc::DataFile>) -> Result<Vec<manifest::DataFile>, Status> {
    few("data", files, MAX_DATA)?
        .into_iter()
        .map(|file| {
            let path = file.path.clone();
            text("data.path", path.clone())?;
            file.try_into().map_err(|_| invalid("data", format!("the digest of `{path}` does not have 32 bytes")))
        })
        .collect()
}

fn digest(field: &str, bytes: &[u8]) -> Result<Digest, Status> {
    let bytes: [u8; 32] = bytes.try_into().map_err(|_| invalid(field, "a digest has 32 bytes"))?;
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
            if Kind::of(&device.name).is_none() {
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
pub(super) fn said(message: Option<ProcessMessage>, job: Option<Asked>) -> Result<Said, Status> {
    let body = message.and_then(|message| message.body).ok_or_else(|| invalid("message", "it is empty"))?;
    Ok(match body {
        Body::Hello(_) | Body::Alive(_) => {
            return Err(invalid("message", "`hello` and `alive` are between a process and its agent"));
        }
        Body::Ready(ready) => Said::Ready {
            address: text("ready.address", ready.address)?,
            numerics: measured("ready.numerics", ready.numerics)?,
            environment: measured("ready.environment", ready.environment)?,
        },
        // Its steps cannot be recorded, so that the run cannot go on.
        Body::Block(block) if block.encoded_len() > MAX_BLOCK_BYTES => Said::Failed {
            reason: format!(
                "what it reports at once up to step {} takes {} bytes, and at most {MAX_BLOCK_BYTES} can be recorded: report less at a step",
                block.steps.last().map_or(0, |step| step.step),
                block.encoded_len()
            ),
            transient: false,
        },
        Body::Block(block) if job.is_some_and(|job| block.last_step() > job.steps) => Said::Failed {
            reason: format!(
                "it reports of step {}, and the job's last is {}",
                block.last_step(),
                job.map_or(0, |job| job.steps)
            ),
            transient: false,
        },
        Body::Block(block) => {
            Said::Block { progress: progress(&block, job.map(|job| job.batch)), bytes: block.encode_to_vec() }
        }
        // A longer one fails that checkpoint in words, and the run goes on.
        Body::Share(share) if share.json.len() > MAX_SHARE_BYTES => Said::ShareRefused {
            step: share.step,
            reason: format!("its description takes {} bytes, more than {MAX_SHARE_BYTES}", share.json.len()),
        },
        Body::Share(share) => Said::Share(checkpoint_share(&share)?),
        Body::CheckpointFailed(failed) => Said::ShareFailed { step: failed.step, reason: failed.reason },
        Body::Finished(finished) => {
            Said::Finished { step: finished.step, state: digest("finished.state", &finished.state)? }
        }
        Body::Failed(failed) => Said::Failed { reason: failed.reason, transient: failed.transient },
        Body::Exited(exited) => {
            let ending = match exited.cause() {
                _ if !exited.hung.is_empty() => Ending::Transient { what: exited.hung },
                ExitCause::Unnamed => Ending::of_code(exited.code),
                ExitCause::Dismissed => Ending::Dismissed,
                ExitCause::NodeLeaving => Ending::NodeLeaving,
            };
            Said::Exited { code: exited.code, output: exited.output, ending: Some(ending) }
        }
        Body::Corrupt(corrupt) => Said::Corrupt {
            step: corrupt.step,
            agreed: corrupt.agreed,
            fingerprints: corrupt.fingerprints,
            tensors: corrupt.tensors,
            trail: corrupt.trail,
        },
        Body::Agreed(agreed) => {
            Said::Agreed { step: agreed.step, fingerprint: agreed.fingerprint, trail: agreed.trail }
        }
        Body::Derived(derived) => Said::Derived {
            overrides: derived
                .overrides
                .into_iter()
                .map(|one| Override { key: one.key, was: one.was, now: one.now })
                .collect(),
        },
    })
}

/// Leaves texts that are too long to go with a report out of `message`, and puts words in their place. What is said of the first.
pub(super) fn shorten_texts(message: &mut Option<ProcessMessage>) -> Option<String> {
    let Some(Body::Block(block)) = message.as_mut().and_then(|message| message.body.as_mut()) else { return None };
    let mut first = None;
    for one in &mut block.media {
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

fn checkpoint_share(wire: &CheckpointShare) -> Result<Share, Status> {
    let share: Share = serde_json::from_slice(&wire.json).map_err(|error| invalid("share.json", error))?;
    if share.step != wire.step {
        return Err(invalid("share.json", format!("its step is {}, not {}", share.step, wire.step)));
    }
    Ok(share)
}

#[cfg(test)]
mod tests {
    use lockstep_rpc::{Finished, MediaReport, Series, StepReport};

    use super::*;

    fn said_of(body: Body, job: Option<Asked>) -> Result<Said, Status> {
        said(Some(ProcessMessage { body: Some(body) }), job)
    }

    #[test]
    fn what_is_wrong_is_named_and_never_a_panic() {
        let words = |status: Status| status.message().to_owned();
        assert_eq!(words(said(None, None).unwrap_err()), "field `message`: it is empty");
        let short = Finished { step: 1, state: vec![1, 2] };
        assert_eq!(
            words(said_of(Body::Finished(short), None).unwrap_err()),
            "field `finished.state`: a digest has 32 bytes"
        );
        let other_step = r#"{"step":2,"epoch":0,"tensors":[],"ranks":[],"record":null}"#;
        for json in ["", "{", "[]", r#"{"tensors":[],"ranks":[]}"#, other_step] {
            let share = CheckpointShare { step: 1, json: json.as_bytes().to_vec() };
            assert!(words(checkpoint_share(&share).unwrap_err()).starts_with("field `share.json`: "), "{json}");
        }
        assert!(words(job(b"{}".to_vec()).unwrap_err()).starts_with("field `job`: not a valid job"));
        let hello = Hello { node: "../x".into(), incarnation: "1".into(), ..Hello::default() };
        assert!(words(Joining::try_from(hello).unwrap_err()).starts_with("field `node`: `../x` is not a node name"));
    }

    #[test]
    fn data_that_is_not_what_the_job_reads_is_refused_with_both() {
        let job = lockstep_common::job::parse_toml(
            r#"
                name = "t"
                steps = 1
                batch = { size = 1 }
                model = { kind = "mlp", hidden = [8], outputs = 10 }
                data = { kind = "npy", inputs = "x.npy", targets = "y.npy" }
                optimizer = { kind = "sgd", lr = 0.1 }
            "#,
            &[],
        )
        .unwrap();
        let job = String::from_utf8(job.canonical()).unwrap();
        let file = |path: &str| manifest::DataFile {
            path: path.to_owned(),
            bytes: 0,
            digest: lockstep_common::Domain::Blob.digest(b""),
        };
        all_of(&job, &[file("x.npy"), file("y.npy")]).unwrap();
        let refused = |files: &[manifest::DataFile]| all_of(&job, files).unwrap_err().message().to_owned();
        assert_eq!(refused(&[]), "field `data`: the job reads `x.npy`, `y.npy`, and nothing was measured");
        assert!(refused(&[file("x.npy")]).ends_with("and `x.npy` was measured"));
        assert!(refused(&[file("y.npy"), file("x.npy")]).ends_with("and `y.npy`, `x.npy` was measured"));
        assert!(refused(&[file("x.npy"), file("y.npy"), file("/etc/passwd")]).contains("`/etc/passwd`"));
    }

    #[test]
    fn what_nobody_would_send_is_refused_by_its_field() {
        let sound = lockstep_rpc::CodeVersion { commit: "a".repeat(40), ..Default::default() };
        let refused = |wire| code(Some(wire)).unwrap_err().message().to_owned();
        assert!(code(Some(sound.clone())).unwrap().is_some());
        for commit in ["", "HEAD", "--upload-pack=x", &"g".repeat(40)] {
            let wire = lockstep_rpc::CodeVersion { commit: commit.to_owned(), ..sound.clone() };
            assert!(refused(wire).starts_with("field `code.commit`"), "{commit}");
        }
        for directory in ["../x", "/etc", "a/../../b"] {
            let wire = lockstep_rpc::CodeVersion { directory: directory.to_owned(), ..sound.clone() };
            assert!(refused(wire).contains("is not in the work tree"), "{directory}");
        }
        let wire = lockstep_rpc::CodeVersion { tags: vec![String::new(); 1_001], ..sound.clone() };
        assert_eq!(refused(wire), "field `code.tags`: 1001 are more than 1000");
        let wire = lockstep_rpc::CodeVersion { remote: "\x1b[2J".to_owned(), ..sound };
        assert_eq!(refused(wire), "field `code.remote`: `\\u{1b}[2J` has control characters");
        let file = lockstep_rpc::DataFile { digest: vec![0; 32], ..Default::default() };
        assert!(data(vec![file; 10_001]).unwrap_err().message().starts_with("field `data`: 10001 are more"));
        let device = |name: &str| lockstep_rpc::Device { name: name.to_owned(), ..Default::default() };
        for name in ["tpu", "cuda:x", "cpu\n", "CPU"] {
            let hello =
                Hello { node: "a".into(), incarnation: "1".into(), devices: vec![device(name)], ..Hello::default() };
            assert!(Joining::try_from(hello).unwrap_err().message().contains("expected `cpu` or `cuda:N`"), "{name}");
        }
        let many = (0..5).map(|index| (index.to_string(), "x".repeat(1 << 18))).collect();
        let ready = lockstep_rpc::Ready { environment: many, ..Default::default() };
        let error = said_of(Body::Ready(ready), None).unwrap_err();
        assert!(error.message().starts_with("field `ready.environment`: 1310725 bytes"), "{}", error.message());
    }

    #[test]
    fn a_share_that_the_log_would_not_take_fails_its_checkpoint() {
        let share = CheckpointShare { step: 7, json: vec![b' '; MAX_SHARE_BYTES + 1] };
        let Said::ShareRefused { step: 7, reason } = said_of(Body::Share(share), None).unwrap() else {
            panic!("not refused at step 7")
        };
        assert_eq!(reason, "its description takes 16777217 bytes, more than 16777216");
    }

    #[test]
    fn a_block_that_the_log_would_not_take_ends_the_run_in_words() {
        let steps = vec![StepReport { step: 9, ..StepReport::default() }];
        let block = ReportBlock { steps, record_before: vec![0; MAX_BLOCK_BYTES], ..ReportBlock::default() };
        let Said::Failed { reason, transient: false } = said_of(Body::Block(block), None).unwrap() else {
            panic!("it is taken")
        };
        assert!(reason.contains("up to step 9 takes 15728") && reason.contains("at most 15728640"), "{reason}");
    }

    #[test]
    fn a_block_of_a_step_that_the_job_does_not_have_ends_the_run_in_words() {
        let series = Series { steps: vec![9, 2], ..Series::default() };
        let media = MediaReport { step: 11, ..MediaReport::default() };
        let blocks = [
            ReportBlock { steps: vec![StepReport { step: 11, ..StepReport::default() }], ..ReportBlock::default() },
            ReportBlock { series: vec![series], ..ReportBlock::default() },
            ReportBlock { media: vec![media], ..ReportBlock::default() },
        ];
        for block in blocks {
            let said = |steps| said_of(Body::Block(block.clone()), Some(Asked { batch: 1, steps })).unwrap();
            assert!(matches!(said(11), Said::Block { .. }));
            let Said::Failed { reason, transient: false } = said(10) else { panic!("it is taken: {block:?}") };
            assert_eq!(reason, "it reports of step 11, and the job's last is 10");
        }
    }

    #[test]
    fn a_text_that_is_too_long_is_left_out_by_name_and_the_rest_of_its_block_stays() {
        let text = |name: &str, bytes| MediaReport {
            name: name.to_owned(),
            step: 3,
            kind: "text".to_owned(),
            text: "x".repeat(bytes),
            ..MediaReport::default()
        };
        let steps = vec![StepReport { step: 3, ..StepReport::default() }];
        let media = vec![text("short", MAX_KEPT_TEXT_BYTES), text("long", 8 << 20), text("longer", 9 << 20)];
        let block = ReportBlock { steps, media, ..ReportBlock::default() };
        let mut message = Some(ProcessMessage { body: Some(Body::Block(block.clone())) });
        let words = shorten_texts(&mut message).unwrap();
        assert_eq!(words, "text `long` of step 3 is left out: 8388608 bytes, and at most 65536 go with a report");
        let Some(Body::Block(left)) = message.and_then(|message| message.body) else { panic!("no block") };
        assert_eq!((&left.steps, &left.media[0]), (&block.steps, &block.media[0]));
        assert_eq!(left.media[1].text, "left out: 8388608 bytes, and at most 65536 go with a report");
        assert!(left.encoded_len() < 70_000, "{}", left.encoded_len());
        let mut small = Some(ProcessMessage { body: Some(Body::Block(left)) });
        assert_eq!(shorten_texts(&mut small), None);
    }

    #[test]
    fn a_block_gives_progress_at_its_last_step_and_the_rate_over_all() {
        let step = |step, micros| StepReport { step, loss: step, micros, ..StepReport::default() };
        let block = ReportBlock { steps: vec![step(4, 1_000), step(5, 3_000)], ..ReportBlock::default() };
        let job = Some(Asked { batch: 8, steps: 5 });
        let Said::Block { progress: Some(progress), bytes } = said_of(Body::Block(block.clone()), job).unwrap() else {
            panic!("not a block with progress")
        };
        assert_eq!((progress.step, progress.loss, progress.samples_per_second), (5, 5, 4_000.0));
        assert_eq!(ReportBlock::decode(bytes.as_slice()).unwrap(), block);
        let empty = said_of(Body::Block(ReportBlock::default()), job).unwrap();
        assert!(matches!(empty, Said::Block { progress: None, .. }));
    }
}
