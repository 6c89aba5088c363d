//! Splits rows into training and validation rows.

use std::path::Path;

use lockstep_common::permutation::Permutation;
use lockstep_common::seed::{Stream, derive};

use super::DataError;

/// A range of rows, in file order or in the order of a permutation; positions count from its start.
#[derive(Clone, Debug)]
pub(crate) struct Rows {
    permutation: Option<Permutation>,
    start: u64,
    len: u64,
}

impl Rows {
    /// Rows `start..start + len` in file order.
    pub(crate) fn range(start: u64, len: u64) -> Self {
        Self { permutation: None, start, len }
    }

    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// The row at `position`, which is below [`Rows::len`].
    pub(crate) fn row(&self, position: u64) -> u64 {
        let at = self.start + position;
        self.permutation.as_ref().map_or(at, |permutation| permutation.at(at))
    }

    /// `Position` for the first position that is not below [`Rows::len`].
    pub(crate) fn check(&self, positions: &[u64]) -> Result<(), DataError> {
        match positions.iter().find(|&&position| position >= self.len) {
            Some(&position) => Err(DataError::Position { position, samples: self.len }),
            None => Ok(()),
        }
    }
}

/// Training rows, and validation rows if `share` is above 0. The root seed chooses the validation rows.
pub(crate) fn by_seed(path: &Path, samples: u64, share: f64, seed: u64) -> Result<(Rows, Option<Rows>), DataError> {
    let (train, validation) = sizes(path, samples, share)?;
    if validation == 0 {
        return Ok((Rows::range(0, samples), None));
    }
    let permutation = Some(Permutation::new(samples, derive(seed, Stream::Split, 0, 0)));
    Ok((
        Rows { permutation: permutation.clone(), start: 0, len: train },
        Some(Rows { permutation, start: train, len: validation }),
    ))
}

/// Training rows, and validation rows if `share` is above 0. The validation rows are the last ones.
pub(crate) fn by_order(path: &Path, samples: u64, share: f64) -> Result<(Rows, Option<Rows>), DataError> {
    let (train, validation) = sizes(path, samples, share)?;
    Ok((Rows::range(0, train), (validation > 0).then(|| Rows::range(train, validation))))
}

/// Numbers of training and validation rows; the share is rounded to the nearest row.
fn sizes(path: &Path, samples: u64, share: f64) -> Result<(u64, u64), DataError> {
    if samples == 0 {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let validation = (samples as f64 * share).round() as u64;
    let none_for = |side| Err(DataError::Split { path: path.to_owned(), samples, share, side });
    if share > 0.0 && validation == 0 {
        return none_for("validation");
    }
    if validation >= samples {
        return none_for("training");
    }
    Ok((samples - validation, validation))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn both_sides_partition_the_rows_and_depend_on_the_seed_alone() {
        let path = Path::new("t");
        let side = |rows: &Rows| (0..rows.len()).map(|position| rows.row(position)).collect::<BTreeSet<_>>();
        let (train, validation) = by_seed(path, 1_001, 0.2, 7).unwrap();
        let validation = validation.unwrap();
        assert_eq!((train.len(), validation.len()), (801, 200));
        assert!(side(&train).is_disjoint(&side(&validation)));
        assert_eq!(side(&train).union(&side(&validation)).copied().collect::<Vec<_>>(), (0..1_001).collect::<Vec<_>>());
        assert_eq!(side(&by_seed(path, 1_001, 0.2, 7).unwrap().0), side(&train));
        assert_ne!(side(&by_seed(path, 1_001, 0.2, 8).unwrap().0), side(&train));

        let (train, validation) = by_order(path, 10, 0.25).unwrap();
        assert_eq!((side(&train), side(&validation.unwrap())), ((0..7).collect(), (7..10).collect()));
    }

    #[test]
    fn a_split_that_leaves_a_side_without_samples_is_refused() {
        let path = Path::new("t");
        assert!(matches!(by_seed(path, 0, 0.0, 1), Err(DataError::Empty { .. })));
        assert!(matches!(by_seed(path, 3, 0.1, 1), Err(DataError::Split { side: "validation", .. })));
        assert!(matches!(by_order(path, 1, 0.9), Err(DataError::Split { side: "training", .. })));
        assert!(by_order(path, 1, 0.0).unwrap().1.is_none());
    }
}
