//! Two records side by side: where they part, and in what.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use lockstep_common::Digest;
use lockstep_common::record::{Evidence, Fingerprints};
use lockstep_rpc::{ReportBlock, ReportsRequest};
use serde::Serialize;

use super::client::Client;
use super::error::Failure;

/// Tensors that are named one by one; a step after the first wrong one, all may differ.
const NAMED_TENSORS: usize = 5;

/// A run's record, by step.
#[derive(Debug, Default)]
pub(super) struct Record {
    steps: BTreeMap<u64, Evidence>,
    fingerprints: BTreeMap<u64, Fingerprints>,
}

impl Record {
    /// The record of `run` as far as the coordinator has it.
    pub(super) async fn read(client: &mut Client, run: &str) -> Result<Self, Failure> {
        let mut record = Self::default();
        let request = ReportsRequest { run: run.to_owned(), follow: false };
        let stream = client.control().reports(request).await;
        let mut stream = stream.map_err(|status| client.failure(status))?.into_inner();
        while let Some(block) = stream.message().await.map_err(|status| client.failure(status))? {
            record.push(block);
        }
        Ok(record)
    }

    fn push(&mut self, block: ReportBlock) {
        for step in block.steps {
            let lockstep_rpc::StepReport { step, loss, grad_norm, lr, positions, fingerprint, .. } = step;
            self.steps.insert(step, Evidence { step, loss, grad_norm, lr, positions, fingerprint });
        }
        for report in block.fingerprints {
            self.fingerprints.insert(report.step, Fingerprints { names: report.names, sums: report.sums });
        }
    }

    /// The record's digest at the end of `steps`, chained on from `before`; `None` if one of them is missing.
    pub(super) fn chain(&self, before: Digest, steps: RangeInclusive<u64>) -> Option<Digest> {
        steps.into_iter().try_fold(before, |digest, step| Some(self.steps.get(&step)?.chain(&digest)))
    }

    /// The last step that both have.
    pub(super) fn last_common(&self, other: &Self) -> Option<u64> {
        self.steps.keys().rev().find(|step| other.steps.contains_key(step)).copied()
    }

    /// The first step that both have.
    pub(super) fn first_common(&self, other: &Self) -> Option<u64> {
        self.steps.keys().find(|step| other.steps.contains_key(step)).copied()
    }
}

/// What comparing two records over some steps found.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct Comparison {
    /// Steps compared.
    pub(super) steps: usize,
    /// Those of them whose fingerprints were compared, tensor by tensor.
    pub(super) fingerprints: usize,
    /// The last step up to which everything agreed, tensors included, if there is one.
    pub(super) agreed: Option<u64>,
    /// Where they part.
    pub(super) parting: Option<Parting>,
}

/// Where two records part.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Parting {
    /// The first step that differs.
    pub(super) step: u64,
    /// In what, in the order in which it comes to be.
    pub(super) parts: Vec<Part>,
    /// The first step from there on with fingerprints of both, and the tensors that differ, in the order of a forward
    /// pass.
    pub(super) tensors: Option<(u64, Vec<String>)>,
}

/// A part of a step's record that differs; bits as 16 hexadecimal characters, `-` where there is none.
#[derive(Debug, PartialEq, Eq, Serialize)]
pub(super) struct Part {
    pub(super) name: &'static str,
    pub(super) a: String,
    pub(super) b: String,
}

impl Comparison {
    /// Compares `a` and `b` over all of `steps`; one that only one of them has is a difference.
    pub(super) fn over(a: &Record, b: &Record, steps: RangeInclusive<u64>) -> Self {
        let mut found = Self::default();
        for step in steps.clone() {
            let parts = parts(a.steps.get(&step), b.steps.get(&step));
            if !parts.is_empty() {
                found.parting = Some(Parting { step, parts, tensors: tensors(a, b, step..=*steps.end()) });
                return found;
            }
            found.steps += 1;
            if let (Some(of_a), Some(of_b)) = (a.fingerprints.get(&step), b.fingerprints.get(&step)) {
                let names = of_a.differences(of_b);
                if !names.is_empty() {
                    let tensors = Some((step, names.into_iter().map(str::to_owned).collect()));
                    found.parting = Some(Parting { step, parts: Vec::new(), tensors });
                    return found;
                }
                found.fingerprints += 1;
                found.agreed = Some(step);
            }
        }
        found
    }

    /// Whether nothing differs.
    pub(super) fn equal(&self) -> bool {
        self.parting.is_none()
    }

    /// What was compared, in words.
    pub(super) fn extent(&self) -> String {
        format!("{} steps, {} of them with fingerprints of every tensor", self.steps, self.fingerprints)
    }
}

