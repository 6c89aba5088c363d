//! The alarms of a run, active and ended.

use lockstep_common::series::SeriesKey;
use serde::{Deserialize, Serialize};

use crate::alarm::{Alarm, Kind, Severity};

/// Limit for the alarms of a run. Further ones are not recorded: a run with so many needs no more.
const MOST: usize = 256;

/// Limit for the alarms of one kind and subject. A fault that comes and goes more often updates its last alarm instead.
const MOST_OF_ONE: usize = 8;

/// A fault that a detector found.
pub(crate) struct Finding {
    pub(crate) kind: Kind,
    /// Tells apart faults of one kind, for example by process. At most one alarm of each kind and subject is active.
    pub(crate) subject: Option<u32>,
    pub(crate) severity: Severity,
    pub(crate) since: u32,
    pub(crate) since_ms: u64,
    pub(crate) place: Option<String>,
    pub(crate) series: SeriesKey,
    pub(crate) title: String,
    pub(crate) what: String,
    pub(crate) advice: &'static [&'static str],
    /// The value by which the detector later decides that the fault has ended; its meaning depends on the kind.
    pub(crate) level: f64,
}

/// An alarm with the values that its detector needs later.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Entry {
    /// Number of alarms that were raised before this one, including those that a rollback removed.
    number: u64,
    subject: Option<u32>,
    pub(crate) level: f64,
    pub(crate) alarm: Alarm,
}

/// Holds at most [`MOST`] alarms, in the order in which they were raised.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Board {
    entries: Vec<Entry>,
    /// Number of all alarms that were ever raised, and of those that [`Self::take_raised`] has returned or skipped.
    raised: u64,
    told: u64,
}

impl Board {
    /// Raises an alarm, or updates the active one of the same kind and subject, which keeps its beginning and its level.
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
        // An alarm that was ended too early, after this finding began, becomes active again.
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

    /// Ends the active alarm of this kind and subject, if there is one, at step `until`.
    pub(crate) fn end(&mut self, kind: Kind, subject: Option<u32>, until: u32) {
        for entry in &mut self.entries {
            if (entry.alarm.kind, entry.subject) == (kind, subject) && entry.alarm.until_step.is_none() {
                entry.alarm.until_step = Some(u64::from(until).max(entry.alarm.since_step));
            }
        }
    }

    /// Moves the beginning of the active alarm of this kind to `step`, which is earlier.
    pub(crate) fn antedate(&mut self, kind: Kind, step: u32, at_ms: u64) {
        for entry in &mut self.entries {
            if entry.alarm.kind == kind && entry.alarm.until_step.is_none() {
                (entry.alarm.since_step, entry.alarm.since_ms) = (u64::from(step), at_ms);
            }
        }
    }

    /// Restores the state after `step`: removes alarms that began later, and makes those active that ended later.
    pub(crate) fn rewind(&mut self, step: u64) {
        self.entries.retain(|entry| entry.alarm.since_step <= step);
        for entry in &mut self.entries {
            entry.alarm.until_step = entry.alarm.until_step.filter(|&until| until <= step);
        }
    }

    /// The alarms that were raised since the last call.
    pub(crate) fn take_raised(&mut self) -> Vec<Alarm> {
        let told = std::mem::replace(&mut self.told, self.raised);
        if told == self.raised {
            return Vec::new();
        }
        self.entries.iter().filter(|entry| entry.number >= told).map(|entry| entry.alarm.clone()).collect()
    }

    /// Number of active alarms.
    pub(crate) fn count_standing(&self) -> usize {
        self.entries.iter().filter(|entry| entry.alarm.until_step.is_none()).count()
    }

    /// All alarms, by the step at which they began.
    pub(crate) fn alarms(&self) -> Vec<Alarm> {
        let mut all: Vec<Alarm> = self.entries.iter().map(|entry| entry.alarm.clone()).collect();
        all.sort_by_key(|alarm| alarm.since_step);
        all
    }
}
