//! The interface of a data set, and the batch that it gives.

use lockstep_common::contents::Contents;
use lockstep_common::preprocessing::Preprocessing;
use tch::{Device, Tensor};

use super::DataError;

/// Samples that are trained on together.
#[derive(Debug)]
pub struct Batch {
    /// `[B, ..]`: `Float` values, or `Int64` tokens.
    pub inputs: Tensor,
    /// `Int64` classes `[B]`, `Int64` tokens `[B, T]`, or `Float` values `[B, K]`.
    pub targets: Tensor,
    /// Whatever else a program's own data set gives.
    pub more: Vec<Tensor>,
}

impl Batch {
    /// Of inputs and targets.
    pub fn new(inputs: Tensor, targets: Tensor) -> Self {
        Self { inputs, targets, more: Vec::new() }
    }
}

/// What an input is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InputKind {
    /// Token numbers.
    Tokens,
    /// Numbers as they are in the file, or standardised.
    Float,
    /// Pixels, from -1 (black) to 1 (white).
    Image,
}

/// What a target is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Targets {
    /// The token that follows each input token.
    Tokens,
    /// A class number.
    Classes {
        /// The highest one that occurs, plus 1.
        count: i64,
    },
    /// Real numbers.
    Values {
        /// How many each sample has.
        count: i64,
    },
}

/// What one sample looks like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SampleShape {
    /// Shape of the input, without the batch axis.
    pub input: Vec<i64>,
    /// What the input is.
    pub kind: InputKind,
    /// What the target is.
    pub targets: Targets,
}

/// Samples that are found by their position.
pub trait Dataset: Send {
    /// How many samples there are; at least one.
    fn len(&self) -> u64;

    /// Never true: a data set without samples does not open.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What one sample looks like.
    fn shape(&self) -> &SampleShape;

    /// Names of the inputs' elements, where the file names them; else empty.
    fn features(&self) -> &[String] {
        &[]
    }

    /// What is done to the samples of the file; `None` where a program reads them itself.
    fn preprocessing(&self) -> Option<&Preprocessing> {
        None
    }

    /// What the file itself says: differs from [`Dataset::preprocessing`] where a checkpoint's is used instead.
    fn measured(&self) -> Option<&Preprocessing> {
        self.preprocessing()
    }

    /// The samples at `positions`, in that order, on `device`.
    ///
    /// # Errors
    /// `Position` for one that is not below [`Dataset::len`]; `Torch` and `Memory` if libtorch has no memory left.
    fn batch(&self, positions: &[u64], device: Device) -> Result<Batch, DataError>;

    /// The same batch, and the bytes that it was made of, for the run's record. Without them the batch's own bytes are
    /// recorded, as they are on `device`.
    ///
    /// # Errors
    /// As [`Dataset::batch`].
    fn read(&self, positions: &[u64], device: Device) -> Result<(Batch, Option<Contents>), DataError> {
        Ok((self.batch(positions, device)?, None))
    }
}

/// The two data sets of a job.
pub struct DataSets {
    /// What is trained on.
    pub train: Box<dyn Dataset>,
    /// What is evaluated on, if the job keeps samples for it.
    pub validation: Option<Box<dyn Dataset>>,
}
