//! Compares two records: the first step and the values at which they diverge.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use lockstep_common::Digest;
use lockstep_common::manifest::RecordPosition;
use lockstep_common::record::{Evidence, Fingerprints};
use lockstep_rpc::ReportBlock;
use serde::Serialize;

use crate::connection::Client;
use crate::terminal::{Exit, Failure};

/// Most tensors that are listed by name. One step after the first wrong tensor, all may differ.
const NAMED_TENSORS: usize = 5;

/// A run's record, by step.
#[derive(Debug, Default)]
pub(crate) struct Record {
    steps: BTreeMap<u64, Evidence>,
    fingerprints: BTreeMap<u64, Fingerprints>,
    /// By the first step of each block: the record's digest before it, as the block has it.
    links: BTreeMap<u64, Vec<u8>>,
}

impl Record {
    /// Reads the record of `run` so far and checks that it was not altered: its digest, computed from `began` on, must be the one that each
    /// block has for the step before it, and the one of `stood`, which comes from a checkpoint.
    ///
    /// # Errors
    /// `Differs` if the digests do not match.
    pub(crate) async fn read(
        client: &mut Client,
        run: &str,
        began: &RecordPosition,
        stood: Option<&RecordPosition>,
    ) -> Result<Self, Failure> {
        let mut record = Self::default();
        let mut reports = client.reports(run, false).await.map_err(|status| client.failure(status))?;
        while let Some(block) = reports.next().await.map_err(|status| client.failure(status))? {
            record.push(block);
        }
        record.audit(began, stood).map_err(|reason| {
            Failure::new(Exit::Differs, format!("the stored record of run {run} was altered: {reason}"))
        })?;
        Ok(record)
    }

    fn push(&mut self, block: ReportBlock) {
        if let Some(first) = block.steps.first() {
            self.links.insert(first.step, block.record_before);
        }
        for step in block.steps {
            let lockstep_rpc::StepReport { step, loss, grad_norm, lr, positions, fingerprint, contents, .. } = step;
            self.steps.insert(step, Evidence { step, loss, grad_norm, lr, positions, fingerprint, contents });
        }
        for report in block.fingerprints {
            self.fingerprints.insert(report.step, Fingerprints { names: report.names, sums: report.sums });
        }
    }

    /// Checks the chain of digests, and returns what does not match.
    fn audit(&self, began: &RecordPosition, stood: Option<&RecordPosition>) -> Result<(), String> {
        let (mut digest, mut last) = (began.digest, began.steps);
        let check = |step: u64, found: &Digest| match stood {
            Some(stood) if stood.steps == step && stood.digest != *found => {
                let (named, found) = (stood.digest.short(), found.short());
                Err(format!("the checkpoint at step {step} names digest `{named}`, but the record has `{found}`"))
            }
            _ => Ok(()),
        };
        check(last, &digest)?;
        for (step, evidence) in &self.steps {
            if *step != last + 1 {
                return Err(format!("after step {last} comes step {step}"));
            }
            if self.links.get(step).is_some_and(|before| *before != digest.as_bytes()) {
                return Err(format!("the block that begins with step {step} does not continue the block before it"));
            }
            (digest, last) = (evidence.chain(&digest), *step);
            check(last, &digest)?;
        }
        match stood {
            Some(stood) if stood.steps > last => {
                Err(format!("it ends at step {last}, before the checkpoint at step {}", stood.steps))
            }
            _ => Ok(()),
        }
    }

    /// The last step that both records have.
    pub(crate) fn last_common(&self, other: &Self) -> Option<u64> {
        self.steps.keys().rev().find(|step| other.steps.contains_key(step)).copied()
    }

    /// The first step that both records have.
    pub(crate) fn first_common(&self, other: &Self) -> Option<u64> {
        self.steps.keys().find(|step| other.steps.contains_key(step)).copied()
    }
}

/// The result of comparing two records over a range of steps.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(crate) struct Comparison {
    /// Number of steps with equal values, before the records diverge.
    pub(crate) steps: usize,
    /// Number of those steps with equal fingerprints.
    pub(crate) fingerprints: usize,
    /// The last step with equal fingerprints: up to there all tensors agreed.
    pub(crate) agreed: Option<u64>,
    /// Where the records diverge; `None` if they are equal.
    pub(crate) parting: Option<Parting>,
}

