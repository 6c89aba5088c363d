//! `apply`: one command on the state. Clients' commands and nodes are here, reports of processes in [`super::report`].

use lockstep_common::job::JobSpec;
use lockstep_common::manifest::{CodeVersion, Manifest};
use lockstep_common::{Digest, Domain, RequestId, RunId, chain, quoted};

use super::accept;
use super::cluster::ClusterState;
use super::nodes::Joining;
use super::reports::Spoken;
use super::requests::Answered;
use super::rows::RowKey;
use super::runs::{Restore, Run, Status, Submission, TEXT_BYTES};
use crate::command::{Command, Replay};
use crate::formats::encode;
use crate::outcome::{Effect, Outcome, Refusal};

/// What a command did.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The answer.
    pub outcome: Outcome,
    /// What must be done beside the state, in order.
    pub effects: Vec<Effect>,
}

/// What a resumed run begins with beside its checkpoint's manifest.
struct Origin {
    id: RunId,
    number: u64,
    parent: Digest,
    accepted: Vec<String>,
    secret: [u8; 32],
    created_at_ms: u64,
}

/// Tags of a run, and letters of one.
const TAGS: usize = 32;
const TAG_LETTERS: usize = 64;

/// Whether a run takes these tags and this note. Tags are words: they stand in filters and in names of other tools.
///
/// # Errors
/// `Annotation`, in words.
pub fn check_annotation(tags: &[String], note: &str) -> Result<(), Refusal> {
    if tags.len() > TAGS {
        return Err(Refusal::Annotation(format!("{} tags are too many: a run has at most {TAGS}", tags.len())));
    }
    let sound = |tag: &&String| {
        !tag.is_empty()
            && tag.chars().count() <= TAG_LETTERS
            && tag.chars().all(|letter| letter.is_alphanumeric() || "-_.:/=".contains(letter))
    };
    if let Some(bad) = tags.iter().find(|tag| !sound(tag)) {
        let words = format!("`{}` is no tag: expected up to {TAG_LETTERS} letters, digits and `-_.:/=`", quoted(bad));
        return Err(Refusal::Annotation(words));
    }
    if note.len() > TEXT_BYTES {
        return Err(Refusal::Annotation(format!("a note has at most {TEXT_BYTES} bytes, this one has {}", note.len())));
    }
    Ok(())
}

impl ClusterState {
    /// Applies the command of the log entry at `index`.
    ///
    /// Deterministic, and total: it does not panic, whatever a decoded command says.
    pub fn apply(&mut self, index: u64, command: &Command) -> Applied {
        let mut effects = Vec::new();
        // An answer counts for the kind of request that it answered: an id that is used for another one is a new request.
        let (request, makes_run) = match command {
            Command::Submit { request, .. } | Command::Resume { request, .. } | Command::Replay { request, .. } => {
                (Some(request), true)
            }
            Command::Cancel { request, .. }
            | Command::Fence { request, .. }
            | Command::Annotate { request, .. }
            | Command::NodeForgotten { request, .. } => (Some(request), false),
            Command::NodeJoined { .. }
            | Command::NodeLeaving { .. }
            | Command::NodeDetached { .. }
            | Command::NodeLost { .. }
            | Command::Configure { .. }
            | Command::Silent { .. }
            | Command::Due { .. }
            | Command::Report { .. }
            | Command::Commit { .. }
            | Command::CommitFailed { .. } => (None, false),
        };
        if let Some(request) = request
            && let Some(answered) = self.requests.get(request)
            && matches!(answered.outcome, Outcome::Run(_)) == makes_run
        {
            let other = self.other_request(request, command, answered).map(Outcome::Refused);
            return Applied { outcome: other.unwrap_or_else(|| answered.outcome.clone()), effects };
        }
        let outcome = self.dispatch(index, command, &mut effects).unwrap_or_else(Outcome::Refused);
        if let (Some(request), Outcome::Run(_) | Outcome::Done) = (request, &outcome) {
            self.remember(request, Answered { index, outcome: outcome.clone(), asked: asked(command) });
        }
        Applied { outcome, effects }
    }

