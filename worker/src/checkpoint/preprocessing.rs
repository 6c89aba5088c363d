//! The preprocessing of a resumed run: always the checkpoint's, never moments computed from the current data.

use lockstep_common::manifest::Manifest;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_data::Dataset;
use tracing::warn;

/// Number of differences that a message names; a table may have thousands of columns.
const NAMED: usize = 5;

/// The data would be standardised in another way than the checkpoint's data, so the model would get other inputs.
#[derive(Debug, thiserror::Error)]
pub enum Unlike {
    /// The preprocessings of checkpoint and data differ as described.
    #[error(
        "the preprocessing of the data differs from the checkpoint's, with which the state was trained ({0}): resume with the build and \
         the data that made the checkpoint"
    )]
    Known(String),
    /// A checkpoint of an older version holds no preprocessing, and accepted data has other moments.
    #[error(
        "the checkpoint does not hold its preprocessing, because an older version made it, so it cannot be resumed with other data: \
         resume it with the data that made it"
    )]
    Unknown,
}

/// The preprocessing of a run's samples.
#[derive(Clone, Debug, Default)]
pub(crate) struct RunPreprocessing {
    /// `None` if a program reads the data itself.
    pub(crate) used: Option<Preprocessing>,
    /// How the preprocessing of accepted data differs from `used`.
    pub(crate) note: Option<String>,
}

/// The preprocessing for `data`: the checkpoint's if it holds one, else the data's own.
///
/// # Errors
/// `Known` if the two differ and the data was not `accepted`, now or in an earlier resume, or if they have other columns or shapes.
/// `Unknown` if the checkpoint does not hold the moments of its columns, and other data is accepted now.
pub(crate) fn reconcile(
    data: &dyn Dataset,
    restore: Option<&Manifest>,
    accepted: bool,
) -> Result<RunPreprocessing, Unlike> {
    let known = restore.and_then(|manifest| manifest.preprocessing.as_ref());
    if restore.is_some() && accepted && is_unknown(data, known) {
        return Err(Unlike::Unknown);
    }
    // A run that was resumed with accepted data keeps the moments of its first data.
    let before = |manifest: &Manifest| manifest.overrides.iter().any(|one| one.key.starts_with("data."));
    choose(data, known, accepted || restore.is_some_and(before))
}

/// Whether `data` has moments, and the checkpoint does not hold those that it was trained with.
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
                warn!("using the checkpoint's preprocessing, which differs from that of the accepted data: {note}");
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

    /// A table with the preprocessing `measured`.
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

        // Other columns are other inputs: they are refused even if accepted.
        let swapped = chosen(&known, &[("b", 2.5), ("a", 1.5)], true).unwrap_err();
        assert!(swapped.contains("columns a, b") && swapped.contains("columns b, a"), "{swapped}");
        // A checkpoint of an older version holds no preprocessing.
        let shape = SampleShape {
            input: vec![2],
            kind: InputKind::Float,
            targets: lockstep_data::Targets::Classes { count: 2 },
        };
        let table = Table { shape, measured: preprocessing(&other) };
        assert_eq!(choose(&table, None, false).unwrap().used, Some(preprocessing(&other)));
        // With other data the moments would differ.
        assert!(is_unknown(&table, None) && !is_unknown(&table, Some(&preprocessing(&known))));
        let pixels = Inputs::Pixels { shape: vec![2], divisor: 127.5, subtracted: 1.0 };
        let images = Table { measured: Preprocessing { inputs: pixels, ..preprocessing(&other) }, ..table };
        assert!(!is_unknown(&images, None));
    }
}