/// The step at which two records diverge.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Parting {
    /// The first step that differs.
    pub(crate) step: u64,
    /// The values that differ at that step, in the order in which a step computes them.
    pub(crate) parts: Vec<Part>,
    /// Comparison at the first step, from `step` on, with fingerprints in both records.
    pub(crate) tensors: Option<Tensors>,
}

/// The fingerprints that differ at one step.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Tensors {
    pub(crate) step: u64,
    /// Ranks whose own gradients differ, before they are summed over ranks.
    pub(crate) ranks: Vec<u32>,
    /// Number of all ranks.
    pub(crate) of_ranks: usize,
    /// Tensors that differ, in the order of a forward pass.
    pub(crate) differ: Vec<Part>,
}

/// A value that differs, as 16 hexadecimal digits on each side; `-` on a side that lacks it.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Part {
    pub(crate) name: String,
    pub(crate) a: String,
    pub(crate) b: String,
}

impl Comparison {
    /// Compares `a` and `b` over `steps`. A step that only one of them has is a difference.
    pub(crate) fn over(a: &Record, b: &Record, steps: RangeInclusive<u64>) -> Self {
        let mut found = Self::default();
        for step in steps.clone() {
            let parts = parts(a.steps.get(&step), b.steps.get(&step));
            if !parts.is_empty() {
                found.parting = Some(Parting { step, parts, tensors: tensors(a, b, step..=*steps.end()) });
                return found;
            }
            found.steps += 1;
            if let (Some(of_a), Some(of_b)) = (a.fingerprints.get(&step), b.fingerprints.get(&step)) {
                let tensors = Tensors::between(step, of_a, of_b);
                if !tensors.ranks.is_empty() || !tensors.differ.is_empty() {
                    found.parting = Some(Parting { step, parts: Vec::new(), tensors: Some(tensors) });
                    return found;
                }
                found.fingerprints += 1;
                found.agreed = Some(step);
            }
        }
        found
    }

    pub(crate) fn equal(&self) -> bool {
        self.parting.is_none()
    }

    /// The sentence about equal records of the steps from `first` to `last`.
    pub(crate) fn equal_steps(&self, first: u64, last: u64) -> String {
        let Self { steps, fingerprints, .. } = self;
        let all = if *steps == 1 { "1 step matches".to_owned() } else { format!("all {steps} steps match") };
        format!("{all} bit for bit (steps {first} to {last}, {fingerprints} of them with fingerprints of every tensor)")
    }
}

impl Parting {
    /// Lines of text about the difference; `names` are those of the two sides.
    pub(crate) fn lines(&self, names: (&str, &str)) -> Vec<String> {
        let mut lines = Vec::new();
        for part in &self.parts {
            lines.push(format!(
                "  {:<14}{} {}, {} {}",
                part.name,
                names.0,
                show(&part.name, &part.a),
                names.1,
                show(&part.name, &part.b)
            ));
        }
        match &self.tensors {
            Some(tensors) => lines.extend(tensors.lines(names)),
            None => lines.push("  tensors       no later step has fingerprints in both records".to_owned()),
        }
        lines
    }
}

impl Tensors {
    fn between(step: u64, a: &Fingerprints, b: &Fingerprints) -> Self {
        let mut found = Self { step, ranks: Vec::new(), of_ranks: 0, differ: Vec::new() };
        let rank_of = |name: &str| name.strip_prefix("rank/").and_then(|rank| rank.parse().ok());
        found.of_ranks = a.names.iter().filter(|name| rank_of(name).is_some()).count();
        for (name, of_a, of_b) in a.differences(b) {
            let bits = |sum: Option<u64>| sum.map_or("-".to_owned(), |sum| format!("{sum:016x}"));
            match rank_of(name) {
                Some(rank) => found.ranks.push(rank),
                None => found.differ.push(Part { name: name.to_owned(), a: bits(of_a), b: bits(of_b) }),
            }
        }
        found
    }