    /// Why `command` does not get the answer that its request id got before: it asks for something else.
    fn other_request(&self, request: &RequestId, command: &Command, answered: &Answered) -> Option<Refusal> {
        let Outcome::Run(run) = &answered.outcome else {
            // A build that did not note what was asked answered any of them.
            let is_other = answered.asked? != asked(command)?;
            return is_other.then(|| Refusal::RequestUsed(request.to_string()));
        };
        let made = &self.runs.get(run)?.submission;
        let is_same = match command {
            Command::Submit { job, base_dir, code, data, .. } => {
                let asked = (job, base_dir, code, data);
                let same = asked == (&made.job, &made.base_dir, &made.code, &made.data);
                same && made.parent.is_none() && made.replay.is_none()
            }
            Command::Resume { checkpoint, accepted, base_dir, data, code, .. } => {
                let from = made.replay.is_none() && made.parent == Some(*checkpoint) && made.accepted == *accepted;
                let code = code.is_none() || *code == made.code;
                let base_dir = base_dir.as_ref().is_none_or(|base_dir| *base_dir == made.base_dir);
                from && code && base_dir && data.iter().all(|file| made.data.contains(file))
            }
            Command::Replay { replay, checkpoint, .. } => {
                let begin = || self.runs.get(&replay.of).and_then(|run| run.submission.parent);
                made.replay.as_ref() == Some(replay) && made.parent == checkpoint.or_else(begin)
            }
            _ => return None,
        };
        (!is_same).then(|| Refusal::RequestTaken { request: request.to_string(), run: run.clone() })
    }