impl Parting {
    /// Lines for a person; `names` are those of the two sides.
    pub(super) fn lines(&self, names: (&str, &str)) -> Vec<String> {
        let mut lines = Vec::new();
        for part in &self.parts {
            lines.push(format!(
                "  {:<14}{} {}, {} {}",
                part.name,
                names.0,
                show(part.name, &part.a),
                names.1,
                show(part.name, &part.b)
            ));
        }
        match &self.tensors {
            Some((step, tensors)) if tensors.is_empty() => {
                lines.push(format!("  tensors       none differs at step {step}, the next with fingerprints of both"));
            }
            Some((step, tensors)) => {
                let more = tensors.len().saturating_sub(NAMED_TENSORS);
                let named = tensors.iter().take(NAMED_TENSORS).map(|name| format!("`{name}`")).collect::<Vec<_>>();
                let rest = if more > 0 { format!(" and {more} more") } else { String::new() };
                lines.push(format!("  tensors       at step {step}, the first is {}{rest}", named.join(", ")));
            }
            None => lines.push("  tensors       no later step has fingerprints of both".to_owned()),
        }
        lines
    }
}

fn parts(a: Option<&Evidence>, b: Option<&Evidence>) -> Vec<Part> {
    let bits = |word: u64| format!("{word:016x}");
    match (a, b) {
        (Some(a), Some(b)) => {
            a.differences(b).into_iter().map(|(name, a, b)| Part { name, a: bits(a), b: bits(b) }).collect()
        }
        (None, None) => vec![Part { name: "step", a: "-".to_owned(), b: "-".to_owned() }],
        (a, b) => {
            let side = |side: Option<&Evidence>| side.map_or("-".to_owned(), |step| bits(step.step));
            vec![Part { name: "step", a: side(a), b: side(b) }]
        }
    }
}

/// The first of `steps` with fingerprints of both, and the tensors that differ there.
fn tensors(a: &Record, b: &Record, steps: RangeInclusive<u64>) -> Option<(u64, Vec<String>)> {
    let (step, of_a, of_b) =
        a.fingerprints.range(steps).find_map(|(step, of_a)| Some((*step, of_a, b.fingerprints.get(step)?)))?;
    Some((step, of_a.differences(of_b).into_iter().map(str::to_owned).collect()))
}

/// Bits for a person: with the number where they are one.
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
            let mut evidence = Evidence { step, loss: step, grad_norm: 2, lr: 3, positions: 4, fingerprint: 0 };
            let names = ["model/a", "grad/a", "model/b"].map(str::to_owned).to_vec();
            let mut fingerprints = Fingerprints { names, sums: vec![step, 2, 3] };
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
                fingerprints.sums[2] = 99;
            }
            if evidence.step >= 14 {
                evidence.loss = 0.5_f64.to_bits();
            }
        });
        let found = Comparison::over(&a, &b, 1..=30);
        assert_eq!((found.steps, found.agreed), (13, Some(10)));
        let parting = found.parting.unwrap();
        assert_eq!((parting.step, parting.parts[0].name), (14, "loss"));
        assert_eq!(parting.tensors, Some((20, vec!["model/b".to_owned()])));
        let lines = parting.lines(("a", "b"));
        assert!(lines[0].contains("loss") && lines[0].contains("b 0.5 (3fe0000000000000)"), "{lines:?}");
        assert!(lines[1].contains("at step 20, the first is `model/b`"), "{lines:?}");
    }

    #[test]
    fn the_chain_over_a_record_shows_every_change_and_every_gap() {
        let whole = record(9, 3, |_, _| {});
        let digest = whole.chain(chain_start(), 1..=9).unwrap();
        let half = whole.chain(chain_start(), 1..=4).unwrap();
        assert_eq!(whole.chain(half, 5..=9), Some(digest), "a resumed run's record goes on from its checkpoint's");
        let changed = record(9, 3, |evidence, _| evidence.lr ^= u64::from(evidence.step == 2));
        assert_ne!(changed.chain(chain_start(), 1..=9), Some(digest));
        assert_eq!(whole.chain(chain_start(), 1..=10), None);
    }

    #[test]
    fn a_step_that_is_missing_is_a_difference() {
        let (a, b) = (record(30, 10, |_, _| {}), record(20, 10, |_, _| {}));
        let parting = Comparison::over(&a, &b, 1..=30).parting.unwrap();
        assert_eq!((parting.step, parting.tensors.is_none()), (21, true));
        assert!(parting.lines(("a", "b"))[0].contains("a has it, b has no such step"));
    }
}