    fn lines(&self, names: (&str, &str)) -> Vec<String> {
        let Self { step, ranks, of_ranks, differ } = self;
        let mut lines = Vec::new();
        match ranks.len() {
            0 => {}
            all if all == *of_ranks => {
                lines.push(format!("  ranks         at step {step}, the gradients of all {all} ranks differ"));
            }
            _ => {
                let named: Vec<String> = ranks.iter().map(u32::to_string).collect();
                lines.push(format!(
                    "  ranks         at step {step}, the gradient of rank {} of {of_ranks} differs",
                    named.join(", ")
                ));
            }
        }
        let Some(first) = differ.first() else {
            lines.push(format!(
                "  tensors       none differs at step {step}, the next one with fingerprints in both records"
            ));
            return lines;
        };
        lines.push(format!(
            "  tensors       at step {step}, the first that differs is `{}`: {} {}, {} {}",
            first.name, names.0, first.a, names.1, first.b
        ));
        if differ.len() > 1 {
            let named: Vec<String> =
                differ[1..].iter().take(NAMED_TENSORS).map(|part| format!("`{}`", part.name)).collect();
            let more = differ.len() - 1 - named.len();
            let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
            lines.push(format!("                then {}{rest}", named.join(", ")));
        }
        lines
    }
}

fn parts(a: Option<&Evidence>, b: Option<&Evidence>) -> Vec<Part> {
    let bits = |word: u64| format!("{word:016x}");
    match (a, b) {
        (Some(a), Some(b)) => a
            .differences(b)
            .into_iter()
            .map(|(name, a, b)| Part { name: name.to_owned(), a: bits(a), b: bits(b) })
            .collect(),
        (None, None) => vec![Part { name: "step".to_owned(), a: "-".to_owned(), b: "-".to_owned() }],
        (a, b) => {
            let side = |side: Option<&Evidence>| side.map_or("-".to_owned(), |step| bits(step.step));
            vec![Part { name: "step".to_owned(), a: side(a), b: side(b) }]
        }
    }
}

/// The comparison at the first of `steps` with fingerprints in both records.
fn tensors(a: &Record, b: &Record, steps: RangeInclusive<u64>) -> Option<Tensors> {
    let (step, of_a, of_b) =
        a.fingerprints.range(steps).find_map(|(step, of_a)| Some((*step, of_a, b.fingerprints.get(step)?)))?;
    Some(Tensors::between(step, of_a, of_b))
}

