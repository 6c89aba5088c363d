//! A data set of two columns, inputs and targets, from IDX, CSV, npy or safetensors files.
//!
//! Hot: samples are copied with the element type of the file; a whole batch is converted on the device.

use std::path::Path;
use std::sync::Arc;

use lockstep_common::contents::Contents;
use lockstep_common::preprocessing::{self, Preprocessing};
use tch::{Device, Kind, Tensor};

use super::column::Column;
use super::dataset::{Batch, DataSets, Dataset, InputKind, SampleShape, Targets};
use super::split::Rows;
use super::{DataError, labels};

/// Inputs and targets, checked against each other.
#[derive(Clone)]
pub(crate) struct Pair {
    inputs: Arc<Column>,
    targets: Arc<Column>,
    shape: SampleShape,
    features: Arc<[String]>,
    preprocessing: Arc<Preprocessing>,
    /// The preprocessing that the file itself would give, if that of a checkpoint is used instead.
    measured: Option<Arc<Preprocessing>>,
}

impl Pair {
    /// Checks that both columns have the same number of rows and usable types, and that all labels are below `outputs`.
    pub(crate) fn new(
        (inputs_path, inputs): (&Path, Column),
        (targets_path, targets): (&Path, Column),
        outputs: Option<u32>,
    ) -> Result<Self, DataError> {
        if inputs.rows() == 0 {
            return Err(DataError::Empty { path: inputs_path.to_owned() });
        }
        if inputs.rows() != targets.rows() {
            return Err(DataError::Mismatch {
                inputs_path: inputs_path.to_owned(),
                inputs: inputs.rows(),
                targets_path: targets_path.to_owned(),
                targets: targets.rows(),
            });
        }
        let kind = match inputs.kind() {
            Kind::Uint8 => InputKind::Image,
            Kind::Float => InputKind::Float,
            other => {
                let detail = format!("its elements are {other:?}");
                return Err(DataError::format(inputs_path, "an array of 32-bit floats or 8-bit pixels", detail));
            }
        };
        let targets_shape = match targets.kind() {
            Kind::Float => match targets.row_shape() {
                [] => Targets::Values { count: 1 },
                &[count] => Targets::Values { count },
                other => {
                    let detail = format!("each target has the shape {other:?}");
                    return Err(DataError::format(targets_path, "an array of target values", detail));
                }
            },
            _ => Targets::Classes { count: labels::check(targets_path, &targets, outputs)? },
        };
        let shape = SampleShape { input: inputs.row_shape().to_vec(), kind, targets: targets_shape };
        let preprocessing = Arc::new(preprocessing(&shape));
        let (inputs, targets) = (Arc::new(inputs), Arc::new(targets));
        Ok(Self { inputs, targets, shape, features: Arc::default(), preprocessing, measured: None })
    }

    /// Sets the names of the inputs' elements.
    pub(crate) fn named(self, features: Vec<String>) -> Self {
        Self { features: features.into(), ..self }
    }

    /// Sets the preprocessing that the values have already gone through, and the one that the file itself would give.
    pub(crate) fn prepared(self, used: Preprocessing, measured: Preprocessing) -> Self {
        Self { preprocessing: Arc::new(used), measured: Some(Arc::new(measured)), ..self }
    }

    pub(crate) fn samples(&self) -> u64 {
        self.inputs.rows()
    }

    pub(crate) fn shape(&self) -> &SampleShape {
        &self.shape
    }

    /// The data set that consists of `rows`.
    pub(crate) fn select(&self, rows: Rows) -> Box<dyn Dataset> {
        Box::new(Array { pair: self.clone(), rows })
    }

    /// The data sets for training and validation.
    pub(crate) fn split(&self, (train, validation): (Rows, Option<Rows>)) -> DataSets {
        DataSets { train: self.select(train), validation: validation.map(|rows| self.select(rows)) }
    }
}

struct Array {
    pair: Pair,
    rows: Rows,
}

impl Array {
    fn take(&self, positions: &[u64], device: Device, mut contents: Option<&mut Contents>) -> Result<Batch, DataError> {
        self.rows.check(positions)?;
        let mut gather = |column: &Column, array| {
            let rows = positions.iter().map(|&position| self.rows.row(position));
            column.gather(rows, device, contents.as_deref_mut().map(|contents| (contents, array)))
        };
        let inputs = gather(&self.pair.inputs, 0)?;
        let targets = gather(&self.pair.targets, 1)?;
        let inputs = if self.pair.shape.kind == InputKind::Image { pixels(&inputs)? } else { inputs };
        let targets = match self.pair.shape.targets {
            Targets::Values { count } if self.pair.targets.row_shape().is_empty() => targets.f_view([-1, count])?,
            Targets::Values { .. } => targets,
            _ if targets.kind() == Kind::Int64 => targets,
            _ => targets.f_to_kind(Kind::Int64)?,
        };
        Ok(Batch::new(inputs, targets))
    }
}

impl Dataset for Array {
    fn len(&self) -> u64 {
        self.rows.len()
    }

    fn shape(&self) -> &SampleShape {
        &self.pair.shape
    }

    fn features(&self) -> &[String] {
        &self.pair.features
    }

    fn preprocessing(&self) -> Option<&Preprocessing> {
        Some(&self.pair.preprocessing)
    }

    fn measured(&self) -> Option<&Preprocessing> {
        Some(self.pair.measured.as_ref().unwrap_or(&self.pair.preprocessing))
    }

    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError> {
        self.take(positions, device, None)
    }

    fn read(&self, positions: &[u64], device: Device) -> Result<(Batch, Option<Contents>), DataError> {
        let mut contents = Contents::default();
        let batch = self.take(positions, device, Some(&mut contents))?;
        Ok((batch, Some(contents)))
    }
}

/// Divisor of a pixel, and the number that is subtracted after the division.
const PIXELS: (f64, f64) = (127.5, 1.0);

/// Converts pixels from 0..255 to -1..1: the same as scaling to `[0, 1]` and normalising by mean 0.5 and deviation 0.5.
fn pixels(bytes: &Tensor) -> Result<Tensor, DataError> {
    Ok(bytes.f_to_kind(Kind::Float)?.f_div_scalar_(PIXELS.0)?.f_sub_scalar_(PIXELS.1)?)
}

/// The preprocessing of samples of `shape`.
fn preprocessing(shape: &SampleShape) -> Preprocessing {
    let input = shape.input.clone();
    let inputs = match shape.kind {
        InputKind::Image => preprocessing::Inputs::Pixels { shape: input, divisor: PIXELS.0, subtracted: PIXELS.1 },
        InputKind::Float | InputKind::Tokens => preprocessing::Inputs::Values { shape: input },
    };
    let targets = match shape.targets {
        Targets::Classes { count } => preprocessing::Targets::Classes { column: None, count },
        Targets::Values { count } => preprocessing::Targets::Values { count },
        Targets::Tokens => preprocessing::Targets::NextToken,
    };
    Preprocessing { inputs, targets }
}
