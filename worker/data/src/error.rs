//! Errors of data sets. Every error about a file names it.

use std::path::PathBuf;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "the message of each variant explains its fields")]
pub enum DataError {
    /// The file does not exist.
    #[error("data file `{}` does not exist", path.display())]
    Missing { path: PathBuf },
    /// The file cannot be opened, mapped or read.
    #[error("data file `{}` cannot be read", path.display())]
    Io {
        path: PathBuf,
        #[source]
        source: std::io::Error,
    },
    /// The file has no bytes, or an array or table without rows.
    #[error("data file `{}` holds no samples", path.display())]
    Empty { path: PathBuf },
    /// The file is shorter or longer than its header declares.
    #[error("data file `{}` has {found} bytes, but its header declares {expected}", path.display())]
    Length {
        path: PathBuf,
        expected: u64,
        /// For a packed file at most `expected` + 1: the rest is not unpacked.
        found: u64,
    },
    /// The file does not have the format that the job names.
    #[error("data file `{}` is not {expected}: {detail}", path.display())]
    Format {
        path: PathBuf,
        /// The expected format, with its article.
        expected: &'static str,
        detail: String,
    },
    /// The numbers of inputs and targets differ.
    #[error("`{}` holds {inputs} inputs, but `{}` holds {targets} targets", inputs_path.display(), targets_path.display())]
    Mismatch { inputs_path: PathBuf, inputs: u64, targets_path: PathBuf, targets: u64 },
    /// Training and validation inputs differ in shape.
    #[error(
        "`{}` has samples of shape {expected:?} for training, but `{}` has samples of shape {found:?} for validation",
        train.display(),
        validation.display()
    )]
    Shapes {
        train: PathBuf,
        /// Shape of a training sample.
        expected: Vec<i64>,
        validation: PathBuf,
        /// Shape of a validation sample.
        found: Vec<i64>,
    },
    /// A label is not a class of the model.
    #[error("data file `{}`: label {value} at position {position} is not {allowed}", path.display())]
    Label {
        path: PathBuf,
        /// Index of the sample in the file, from 0.
        position: u64,
        value: i64,
        /// The allowed labels, as the end of the message.
        allowed: String,
    },
    /// A token is outside the model's vocabulary.
    #[error(
        "data file `{}`: token {value} at position {position} is not below `model.vocabulary` = {vocabulary}",
        path.display()
    )]
    Token {
        path: PathBuf,
        /// Index of the token in the file, from 0.
        position: u64,
        value: u16,
        vocabulary: u32,
    },
    /// A token file looks like another format or element type.
    #[error(
        "data file `{}` looks like {looks}, not like a flat file of {dtype} tokens; if it does hold flat {dtype} tokens, set \
         `data.accept_as_is = true`",
        path.display()
    )]
    Lookalike {
        path: PathBuf,
        /// The element type that the job names.
        dtype: &'static str,
        looks: &'static str,
    },
    /// A cell of a table is not a number of the expected kind.
    #[error("data file `{}`, line {line}, column `{column}`: {}", path.display(), cell(text, expected))]
    Cell {
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        column: String,
        /// The cell's text, at most 40 characters of it.
        text: String,
        /// The expected kind of number, with its article.
        expected: &'static str,
    },
    /// A row of a table has too few or too many cells.
    #[error("data file `{}`, line {line} has {found} cells, but the header has {expected}", path.display())]
    Row {
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        expected: usize,
        found: usize,
    },
    /// A column of a table cannot be standardised; `value` is the number in it that causes this.
    #[error(
        "data file `{}`, line {line}, column `{column}`: {value:e} cannot be standardised: {why}; scale the column, or leave it out",
        path.display()
    )]
    Standardise {
        path: PathBuf,
        /// Line in the file, from 1.
        line: u64,
        column: String,
        value: f64,
        why: &'static str,
    },
    /// Two columns of a table have the same name.
    #[error("data file `{}` has two columns `{name}`: rename one, or remove it", path.display())]
    Twice { path: PathBuf, name: String },
    /// The file has no column or tensor of this name.
    #[error("data file `{}` has no {what} `{name}`; it has {known}", path.display())]
    Name {
        path: PathBuf,
        /// `column` or `tensor`.
        what: &'static str,
        name: String,
        /// The existing names, in backticks.
        known: String,
    },
    /// A split leaves no training or no validation samples.
    #[error("data file `{}` has {samples} samples: `data.validation` = {share} leaves none for {side}", path.display())]
    Split {
        path: PathBuf,
        samples: u64,
        share: f64,
        /// `training` or `validation`.
        side: &'static str,
    },
    /// A requested position is not below the number of samples.
    #[error("position {position} is out of range: the data set has {samples} samples")]
    Position { position: u64, samples: u64 },
    /// The tensors of a data set in memory do not have the same number of samples, or have none.
    #[error(
        "inputs of shape {inputs:?} and targets of shape {targets:?} must have the same number of samples, and at least one"
    )]
    Tensors { inputs: Vec<i64>, targets: Vec<i64> },
    /// Only a program can read data of kind `files`, and this one does not.
    #[error(
        "data of kind `files` is read by the job's own program, but this program does not implement `Program::data`"
    )]
    Unread,
    /// A program's own data set failed.
    #[error("the program could not read its data")]
    Program(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// libtorch failed to create a batch, usually for lack of memory.
    #[error("libtorch could not create a batch")]
    Torch(#[from] tch::TchError),
    /// The memory of a batch could not be filled.
    #[error("cannot fill the memory of a batch")]
    Memory(#[from] lockstep_tch_ext::Error),
}

/// The end of the message for a cell with `text`.
fn cell(text: &str, expected: &str) -> String {
    if text.is_empty() {
        format!("the cell is empty: it needs {expected}")
    } else {
        format!("`{text}` is not {expected}")
    }
}

impl DataError {
    /// `Missing` if `error` says that `path` does not exist, else `Io`.
    pub(crate) fn io(path: &std::path::Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source: error },
        }
    }

    /// A `Format` error: `path` does not have the format `expected`.
    pub(crate) fn format(path: &std::path::Path, expected: &'static str, detail: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), expected, detail: detail.into() }
    }
}
