//! The alarms of a run: those that stand, and those that are over.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

use crate::alarm::{Alarm, Kind, Severity};

/// Alarms kept of a run: one that had more has told enough.
const MOST: usize = 256;

/// Of them, those of one kind and subject: what comes and goes more often goes on instead.
const MOST_OF_ONE: usize = 8;

/// What a detector found.
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// Which of its kind: the process it is of, for example. One stands at a time of each kind and subject.
    pub(crate) subject: Option<u32>,
    pub(crate) severity: Severity,
    pub(crate) since: u32,
    pub(crate) since_ms: u64,
    pub(crate) place: Option<String>,
    pub(crate) series: SeriesKey,
    pub(crate) title: String,
    pub(crate) what: String,
    pub(crate) advice: &'static [&'static str],
    /// The detector's own: by what it will tell that it is over.
    pub(crate) level: f64,
}

/// An alarm and what its detector needs of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// How many were raised before.
    number: u64,
    subject: Option<u32>,
    pub(crate) level: f64,
    pub(crate) alarm: Alarm,
}

/// See the module.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Board {
    entries: Vec<Entry>,
    /// How many were ever raised, and up to which of them it was told.
    raised: u64,
    told: u64,
}

impl Board {
    /// Writes it on the board, or anew what stands there of its kind and subject; that keeps its beginning and level.
    pub(crate) fn raise(&mut self, found: Finding) {
        let since = u64::from(found.since);
        let alarm = Alarm {
            kind: found.kind,
            severity: found.severity,
            since_step: since,
            since_ms: found.since_ms,
            until_step: None,
            place: found.place,
            series: found.series,
            title: found.title,
            what: found.what,
            try_: found.advice.iter().map(ToString::to_string).collect(),
        };
        let same = |entry: &Entry| (entry.alarm.kind, entry.subject) == (found.kind, found.subject);
        let often = self.entries.iter().filter(|entry| same(entry)).count() >= MOST_OF_ONE;
        // One that was over too soon goes on.
        let known = self
            .entries
            .iter_mut()
            .rev()
            .find(|entry| same(entry) && (often || entry.alarm.until_step.is_none_or(|until| since <= until)));
        if let Some(entry) = known {
            let (since_step, since_ms) = (entry.alarm.since_step, entry.alarm.since_ms);
            entry.alarm = Alarm { since_step, since_ms, ..alarm };
        } else if self.entries.len() < MOST {
            self.entries.push(Entry { number: self.raised, subject: found.subject, level: found.level, alarm });
            self.raised += 1;
        }
    }

    pub(crate) fn standing(&self, kind: Kind, subject: Option<u32>) -> Option<&Entry> {
        self.entries
            .iter()
            .find(|entry| (entry.alarm.kind, entry.subject) == (kind, subject) && entry.alarm.until_step.is_none())
    }

    /// It is over since `until`, if it stood.
    pub(crate) fn end(&mut self, kind: Kind, subject: Option<u32>, until: u32) {
        for entry in &mut self.entries {
            if (entry.alarm.kind, entry.subject) == (kind, subject) && entry.alarm.until_step.is_none() {
                entry.alarm.until_step = Some(u64::from(until).max(entry.alarm.since_step));
            }
        }
    }

    /// One that stands of this kind began at `step` already.
    pub(crate) fn antedate(&mut self, kind: Kind, step: u32, at_ms: u64) {
        for entry in &mut self.entries {
            if entry.alarm.kind == kind && entry.alarm.until_step.is_none() {
                (entry.alarm.since_step, entry.alarm.since_ms) = (u64::from(step), at_ms);
            }
        }
    }

    /// As after `step`: what began later never was, what ended later stands.
    pub(crate) fn rewind(&mut self, step: u64) {
        self.entries.retain(|entry| entry.alarm.since_step <= step);
        for entry in &mut self.entries {
            entry.alarm.until_step = entry.alarm.until_step.filter(|&until| until <= step);
        }
    }

    /// Those that were raised since the last call.
    pub(crate) fn take_raised(&mut self) -> Vec<Alarm> {
        let told = std::mem::replace(&mut self.told, self.raised);
        if told == self.raised {
            return Vec::new();
        }
        self.entries.iter().filter(|entry| entry.number >= told).map(|entry| entry.alarm.clone()).collect()
    }

    /// How many stand.
    pub(crate) fn count_standing(&self) -> usize {
        self.entries.iter().filter(|entry| entry.alarm.until_step.is_none()).count()
    }

    /// All, by when they began.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> = self.entries.iter().map(|entry| entry.alarm.clone()).collect();
        all.sort_by_key(|alarm| alarm.since_step);
        all
    }
}
