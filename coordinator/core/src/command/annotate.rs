//! `Annotate`: tags and a note that people write on a run.

use lockstep_common::{RequestId, RunId, quoted};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, TEXT_BYTES};

/// Tags of a run, and letters of one.
const TAGS: usize = 32;
const TAG_LETTERS: usize = 64;

/// A person writes on a run. It changes nothing about it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotate {
    /// However often it comes, it is applied once.
    pub request: RequestId,
    /// The run.
    pub run: RunId,
    /// In place of those that it has.
    pub tags: Option<Vec<String>>,
    /// As well.
    pub note: Option<String>,
}

impl Apply for Annotate {
    fn apply(&self, state: &mut ClusterState, _: u64, _: &mut Vec<Effect>) -> Result<Outcome, Refusal> {
        check_annotation(self.tags.as_deref().unwrap_or_default(), self.note.as_deref().unwrap_or_default())?;
        let no_run = || Refusal::NoRun(self.run.to_string());
        let (tags, note) = if state.archived(&self.run).is_some() {
            state.archived_mut(&self.run).map(|run| (&mut run.tags, &mut run.note))
        } else {
            state.run_mut(&self.run).map(|run| (&mut run.state.tags, &mut run.state.note))
        }
        .ok_or_else(no_run)?;
        if let Some(new) = &self.tags {
            *tags = new.iter().cloned().collect();
        }
        if let Some(new) = &self.note {
            note.clone_from(new);
        }
        Ok(Outcome::Done)
    }

    fn request(&self) -> Option<Request<'_>> {
        Some(Request::change(&self.request, "Annotate", self))
    }
}

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
