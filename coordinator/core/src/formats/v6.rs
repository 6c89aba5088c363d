//! Format 6 of the state: postcard, which encodes a struct as the sequence of its fields, without names.
//!
//! The types below are frozen copies of the types of program version 0.1.0. A value is decoded into such a type and encoded again with
//! field names, so no conversion is written by hand. `golden/state-6.txt` contains bytes of that program.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_common::{Digest, NodeId, RequestId, RunId};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::encoding::{self, EncodingError};

/// Converts a row of format 6 to format 8. `key` is the row's key in text form. The bytes of a manifest stay unchanged.
///
/// # Errors
/// `Postcard` or `Trailing` if the bytes are not of format 6.
pub fn upgrade_row(key: &str, bytes: &[u8]) -> Result<Vec<u8>, EncodingError> {
    match key.split('/').next().unwrap_or_default() {
        "submission" => again::<Submission>(bytes),
        "run" => again::<RunState>(bytes),
        "checkpoint" => again::<Checkpoint>(bytes),
        "share" => again::<Share>(bytes),
        "node" => again::<Node>(bytes),
        "request" => again::<Answered>(bytes),
        // A manifest. Format 6 has no other kinds; the parser of keys rejects them later.
        _ => Ok(bytes.to_vec()),
    }
}

/// Converts a command of version 0.1.0, without its version byte, to format 8.
///
/// # Errors
/// `Postcard` or `Trailing` if the bytes are not of format 6.
pub(super) fn command(bytes: &[u8]) -> Result<Vec<u8>, EncodingError> {
    again::<Command>(bytes)
}

/// Decodes `bytes` from format 6 and encodes the value in format 8.
fn again<T: Serialize + DeserializeOwned>(bytes: &[u8]) -> Result<Vec<u8>, EncodingError> {
    let (value, rest) = postcard::take_from_bytes::<T>(bytes)?;
    if rest.is_empty() { Ok(encoding::encode(&value)) } else { Err(EncodingError::Trailing(rest.len())) }
}

#[derive(Serialize, Deserialize)]
enum Command {
    Submit {
        request: RequestId,
        at_ms: u64,
        job: String,
        base_dir: String,
        code: Option<CodeVersion>,
        data: Vec<DataFile>,
        secret: [u8; 32],
    },
    Resume {
        request: RequestId,
        at_ms: u64,
        checkpoint: Digest,
        accepted: Vec<String>,
        base_dir: Option<String>,
        data: Vec<DataFile>,
        code: Option<CodeVersion>,
        secret: [u8; 32],
    },
    Cancel {
        request: RequestId,
        at_ms: u64,
        run: RunId,
    },
    Annotate {
        request: RequestId,
        run: RunId,
        tags: Option<Vec<String>>,
        note: Option<String>,
    },
    NodeJoined {
        at_ms: u64,
        node: NodeId,
        incarnation: String,
        host: String,
        devices: Vec<Device>,
    },
    NodeLost {
        at_ms: u64,
        node: NodeId,
        incarnation: String,
    },
    Report {
        at_ms: u64,
        run: RunId,
        generation: u64,
        process: u32,
        sequence: u64,
        body: Said,
    },
    Replay {
        request: RequestId,
        at_ms: u64,
        replay: Replay,
        checkpoint: Option<Digest>,
        secret: [u8; 32],
    },
    Fence {
        request: RequestId,
        at_ms: u64,
        node: NodeId,
        device: Option<String>,
        fenced: bool,
    },
}

#[derive(Serialize, Deserialize)]
struct Replay {
    of: RunId,
    until: u64,
    fingerprints_every: u64,
}

#[derive(Serialize, Deserialize)]
struct Device {
    name: String,
    model: String,
    memory_bytes: u64,
}

#[derive(Serialize, Deserialize)]
enum Said {
    Ready {
        address: String,
        numerics: BTreeMap<String, String>,
        environment: BTreeMap<String, String>,
    },
    Block {
        progress: Option<Progress>,
        #[serde(with = "serde_bytes")]
        bytes: Vec<u8>,
    },
    Share(Share),
    ShareFailed {
        step: u64,
        reason: String,
    },
    Finished {
        step: u64,
        state: Digest,
    },
    Failed {
        reason: String,
    },
    Exited {
        code: i32,
        output: String,
    },
    Corrupt {
        step: u64,
        agreed: u64,
        fingerprints: Vec<u64>,
        tensors: Vec<String>,
        trail: Vec<u64>,
    },
    Agreed {
        step: u64,
        fingerprint: u64,
        trail: Vec<u64>,
    },
}

#[derive(Serialize, Deserialize)]
struct Progress {
    step: u64,
    loss: u64,
    grad_norm: u64,
    samples_per_second: f64,
}

#[derive(Serialize, Deserialize)]
enum Outcome {
    Run(RunId),
    Done,
    Refused(Refusal),
}

