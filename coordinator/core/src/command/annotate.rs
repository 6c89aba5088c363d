//! `Annotate`: sets the tags and the note of a run.

use lockstep_common::{RequestId, RunId, quoted};
use serde::{Deserialize, Serialize};

use super::apply::{Apply, Request};
use crate::outcome::{Effect, Outcome, Refusal};
use crate::state::{ClusterState, TEXT_BYTES};

/// Maximum number of tags per run.
const TAGS: usize = 32;
/// Maximum number of characters per tag.
const TAG_LETTERS: usize = 64;

/// Sets the tags or the note of a run, also after its end. The training is not affected.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Annotate {
    /// Id of the request; a repeated request is applied once (I4).
    pub request: RequestId,
    /// The run, which may be archived.
    pub run: RunId,
    /// New tags, which replace all old ones; `None`: unchanged.
    pub tags: Option<Vec<String>>,
    /// New note, which replaces the old one; `None`: unchanged.
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

/// Checks tags and note. Tags are words without spaces, because filters and other tools use them as names.
///
/// # Errors
/// `Annotation`, with the limit that is exceeded.
pub fn check_annotation(tags: &[String], note: &str) -> Result<(), Refusal> {
    if tags.len() > TAGS {
        return Err(Refusal::Annotation(format!("{} tags are too many: a run can have at most {TAGS}", tags.len())));
    }
    let sound = |tag: &&String| {
        !tag.is_empty()
            && tag.chars().count() <= TAG_LETTERS
            && tag.chars().all(|letter| letter.is_alphanumeric() || "-_.:/=".contains(letter))
    };
    if let Some(bad) = tags.iter().find(|tag| !sound(tag)) {
        let words = format!("`{}` is not a tag: use 1 to {TAG_LETTERS} letters, digits and `-_.:/=`", quoted(bad));
        return Err(Refusal::Annotation(words));
    }
    if note.len() > TEXT_BYTES {
        return Err(Refusal::Annotation(format!("the note has {} bytes: use at most {TEXT_BYTES}", note.len())));
    }
    Ok(())
}