    fn dispatch(&mut self, index: u64, command: &Command, effects: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        match command {
            Command::Submit { request, at_ms, job, base_dir, code, data, secret } => {
                let spec = JobSpec::from_canonical(job.as_bytes()).map_err(|error| Refusal::Job(chain(&error)))?;
                buildable(&spec, code.as_ref())?;
                let submission = Submission {
                    id: RunId::derive(index, request),
                    number: index,
                    job: job.clone(),
                    base_dir: base_dir.clone(),
                    code: code.clone(),
                    data: data.clone(),
                    secret: *secret,
                    parent: None,
                    accepted: Vec::new(),
                    replay: None,
                    created_at_ms: *at_ms,
                };
                Ok(self.create(Run::new(submission, spec, None, None)))
            }
            Command::Resume { request, at_ms, checkpoint, accepted, base_dir, data, code, secret } => {
                let (id, parent) = (RunId::derive(index, request), *checkpoint);
                let mut manifest = self.decoded(checkpoint)?;
                let changed = accept::data(&mut manifest.data, data).map_err(Refusal::NoData)?;
                accept::remember(&mut manifest.overrides, changed);
                if let Some(code) = code {
                    if !accept::accepts(accepted, accept::CODE) {
                        return Err(Refusal::Job("other code than the checkpoint's was not accepted".to_owned()));
                    }
                    let changed = accept::code(&mut manifest.code, code);
                    accept::remember(&mut manifest.overrides, changed);
                }
                if let Some(base_dir) = base_dir {
                    manifest.base_dir.clone_from(base_dir);
                }
                let (accepted, secret, created_at_ms) = (accepted.clone(), *secret, *at_ms);
                let origin = Origin { id, number: index, parent, accepted, secret, created_at_ms };
                self.resume(origin, manifest)
            }
            Command::Replay { request, at_ms, replay, checkpoint, secret } => {
                self.replay(RunId::derive(index, request), index, *at_ms, replay, checkpoint.as_ref(), secret)
            }
            Command::Cancel { at_ms, run, .. } => {
                let found = self.runs.get(run).ok_or_else(|| Refusal::NoRun(run.to_string()))?;
                if found.state.status.is_final() {
                    return Err(Refusal::Ended { run: run.clone(), status: found.state.status.to_string() });
                }
                self.end_run(*at_ms, run, Status::Cancelled);
                Ok(Outcome::Done)
            }
            Command::Annotate { run, tags, note, .. } => {
                check_annotation(tags.as_deref().unwrap_or_default(), note.as_deref().unwrap_or_default())?;
                let found = self.run_mut(run).ok_or_else(|| Refusal::NoRun(run.to_string()))?;
                if let Some(tags) = tags {
                    found.state.tags = tags.iter().cloned().collect();
                }
                if let Some(note) = note {
                    found.state.note.clone_from(note);
                }
                Ok(Outcome::Done)
            }
            Command::Fence { at_ms, node, device, fenced, .. } => {
                self.fence_by_hand(*at_ms, node, device.as_deref(), *fenced, effects)
            }
            Command::NodeJoined { at_ms, node, incarnation, agent, host, devices } => {
                self.node_joined((index, *at_ms), &Joining { node, incarnation, agent, host, devices }, effects)
            }
            Command::NodeLeaving { at_ms, node, incarnation } => {
                self.node_leaving(*at_ms, node, incarnation);
                Ok(Outcome::Done)
            }
            Command::NodeDetached { at_ms, node, joined } => {
                self.node_detached(*at_ms, node, *joined, effects);
                Ok(Outcome::Done)
            }
            Command::NodeForgotten { node, .. } => self.forget_node(node),
            Command::NodeLost { at_ms, node, incarnation } => {
                self.node_lost(*at_ms, node, incarnation, effects);
                Ok(Outcome::Done)
            }
            Command::Report { at_ms, run, generation, process, sequence, from, body } => {
                let spoken = Spoken {
                    generation: *generation,
                    process: *process,
                    sequence: *sequence,
                    from: from.as_ref(),
                    body,
                };
                self.report(*at_ms, run, &spoken, effects)
            }
            Command::Configure { retries } => {
                if self.retries != *retries {
                    self.retries = *retries;
                    self.changed.insert(RowKey::Retries);
                }
                Ok(Outcome::Done)
            }
            Command::Silent { at_ms, run, generation, seconds } => {
                self.start_anew(*at_ms, run, *generation, *seconds, effects);
                Ok(Outcome::Done)
            }
            Command::Due { run, generation } => {
                self.end_pause(run, *generation);
                Ok(Outcome::Done)
            }
            Command::Commit { at_ms, run, generation, step, checkpoint } => {
                self.commit_opened(*at_ms, run, (*generation, *step), checkpoint, effects);
                Ok(Outcome::Done)
            }
            Command::CommitFailed { at_ms, run, generation, step, reason } => {
                self.commit_failed(*at_ms, run, (*generation, *step), reason, effects);
                Ok(Outcome::Done)
            }
        }
    }

    fn decoded(&self, checkpoint: &Digest) -> Result<Manifest, Refusal> {
        let manifest = self.manifests.get(checkpoint).and_then(|bytes| Manifest::decode(bytes).ok());
        manifest.ok_or_else(|| Refusal::NoCheckpoint(checkpoint.to_string()))
    }

    /// Goes on from a checkpoint, whose `manifest` has what was accepted already.
    fn resume(&mut self, origin: Origin, manifest: Manifest) -> Result<Outcome, Refusal> {
        let Origin { id, number, parent, accepted, secret, created_at_ms } = origin;
        let spec = JobSpec::from_canonical(manifest.job_text.as_bytes()).map_err(|e| Refusal::Job(chain(&e)))?;
        if manifest.step >= spec.steps {
            return Err(Refusal::NothingLeft { checkpoint: parent.short(), step: manifest.step });
        }
        buildable(&spec, manifest.code.as_ref())?;
        let submission = Submission {
            id,
            number,
            job: manifest.job_text,
            base_dir: manifest.base_dir,
            code: manifest.code,
            data: manifest.data,
            secret,
            parent: Some(parent),
            accepted,
            replay: None,
            created_at_ms,
        };
        let restore = Restore { checkpoint: parent, step: manifest.step };
        let kind = self.runs.get(&manifest.run).and_then(|run| run.state.kind);
        let mut run = Run::new(submission, spec, Some(restore), kind);
        run.state.overrides = manifest.overrides;
        Ok(self.create(run))
    }