#[derive(Serialize, Deserialize)]
enum Refusal {
    Job(String),
    NoRun(String),
    NoCheckpoint(String),
    Ended { run: RunId, status: String },
    OutOfOrder { process: u32, expected: u64, got: u64 },
    NoProcess { run: RunId, generation: u64, process: u32, current: u64 },
    Replay { run: RunId, reason: String },
    Annotation(String),
    NoData(String),
    NoDevice(String),
    NothingLeft { checkpoint: String, step: u64 },
}

#[derive(Serialize, Deserialize)]
struct Submission {
    id: RunId,
    number: u64,
    job: String,
    base_dir: String,
    code: Option<CodeVersion>,
    data: Vec<DataFile>,
    secret: [u8; 32],
    parent: Option<Digest>,
    accepted: Vec<String>,
    replay: Option<Replay>,
    created_at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct RunState {
    status: Status,
    generation: u64,
    kind: Option<Kind>,
    placement: BTreeMap<u32, Placed>,
    progress: Option<Progress>,
    heard_at_ms: u64,
    started_at_ms: Option<u64>,
    ended_at_ms: Option<u64>,
    restore: Option<Restore>,
    numerics: Option<Measured>,
    environment: BTreeMap<String, String>,
    overrides: Vec<Override>,
    exits: u32,
    restarts: u32,
    last_exit: Option<Exit>,
    failed_checkpoints: Vec<FailedCheckpoint>,
    corruptions: Vec<Corruption>,
    tags: BTreeSet<String>,
    note: String,
}

#[derive(Serialize, Deserialize)]
struct Restore {
    checkpoint: Digest,
    step: u64,
}

#[derive(Serialize, Deserialize)]
enum Status {
    Queued { reason: String },
    Starting,
    Running,
    Finished { state: Digest },
    Failed { reason: String },
    Cancelled,
}

#[derive(Serialize, Deserialize)]
struct Placed {
    node: NodeId,
    device: u32,
    device_name: String,
    phase: Phase,
    address: Option<String>,
    sequence: u64,
}

#[derive(Serialize, Deserialize)]
enum Phase {
    Assigned,
    Ready,
    Finished { state: Digest, exited: bool },
}

#[derive(Serialize, Deserialize)]
struct Measured {
    process: u32,
    values: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct Exit {
    generation: u64,
    process: u32,
    node: NodeId,
    code: i32,
    output: String,
}

#[derive(Serialize, Deserialize)]
struct Checkpoint {
    id: Digest,
    step: u64,
    epoch: u64,
    generation: u64,
    committed_at_ms: u64,
    state: Digest,
}

#[derive(Serialize, Deserialize)]
struct FailedCheckpoint {
    generation: u64,
    step: u64,
    reason: String,
    at_ms: u64,
}

#[derive(Serialize, Deserialize)]
struct Node {
    id: NodeId,
    incarnation: String,
    host: String,
    devices: Vec<Device>,
    alive: bool,
    changed_at_ms: u64,
    fences: BTreeMap<String, Fence>,
}

#[derive(Serialize, Deserialize)]
struct Fence {
    at_ms: u64,
    wrong: Option<(RunId, u64)>,
}

#[derive(Serialize, Deserialize)]
struct Answered {
    index: u64,
    outcome: Outcome,
}

#[derive(Serialize, Deserialize)]
struct Corruption {
    at_ms: u64,
    generation: u64,
    step: u64,
    agreed: u64,
    tensors: Vec<String>,
    claims: Vec<Claim>,
    trail: Vec<u64>,
    verdict: Option<Verdict>,
}

#[derive(Serialize, Deserialize)]
struct Claim {
    node: NodeId,
    device: u32,
    device_name: String,
    fingerprint: u64,
}

#[derive(Serialize, Deserialize)]
struct Verdict {
    wrong: Vec<u32>,
    grounds: Grounds,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Grounds {
    Majority,
    Replay,
    Unstable,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Cuda,
    Cpu,
}

#[derive(Serialize, Deserialize)]
struct CodeVersion {
    commit: String,
    branch: Option<String>,
    remote: Option<String>,
    dirty: bool,
    tags: Vec<String>,
    directory: String,
    tree: Option<Piece>,
    source: Option<Piece>,
}

#[derive(Serialize, Deserialize)]
struct Override {
    key: String,
    was: String,
    now: String,
}

#[derive(Serialize, Deserialize)]
struct DataFile {
    path: String,
    bytes: u64,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Piece {
    digest: Digest,
    bytes: u64,
}

#[derive(Serialize, Deserialize)]
struct TensorEntry {
    name: String,
    dtype: String,
    shape: Vec<i64>,
    pieces: Vec<Piece>,
}

#[derive(Serialize, Deserialize)]
struct RankState {
    rank: u32,
    seeds: BTreeMap<String, u64>,
    epoch: u64,
    consumed: u64,
    next_position: u64,
    generators: BTreeMap<String, Piece>,
}

#[derive(Serialize, Deserialize)]
struct RecordPosition {
    steps: u64,
    digest: Digest,
}

#[derive(Serialize, Deserialize)]
struct Share {
    step: u64,
    epoch: u64,
    tensors: Vec<TensorEntry>,
    ranks: Vec<RankState>,
    record: Option<RecordPosition>,
}
