//! What to try, in the terms of the run: no checkpoint is named that does not exist, and no precision that it does not use.

use crate::alarm::{Alarm, Kind};

/// What advice needs to know of a run beside its numbers.
#[derive(Clone, Debug, Default)]
pub struct Facts {
    /// Step and short id of each checkpoint, by ascending step.
    pub checkpoints: Vec<(u64, String)>,
    /// The forward pass computes in bfloat16.
    pub is_bf16: bool,
}

impl Alarm {
    /// Puts `facts` into what to try. Without, advice begins with "if there is one".
    pub fn advise(&mut self, facts: &Facts) {
        let first = match self.kind {
            Kind::NotFinite => facts.before(self.since_step, "; everything after it is lost"),
            Kind::Divergence => facts.before(self.since_step, ", with a lower learning rate or a longer warm-up"),
            Kind::Overfitting => facts.nearest(self.since_step),
            _ => return,
        };
        if let Some(line) = self.try_.first_mut() {
            *line = first;
        }
        if self.kind == Kind::NotFinite && facts.is_bf16 {
            self.try_.push("set `numerics.autocast = \"off\"`, to see whether bfloat16 is the cause".to_owned());
        }
    }
}

impl Facts {
    /// Where to go on from once step `since` is wrong, and `how`.
    fn before(&self, since: u64, how: &str) -> String {
        match self.checkpoints.iter().rev().find(|(step, _)| *step < since) {
            Some((step, id)) => {
                format!("resume from the last checkpoint before it, at step {step} (`coord resume {id}`){how}")
            }
            None => format!(
                "no checkpoint was written before step {since}: submit the run again{}, and write checkpoints more often \
                 (`checkpoint.every_steps`)",
                how.strip_prefix(',').unwrap_or_default()
            ),
        }
    }

    /// The checkpoint that is nearest to the minimum at step `least`.
    fn nearest(&self, least: u64) -> String {
        match self.checkpoints.iter().min_by_key(|(step, _)| step.abs_diff(least)) {
            Some((step, id)) => format!(
                "take the checkpoint at step {step} (`{id}`), the nearest to the minimum at step {least}, and stop there next time"
            ),
            None => format!(
                "the run has no checkpoint of the minimum at step {least}: stop there next time, and write checkpoints \
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
            (Kind::NotFinite, 41, &facts, "at step 40 (`coord resume bb`); everything after it is lost"),
            (Kind::NotFinite, 40, &facts, "at step 20 (`coord resume aa`)"),
            (Kind::Divergence, 25, &facts, "at step 20 (`coord resume aa`), with a lower learning rate"),
            (
                Kind::Divergence,
                20,
                &facts,
                "before step 20: submit the run again with a lower learning rate or a longer warm-up, and",
            ),
            (Kind::NotFinite, 9, &none, "no checkpoint was written before step 9: submit the run again, and write"),
            (
                Kind::Overfitting,
                34,
                &facts,
                "take the checkpoint at step 40 (`bb`), the nearest to the minimum at step 34",
            ),
            (Kind::Overfitting, 34, &none, "has no checkpoint of the minimum at step 34"),
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
