//! A data set of tensors in memory, for programs that read their own files.

use std::path::Path;

use lockstep_common::contents::Contents;
use lockstep_tch_ext::transfers::upload;
use tch::{Device, Kind, Tensor};

use super::DataError;
use super::contents::contents_of;
use super::dataset::{Batch, DataSets, Dataset, InputKind, SampleShape, Targets};
use super::split::{self, Rows};

/// Stands for the path in errors.
const PLACE: &str = "(in memory)";

/// Samples in memory, along the first axis of both tensors.
#[derive(Debug)]
pub struct InMemory {
    inputs: Tensor,
    targets: Tensor,
    shape: SampleShape,
    rows: Rows,
}

impl InMemory {
    /// A data set of `inputs` `[N, ..]` and `targets` `[N, ..]`. `Int64` inputs are tokens; `Int64` targets are classes if `[N]`, else
    /// tokens. Other types are values.
    ///
    /// # Errors
    /// `Tensors` if there is no sample, or the first axes differ; `Label` if a class is negative: cross entropy leaves out -100 without a word.
    pub fn new(inputs: &Tensor, targets: &Tensor) -> Result<Self, DataError> {
        let count = |tensor: &Tensor| tensor.size().first().copied().unwrap_or(0);
        let samples = count(inputs);
        if samples == 0 || samples != count(targets) {
            return Err(DataError::Tensors { inputs: inputs.size(), targets: targets.size() });
        }
        let kind = if inputs.kind() == Kind::Int64 { InputKind::Tokens } else { InputKind::Float };
        let of_targets = match (targets.kind(), targets.dim()) {
            (Kind::Int64, 1) => Targets::Classes { count: classes(targets)? },
            (Kind::Int64, _) => Targets::Tokens,
            _ => Targets::Values { count: targets.size()[1..].iter().product() },
        };
        let shape = SampleShape { input: inputs.size()[1..].to_vec(), kind, targets: of_targets };
        Ok(Self {
            inputs: inputs.f_to_device(Device::Cpu)?,
            targets: targets.f_to_device(Device::Cpu)?,
            shape,
            rows: Rows::range(0, samples as u64),
        })
    }

    /// Sets the fraction `share` of the samples, chosen by `seed`, apart for validation; none if it is 0.
    ///
    /// # Errors
    /// `Split` if one side would have no samples.
    pub fn split(self, share: f64, seed: u64) -> Result<DataSets, DataError> {
        let (train, validation) = split::by_seed(Path::new(PLACE), self.rows.len(), share, seed)?;
        let part = |rows| -> Box<dyn Dataset> {
            let (inputs, targets) = (self.inputs.shallow_clone(), self.targets.shallow_clone());
            Box::new(Self { inputs, targets, shape: self.shape.clone(), rows })
        };
        Ok(DataSets { train: part(train), validation: validation.map(part) })
    }
}

impl InMemory {
    /// The samples at `positions`, on the CPU.
    fn take(&self, positions: &[u64]) -> Result<Batch, DataError> {
        self.rows.check(positions)?;
        let rows: Vec<i64> = positions.iter().map(|&position| self.rows.row(position) as i64).collect();
        let rows = Tensor::f_from_slice(&rows)?;
        Ok(Batch::new(self.inputs.f_index_select(0, &rows)?, self.targets.f_index_select(0, &rows)?))
    }
}

impl Dataset for InMemory {
    fn len(&self) -> u64 {
        self.rows.len()
    }

    fn shape(&self) -> &SampleShape {
        &self.shape
    }

    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        on(device, self.take(positions)?)
    }

    fn read(&self, positions: &[u64], device: Device) -> Result<(Batch, Option<Contents>), DataError> {
        let batch = self.take(positions)?;
        let contents = contents_of(&batch, positions);
        Ok((on(device, batch)?, contents))
    }
}

fn on(device: Device, batch: Batch) -> Result<Batch, DataError> {
    Ok(Batch::new(upload(batch.inputs, device)?, upload(batch.targets, device)?))
}

/// The highest of class numbers `[N]`, plus 1.
fn classes(targets: &Tensor) -> Result<i64, DataError> {
    let value = targets.f_min()?.f_int64_value(&[])?;
    if value < 0 {
        let position = targets.f_argmin(0, false)?.f_int64_value(&[])? as u64;
        return Err(DataError::Label {
            path: PLACE.into(),
            position,
            value,
            allowed: "a class (a whole number from 0)".to_owned(),
        });
    }
    Ok(targets.f_max()?.f_int64_value(&[])? + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(samples: i64) -> InMemory {
        let inputs = Tensor::arange(samples * 2, (Kind::Float, Device::Cpu)).view([samples, 2]);
        InMemory::new(&inputs, &Tensor::arange(samples, (Kind::Int64, Device::Cpu))).unwrap()
    }

    #[test]
    fn samples_are_found_by_position_and_split_by_the_seed() {
        let whole = numbered(10);
        assert_eq!(whole.shape().targets, Targets::Classes { count: 10 });
        let batch = whole.batch(&[7, 0, 7], Device::Cpu).unwrap();
        assert_eq!(Vec::<i64>::try_from(&batch.targets).unwrap(), [7, 0, 7]);
        assert_eq!(Vec::<f32>::try_from(batch.inputs.view(-1)).unwrap(), [14.0, 15.0, 0.0, 1.0, 14.0, 15.0]);
        assert!(matches!(whole.batch(&[10], Device::Cpu), Err(DataError::Position { .. })));

        let sets = whole.split(0.3, 5).unwrap();
        let all = |set: &dyn Dataset| -> Vec<i64> {
            let positions: Vec<u64> = (0..set.len()).collect();
            set.batch(&positions, Device::Cpu).unwrap().targets.try_into().unwrap()
        };
        let (train, validation) = (all(sets.train.as_ref()), all(sets.validation.as_deref().unwrap()));
        assert_eq!((train.len(), validation.len()), (7, 3));
        let mut both = [train.clone(), validation].concat();
        both.sort_unstable();
        assert_eq!(both, (0..10).collect::<Vec<_>>());
        assert_eq!(all(numbered(10).split(0.3, 5).unwrap().train.as_ref()), train);
        assert_ne!(all(numbered(10).split(0.3, 6).unwrap().train.as_ref()), train);
    }

    #[test]
    fn tensors_that_do_not_go_together_are_refused() {
        let zeros = |samples| Tensor::zeros([samples, 2], (Kind::Float, Device::Cpu));
        assert!(matches!(InMemory::new(&zeros(3), &zeros(4)), Err(DataError::Tensors { .. })));
        assert!(matches!(InMemory::new(&zeros(0), &zeros(0)), Err(DataError::Tensors { .. })));
        let labels = Tensor::from_slice(&[0_i64, 2, -100]);
        assert!(matches!(InMemory::new(&zeros(3), &labels), Err(DataError::Label { position: 2, value: -100, .. })));
        assert!(matches!(numbered(3).split(0.01, 1), Err(DataError::Split { .. })));
    }
}
