//! How many images, texts, files and series a run may have, and what was left out of one that has more.

use lockstep_alarms::{Alarm, Kind, Severity};
use lockstep_common::series::SeriesKey;
use lockstep_common::{RunId, printable};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::database::Media;

/// What one run may have. Steps that it was rolled back from count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quota {
    /// Images, texts and files.
    pub items: u64,
    /// Bytes of all of them.
    pub bytes: u64,
    /// Bytes of short texts, which are kept here and read together.
    pub text_bytes: u64,
    /// Series, of Lockstep's own and of the program's, by name and rank.
    pub series: u64,
}

/// Bytes of a name of a series or a distribution.
pub(crate) const NAME_BYTES: usize = 512;

impl Default for Quota {
    fn default() -> Self {
        Self { items: 10_000, bytes: 16 << 30, text_bytes: 32 << 20, series: 100_000 }
    }
}

/// Letters of a name that are said.
const NAME_LETTERS: usize = 100;

/// What a run has.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Used {
    items: u64,
    bytes: u64,
    text_bytes: u64,
}

/// What a run has no room for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LeftOut {
    items: u64,
    /// The first of them, as the next.
    name: String,
    step: u64,
    at_ms: u64,
    /// What there is too much of.
    why: String,
}

impl Used {
    pub(crate) fn add(&mut self, one: &Media) {
        let (text, bytes) = sizes(one);
        self.items = self.items.saturating_add(1);
        self.bytes = self.bytes.saturating_add(bytes);
        self.text_bytes = self.text_bytes.saturating_add(text);
    }

    /// Takes `one`, if there is room for it.
    ///
    /// # Errors
    /// What there would be too much of.
    pub(crate) fn take(&mut self, one: &Media, quota: &Quota) -> Result<(), String> {
        let mut with = *self;
        with.add(one);
        let over = [
            (with.items, quota.items, "images, texts and files", "media"),
            (with.bytes, quota.bytes, "bytes of images, texts and files", "media_bytes"),
            (with.text_bytes, quota.text_bytes, "bytes of short texts", "text_bytes"),
        ];
        if let Some((_, most, what, key)) = over.into_iter().find(|(have, most, ..)| have > most) {
            return Err(format!("a run may have {most} {what} (`limits.{key}` of the coordinator)"));
        }
        *self = with;
        Ok(())
    }
}

/// Adds `one` to what was left out of `run`. True if it is the first.
pub(crate) fn leave_out(
    left: &mut Option<LeftOut>,
    run: &RunId,
    (name, step, at_ms): (String, u64, u64),
    why: String,
) -> bool {
    if let Some(left) = left {
        left.items = left.items.saturating_add(1);
        return false;
    }
    let name = printable(&name.chars().take(NAME_LETTERS).collect::<String>()).into_owned();
    warn!(%run, name, step, "is not listed, and nor is what comes after it without room: {why}");
    *left = Some(LeftOut { items: 1, name, step, at_ms, why });
    true
}

impl LeftOut {
    pub(crate) fn alarm(&self) -> Alarm {
        let Self { items, name, step, at_ms, why } = self;
        let more = if *items > 1 { format!(", nor are {} that came later", items - 1) } else { String::new() };
        Alarm {
            kind: Kind::MediaLeftOut,
            severity: Severity::Warning,
            since_step: *step,
            since_ms: *at_ms,
            until_step: None,
            place: None,
            series: SeriesKey::whole("loss"),
            title: "images, texts, files or series are left out".to_owned(),
            what: format!("`{name}` of step {step} is not listed with the run{more}: {why}"),
            try_: remedies(why),
        }
    }
}

/// What helps against `why`.
fn remedies(why: &str) -> Vec<String> {
    if !why.contains("(`limits.") {
        return vec!["report it under a short name in plain letters, by this version's library".to_owned()];
    }
    vec![
        "keep fewer or smaller ones, or keep them less often".to_owned(),
        "raise the limit in coordinator.toml, and start the coordinator again".to_owned(),
    ]
}

/// Bytes of a short text, and of all.
fn sizes(one: &Media) -> (u64, u64) {
    let text = (one.text.len() + one.name.len()) as u64;
    (text, one.blob.as_ref().map_or(0, |(_, bytes)| *bytes).saturating_add(text))
}