    fn replay(
        &mut self,
        id: RunId,
        index: u64,
        at_ms: u64,
        replay: &Replay,
        checkpoint: Option<&Digest>,
        secret: &[u8; 32],
    ) -> Result<Outcome, Refusal> {
        let run = self.runs.get(&replay.of).ok_or_else(|| Refusal::NoRun(replay.of.to_string()))?;
        let refused = |reason: String| Refusal::Replay { run: replay.of.clone(), reason };
        let parent = run.submission.parent;
        let begin = checkpoint.copied().or(parent);
        let step = match begin {
            None => 0,
            Some(id) if Some(id) == parent || run.checkpoints.values().any(|made| made.id == id) => {
                self.decoded(&id)?.step
            }
            Some(id) => return Err(refused(format!("checkpoint `{}` is none of its own", id.short()))),
        };
        if replay.until <= step || replay.until > run.last_step() {
            let last = run.last_step();
            return Err(refused(format!("step {} is not between {} and {last}", replay.until, step + 1)));
        }
        let submission = Submission {
            id,
            number: index,
            secret: *secret,
            parent: begin,
            replay: Some(replay.clone()),
            created_at_ms: at_ms,
            ..run.submission.clone()
        };
        let restore = begin.map(|checkpoint| Restore { checkpoint, step });
        let (job, kind) = (run.job.clone(), run.state.kind);
        Ok(self.create(Run::new(submission, job, restore, kind)))
    }

    fn create(&mut self, run: Run) -> Outcome {
        let id = run.id().clone();
        self.changed.extend([RowKey::Submission(id.clone()), RowKey::Run(id.clone())]);
        self.runs.insert(id.clone(), run);
        self.place_queued();
        Outcome::Run(id)
    }

    /// Ends a run and gives its devices to others. Its written checkpoints are still opened.
    pub(super) fn end_run(&mut self, at_ms: u64, id: &RunId, status: Status) {
        self.owe_written(at_ms, id);
        if let Some(run) = self.run_mut(id) {
            run.end(at_ms, status);
        }
        self.place_queued();
    }

    /// Gives the current generation up; the next one begins from the last committed checkpoint, once the written ones are
    /// opened.
    pub(super) fn leave_generation(&mut self, at_ms: u64, id: &RunId, effects: &mut Vec<Effect>) {
        self.owe_written(at_ms, id);
        let Some(run) = self.run_mut(id) else { return };
        run.next_generation();
        if run.owed.is_empty() {
            self.rewind(id, effects);
        }
    }

    fn remember(&mut self, request: &RequestId, answered: Answered) {
        self.changed.insert(RowKey::Request(request.clone()));
        if let Some(forgotten) = self.requests.insert(request.clone(), answered) {
            self.changed.insert(RowKey::Request(forgotten));
        }
    }
}

/// What a command that makes no run asks for, but for its time: with the same request id it gets the same answer, and another does not.
fn asked(command: &Command) -> Option<Digest> {
    let mut command = match command {
        Command::Cancel { .. } | Command::Fence { .. } | Command::Annotate { .. } | Command::NodeForgotten { .. } => {
            command.clone()
        }
        _ => return None,
    };
    if let Command::Cancel { at_ms, .. } | Command::Fence { at_ms, .. } = &mut command {
        *at_ms = 0;
    }
    Some(Domain::Request.digest(&encode(&command)))
}

/// Refuses a job whose program nobody could build.
fn buildable(spec: &JobSpec, code: Option<&CodeVersion>) -> Result<(), Refusal> {
    if spec.program.is_some() && code.is_none_or(|code| code.tree.is_none()) {
        return Err(Refusal::Job("its program has no work tree that it could be built from".to_owned()));
    }
    Ok(())
}