/// Bits as text, after their number if they are one.
fn show(name: &str, bits: &str) -> String {
    match (name, u64::from_str_radix(bits, 16)) {
        ("loss" | "gradient norm" | "learning rate", Ok(word)) => format!("{} ({bits})", f64::from_bits(word)),
        ("step", Ok(_)) => "has it".to_owned(),
        ("step", Err(_)) => "has no such step".to_owned(),
        _ => bits.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use lockstep_common::record::chain_start;

    use super::*;

    fn record(steps: u64, every: u64, change: impl Fn(&mut Evidence, &mut Fingerprints)) -> Record {
        let mut record = Record::default();
        for step in 1..=steps {
            let mut evidence =
                Evidence { step, loss: step, grad_norm: 2, lr: 3, positions: 4, fingerprint: 0, contents: 5 };
            let names = ["rank/0", "rank/1", "model/a", "grad/a", "model/b"].map(str::to_owned).to_vec();
            let mut fingerprints = Fingerprints { names, sums: vec![7, 8, step, 2, 3] };
            change(&mut evidence, &mut fingerprints);
            if step.is_multiple_of(every) {
                evidence.fingerprint = fingerprints.digest();
                record.fingerprints.insert(step, fingerprints);
            }
            record.steps.insert(step, evidence);
        }
        record
    }

    #[test]
    fn equal_records_say_how_much_was_compared() {
        let (a, b) = (record(30, 10, |_, _| {}), record(30, 5, |_, _| {}));
        let found = Comparison::over(&a, &b, 1..=30);
        assert_eq!(found, Comparison { steps: 30, fingerprints: 3, agreed: Some(30), parting: None });
        assert_eq!((a.first_common(&b), a.last_common(&b)), (Some(1), Some(30)));
    }

    #[test]
    fn the_first_step_that_differs_is_found_and_the_tensors_at_the_next_fingerprints() {
        let a = record(30, 10, |_, _| {});
        let b = record(30, 10, |evidence, fingerprints| {
            if evidence.step >= 13 {
                fingerprints.sums[1] = 77;
                fingerprints.sums[4] = 99;
            }
            if evidence.step >= 14 {
                evidence.loss = 0.5_f64.to_bits();
            }
        });
        let found = Comparison::over(&a, &b, 1..=30);
        assert_eq!((found.steps, found.agreed), (13, Some(10)));
        let parting = found.parting.unwrap();
        assert_eq!((parting.step, parting.parts[0].name.as_str()), (14, "loss"));
        let tensors = parting.tensors.as_ref().unwrap();
        assert_eq!((tensors.step, &tensors.ranks, tensors.of_ranks), (20, &vec![1], 2));
        assert_eq!((tensors.differ.len(), tensors.differ[0].name.as_str()), (1, "model/b"));
        let lines = parting.lines(("a", "b"));
        assert!(lines[0].contains("loss") && lines[0].contains("b 0.5 (3fe0000000000000)"), "{lines:?}");
        assert!(lines[1].contains("at step 20, the gradient of rank 1 of 2"), "{lines:?}");
        assert!(lines[2].contains("at step 20, the first that differs is `model/b`: a 0000000000000003"), "{lines:?}");
    }

    #[test]
    fn a_record_that_is_not_the_one_that_was_made_is_refused() {
        let began = RecordPosition { steps: 0, digest: chain_start() };
        let at = |record: &Record, steps: u64| {
            let taken = record.steps.range(..=steps);
            RecordPosition { steps, digest: taken.fold(chain_start(), |digest, (_, step)| step.chain(&digest)) }
        };
        let whole = || {
            let mut whole = record(9, 3, |_, _| {});
            for step in [1, 5, 8] {
                whole.links.insert(step, at(&whole, step - 1).digest.as_bytes().to_vec());
            }
            whole
        };
        let made = whole();
        assert_eq!(made.audit(&began, Some(&at(&made, 6))), Ok(()));
        assert_eq!(made.audit(&began, Some(&at(&made, 9))), Ok(()));
        // A resumed run's record continues that of its checkpoint.
        let mut resumed = whole();
        resumed.steps.retain(|step, _| *step > 4);
        assert_eq!(resumed.audit(&at(&made, 4), None), Ok(()));
        assert!(resumed.audit(&at(&made, 3), None).unwrap_err().contains("after step 3 comes step 5"));

        let refused = |change: &dyn Fn(&mut Record), words: &str| {
            let mut changed = whole();
            change(&mut changed);
            let reason = changed.audit(&began, Some(&at(&made, 6))).unwrap_err();
            assert!(reason.contains(words), "{reason}");
        };
        refused(
            &|record| record.steps.get_mut(&2).unwrap().lr ^= 1,
            "the block that begins with step 5 does not continue",
        );
        refused(&|record| record.steps.get_mut(&6).unwrap().loss ^= 1, "the checkpoint at step 6 names");
        refused(&|record| record.steps.get_mut(&7).unwrap().loss ^= 1, "the block that begins with step 8");
        refused(&|record| record.steps.retain(|step, _| *step != 3), "after step 2 comes step 4");
        refused(
            &|record| record.steps.retain(|step, _| *step < 5),
            "it ends at step 4, before the checkpoint at step 6",
        );
    }

    #[test]
    fn a_step_that_is_missing_is_a_difference() {
        let (a, b) = (record(30, 10, |_, _| {}), record(20, 10, |_, _| {}));
        let parting = Comparison::over(&a, &b, 1..=30).parting.unwrap();
        assert_eq!((parting.step, parting.tensors.is_none()), (21, true));
        assert!(parting.lines(("a", "b"))[0].contains("a has it, b has no such step"));
    }
}
