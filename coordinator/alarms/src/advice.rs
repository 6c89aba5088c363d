//! Advice of an alarm, fitted to the run: it names only checkpoints that exist, and bfloat16 only if the run uses it.

use crate::alarm::{Alarm, Kind};

/// Settings of a job that make training steps smaller.
const GENTLER: &str = "a lower `optimizer.lr` or more `schedule.warmup_steps`";

/// Properties of a run that its advice depends on and its series do not contain.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Step and short id of each checkpoint, by ascending step.
    pub checkpoints: Vec<(u64, String)>,
    /// The forward pass computes in bfloat16.
    pub is_bf16: bool,
}

impl Alarm {
    /// Replaces the first entry of `try` by one that names a checkpoint of `facts`, for the kinds whose advice depends on it.
    pub fn advise(&mut self, facts: &Facts) {
        let first = match self.kind {
            Kind::NotFinite => match facts.before(self.since_step) {
                Ok((step, id)) => format!(
                    "correct the data or the code, then resume from the last checkpoint before it, at step {step} \
                     (`coord resume {id} --accept data` or `--accept code`); without a change it repeats the same steps"
                ),
                Err(none) => {
                    format!(
                        "{none} with corrected data or code, and write checkpoints more often (`checkpoint.every_steps`)"
                    )
                }
            },
            Kind::Divergence => match facts.before(self.since_step) {
                Ok((step, id)) => format!(
                    "submit the run again with {GENTLER}, which `coord resume` cannot change; `coord export {id} --to DIR` \
                     exports the model of the last checkpoint before it, at step {step}"
                ),
                Err(none) => {
                    format!("{none} with {GENTLER}, and write checkpoints more often (`checkpoint.every_steps`)")
                }
            },
            Kind::Overfitting => facts.nearest(self.since_step),
            _ => return,
        };
        if let Some(line) = self.try_.first_mut() {
            *line = first;
        }
        if self.kind == Kind::NotFinite && facts.is_bf16 {
            self.try_.push("set `numerics.autocast = \"off\"` to see whether bfloat16 is the cause".to_owned());
        }
    }
}

impl Facts {
    /// Step and id of the last checkpoint before step `since`, or the beginning of a sentence that says that there is none.
    fn before(&self, since: u64) -> Result<&(u64, String), String> {
        let last = self.checkpoints.iter().rev().find(|(step, _)| *step < since);
        last.ok_or_else(|| format!("no checkpoint was written before step {since}: submit the run again"))
    }

    /// Names the checkpoint nearest to the minimum at step `least`.
    fn nearest(&self, least: u64) -> String {
        match self.checkpoints.iter().min_by_key(|(step, _)| step.abs_diff(least)) {
            Some((step, id)) => format!(
                "use the checkpoint at step {step} (`{id}`), the nearest to the minimum at step {least}; end the next run there"
            ),
            None => format!(
                "the run has no checkpoint near the minimum at step {least}: end the next run there, and write checkpoints \
                 (`checkpoint.every_steps`)"
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::series::SeriesKey;

    use super::*;
    use crate::alarm::Severity;

    fn advised(kind: Kind, since_step: u64, facts: &Facts) -> Vec<String> {
        let mut alarm = Alarm {
            kind,
            severity: Severity::Error,
            since_step,
            since_ms: 0,
            until_step: None,
            place: None,
            series: SeriesKey::whole("loss"),
            title: String::new(),
            what: String::new(),
            try_: vec!["the general one".to_owned(), "the second".to_owned()],
        };
        alarm.advise(facts);
        assert_eq!(alarm.try_[1], "the second");
        alarm.try_
    }

    #[test]
    fn advice_names_a_checkpoint_that_is_there_and_from_before() {
        let facts = Facts { checkpoints: vec![(20, "aa".to_owned()), (40, "bb".to_owned())], is_bf16: false };
        let none = Facts::default();
        let cases = [
            (Kind::NotFinite, 41, &facts, "at step 40 (`coord resume bb --accept data` or `--accept code`)"),
            (Kind::NotFinite, 40, &facts, "at step 20 (`coord resume aa --accept"),
            (
                Kind::Divergence,
                25,
                &facts,
                "`coord export aa --to DIR` exports the model of the last checkpoint before it, at step 20",
            ),
            (
                Kind::Divergence,
                20,
                &facts,
                "before step 20: submit the run again with a lower `optimizer.lr` or more `schedule.warmup_steps`, and",
            ),
            (
                Kind::NotFinite,
                9,
                &none,
                "no checkpoint was written before step 9: submit the run again with corrected data or code, and write",
            ),
            (
                Kind::Overfitting,
                34,
                &facts,
                "use the checkpoint at step 40 (`bb`), the nearest to the minimum at step 34",
            ),
            (Kind::Overfitting, 34, &none, "has no checkpoint near the minimum at step 34"),
            (Kind::Plateau, 34, &none, "the general one"),
        ];
        for (kind, since, facts, words) in cases {
            let said = advised(kind, since, facts);
            assert!(said[0].contains(words) && said.len() == 2, "{said:?}");
        }
    }

    #[test]
    fn bfloat16_is_named_only_where_it_is_used() {
        let facts = Facts { is_bf16: true, ..Facts::default() };
        let said = advised(Kind::NotFinite, 3, &facts);
        assert!(said.len() == 3 && said[2].contains("bfloat16"), "{said:?}");
        assert_eq!(advised(Kind::Divergence, 3, &facts).len(), 2);
    }
}
