//! The interface of a data set, and its batches.

use lockstep_common::contents::Contents;
use lockstep_common::preprocessing::Preprocessing;
use tch::{Device, Tensor};

use super::DataError;

/// The samples of one forward pass.
#[derive(Debug)]
pub struct Batch {
    /// `[B, ..]`: `Float` values, or `Int64` tokens.
    pub inputs: Tensor,
    /// `Int64` classes `[B]`, `Int64` tokens `[B, T]`, or `Float` values `[B, K]`.
    pub targets: Tensor,
    /// Further tensors of a program's own data set.
    pub more: Vec<Tensor>,
}

impl Batch {
    /// A batch of inputs and targets, without further tensors.
    pub fn new(inputs: Tensor, targets: Tensor) -> Self {
        Self { inputs, targets, more: Vec::new() }
    }
}

/// The kind of a data set's inputs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Token numbers, `Int64`.
    Tokens,
    /// Numbers, unchanged from the file or standardised.
    Float,
    /// Pixels, from -1 (black) to 1 (white).
    Image,
}

/// The kind of a data set's targets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// The token that follows each input token.
    Tokens,
    /// A class number, from 0.
    Classes {
        /// The highest class number in the data, plus 1.
        count: i64,
    },
    /// Real numbers.
    Values {
        /// Number of values of each sample.
        count: i64,
    },
}

/// Shape and kind of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleShape {
    /// Shape of the input, without the batch axis.
    pub input: Vec<i64>,
    /// Kind of the input.
    pub kind: InputKind,
    /// Kind of the target.
    pub targets: Targets,
}

/// A data set: samples by position.
pub trait Dataset: Send {
    /// Number of samples; at least 1.
    fn len(&self) -> u64;

    /// Never true: a data set without samples does not open.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Shape and kind of one sample, the same for all.
    fn shape(&self) -> &SampleShape;

    /// Names of the inputs' elements; empty if the file has none.
    fn features(&self) -> &[String] {
        &[]
    }

    /// The preprocessing of the file's samples; `None` if a program reads them itself.
    fn preprocessing(&self) -> Option<&Preprocessing> {
        None
    }

    /// The preprocessing that the file itself would give. Differs from [`Dataset::preprocessing`] if that of a checkpoint is used.
    fn measured(&self) -> Option<&Preprocessing> {
        self.preprocessing()
    }

    /// The samples at `positions`, in that order, on `device`.
    ///
    /// # Errors
    /// `Position` if a position is not below [`Dataset::len`]; `Torch` or `Memory` if libtorch has no memory left.
    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError>;

    /// As [`Dataset::batch`], with the contents of the bytes that were read, for the run's record. With `None` the caller
    /// records the bytes of the batch on `device` instead.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    fn read(&self, positions: &[u64], device: Device) -> Result<(Batch, Option<Contents>), DataError> {
        Ok((self.batch(positions, device)?, None))
    }
}

/// The two data sets of a job.
pub struct DataSets {
    /// Training samples.
    pub train: Box<dyn Dataset>,
    /// Validation samples, if the job sets some apart.
    pub validation: Option<Box<dyn Dataset>>,
}
