//! Which preprocessing a run goes on with: its checkpoint's, never moments that were computed anew.

use lockstep_common::manifest::Manifest;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_data::Dataset;
use tracing::warn;

/// Differences that are named; a table may have thousands of columns.
const NAMED: usize = 5;

/// Data whose samples would become other inputs than those that the checkpoint was trained on.
#[derive(Debug, thiserror::Error)]
pub enum Unlike {
    /// Both are known, and differ in this.
    #[error(
        "the checkpoint's preprocessing is not that of the data: {0}; its state was trained on the checkpoint's: resume with the \
         build and the data that made it"
    )]
    Known(String),
    /// An older checkpoint says nothing, and other data has other moments.
    #[error(
        "the checkpoint does not hold its preprocessing (an older build made it): it cannot be resumed with other data: resume it \
         with the data that made it"
    )]
    Unknown,
}

/// What a run's samples go through.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunPreprocessing {
    /// `None` where a program reads the data itself.
    pub(crate) used: Option<Preprocessing>,
    /// How the data's own differs from it, by a person's word.
    pub(crate) note: Option<String>,
}

/// The preprocessing of `data`, which is the checkpoint's if that says one.
///
/// # Errors
/// The two differ, and the data is not `accepted`, now or before; or, accepted or not, they are of other columns or shapes; or the
/// checkpoint does not say by which moments its columns were standardised, and other data is accepted now.
pub(crate) fn reconcile(
    data: &dyn Dataset,
    restore: Option<&Manifest>,
    accepted: bool,
) -> Result<RunPreprocessing, Unlike> {
    let known = restore.and_then(|manifest| manifest.preprocessing.as_ref());
    if restore.is_some() && accepted && is_unknown(data, known) {
        return Err(Unlike::Unknown);
    }
    // A checkpoint of a run that goes on with accepted data has the moments of the data before.
    let before = |manifest: &Manifest| manifest.overrides.iter().any(|one| one.key.starts_with("data."));
    choose(data, known, accepted || restore.is_some_and(before))
}

/// Whether `data` has moments, and a checkpoint says nothing of those that it was trained by.
fn is_unknown(data: &dyn Dataset, known: Option<&Preprocessing>) -> bool {
    known.is_none() && data.measured().is_some_and(|measured| measured.standardised().next().is_some())
}

fn choose(data: &dyn Dataset, known: Option<&Preprocessing>, accepted: bool) -> Result<RunPreprocessing, Unlike> {
    let (Some(measured), Some(known)) = (data.measured(), known) else {
        return Ok(RunPreprocessing { used: data.preprocessing().cloned(), note: None });
    };
    let differences = known.differences(measured);
    let note = if differences.is_empty() { None } else { Some(words(&differences)) };
    match note {
        Some(words) if !accepted || !known.fits(measured) => Err(Unlike::Known(words)),
        note => {
            if let Some(note) = &note {
                warn!("the checkpoint's preprocessing is used, not that of the accepted data: {note}");
            }
            Ok(RunPreprocessing { used: Some(known.clone()), note })
        }
    }
}

fn words(differences: &[String]) -> String {
    let mut words = differences.iter().take(NAMED).cloned().collect::<Vec<_>>().join("; ");
    if differences.len() > NAMED {
        let more = format!("; and {} more", differences.len() - NAMED);
        words.push_str(&more);
    }
    words
}

#[cfg(test)]
mod tests {
    use lockstep_common::preprocessing::{Inputs, Standardised, Targets};
    use lockstep_data::{Batch, DataError, InputKind, SampleShape};
    use tch::Device;

    use super::*;

    /// A table that says `measured` of itself.
    struct Table {
        shape: SampleShape,
        measured: Preprocessing,
    }

    impl Dataset for Table {
        fn len(&self) -> u64 {
            1
        }

        fn shape(&self) -> &SampleShape {
            &self.shape
        }

        fn preprocessing(&self) -> Option<&Preprocessing> {
            Some(&self.measured)
        }

        fn batch(&self, _: &[u64], _: Device) -> Result<Batch, DataError> {
            Err(DataError::Unread)
        }
    }

    fn preprocessing(columns: &[(&str, f64)]) -> Preprocessing {
        let column = |&(name, mean): &(&str, f64)| Standardised {
            column: name.to_owned(),
            mean,
            deviation: 2.0,
            constant: false,
        };
        Preprocessing {
            inputs: Inputs::Columns(columns.iter().map(column).collect()),
            targets: Targets::Classes { column: Some("y".to_owned()), count: 2 },
        }
    }

    fn chosen(known: &[(&str, f64)], measured: &[(&str, f64)], accepted: bool) -> Result<RunPreprocessing, String> {
        let shape = SampleShape {
            input: vec![2],
            kind: InputKind::Float,
            targets: lockstep_data::Targets::Classes { count: 2 },
        };
        let table = Table { shape, measured: preprocessing(measured) };
        choose(&table, Some(&preprocessing(known)), accepted).map_err(|unlike| unlike.to_string())
    }

    #[test]
    fn moments_that_differ_are_refused_by_column_and_accepted_ones_give_way_to_the_checkpoints() {
        let known = [("a", 1.5), ("b", 2.5)];
        let same = chosen(&known, &known, false).unwrap();
        assert_eq!((same.used, same.note), (Some(preprocessing(&known)), None));

        let other = [("a", 1.5), ("b", 3.25)];
        let line = "column `b`: mean 2.5 and deviation 2 in the checkpoint, mean 3.25 and deviation 2 in the data";
        let refused = chosen(&known, &other, false).unwrap_err();
        assert!(refused.contains(line) && !refused.contains("`a`"), "{refused}");
        let agreed = chosen(&known, &other, true).unwrap();
        assert_eq!(agreed.used, Some(preprocessing(&known)));
        assert_eq!(agreed.note.as_deref(), Some(line));

        // Other columns are other inputs, whoever accepts them.
        let swapped = chosen(&known, &[("b", 2.5), ("a", 1.5)], true).unwrap_err();
        assert!(swapped.contains("columns a, b") && swapped.contains("columns b, a"), "{swapped}");
        // An older checkpoint says nothing.
        let shape = SampleShape {
            input: vec![2],
            kind: InputKind::Float,
            targets: lockstep_data::Targets::Classes { count: 2 },
        };
        let table = Table { shape, measured: preprocessing(&other) };
        assert_eq!(choose(&table, None, false).unwrap().used, Some(preprocessing(&other)));
        // Of other data it would be other moments.
        assert!(is_unknown(&table, None) && !is_unknown(&table, Some(&preprocessing(&known))));
        let pixels = Inputs::Pixels { shape: vec![2], divisor: 127.5, subtracted: 1.0 };
        let images = Table { measured: Preprocessing { inputs: pixels, ..preprocessing(&other) }, ..table };
        assert!(!is_unknown(&images, None));
    }
}
