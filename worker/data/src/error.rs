//! Why data cannot be used. Every variant names the file.

use std::path::PathBuf;

/// Data that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// There is no such file.
    #[error("data file `{}` does not exist", path.display())]
    Missing {
        /// The file.
        path: PathBuf,
    },
    /// The file cannot be read.
    #[error("data file `{}` cannot be read", path.display())]
    Io {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },
    /// The file holds no sample.
    #[error("data file `{}` holds no samples", path.display())]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// The file is shorter or longer than it says itself.
    #[error("data file `{}` has {found} bytes where its header asks for {expected}", path.display())]
    Length {
        /// The file.
        path: PathBuf,
        /// Bytes that the header asks for.
        expected: u64,
        /// Bytes that are there; one more than expected stands for any number above.
        found: u64,
    },
    /// The file is not what the job says it is.
    #[error("data file `{}` is not {expected}: {detail}", path.display())]
    Format {
        /// The file.
        path: PathBuf,
        /// The format that was expected.
        expected: &'static str,
        /// What was found instead.
        detail: String,
    },
    /// Inputs and targets differ in number.
    #[error("`{}` holds {inputs} inputs and `{}` holds {targets} targets", inputs_path.display(), targets_path.display())]
    Mismatch {
        /// Where the inputs come from.
        inputs_path: PathBuf,
        /// How many there are.
        inputs: u64,
        /// Where the targets come from.
        targets_path: PathBuf,
        /// How many there are.
        targets: u64,
    },
    /// Training and validation samples differ in shape.
    #[error("`{}` has samples of {expected:?} and `{}` of {found:?}", train.display(), validation.display())]
    Shapes {
        /// The training inputs.
        train: PathBuf,
        /// Their shape.
        expected: Vec<i64>,
        /// The validation inputs.
        validation: PathBuf,
        /// Their shape.
        found: Vec<i64>,
    },
    /// A label that is no class of the model.
    #[error("data file `{}`: label {value} at position {position} is not {allowed}", path.display())]
    Label {
        /// The file.
        path: PathBuf,
        /// Which sample, from 0.
        position: u64,
        /// The label.
        value: i64,
        /// What it may be.
        allowed: String,
    },
    /// A token outside the model's vocabulary.
    #[error("data file `{}`: token {value} at position {position} is not below `model.vocabulary` = {vocabulary}", path.display())]
    Token {
        /// The file.
        path: PathBuf,
        /// Which token of the file, from 0.
        position: u64,
        /// The token.
        value: u16,
        /// The model's vocabulary.
        vocabulary: u32,
    },
    /// A file of tokens that looks like another one.
    #[error("data file `{}` looks like {looks}, not like a flat file of {dtype} tokens; if it does hold flat {dtype} tokens, set `data.accept_as_is = true`", path.display())]
    Lookalike {
        /// The file.
        path: PathBuf,
        /// The tokens that the job names.
        dtype: &'static str,
        /// What the file looks like.
        looks: &'static str,
    },
    /// A cell of a table that is no number.
    #[error("data file `{}`, line {line}, column `{column}`: {}", path.display(), cell(text, expected))]
    Cell {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// What stands there, cut to 40 characters.
        text: String,
        /// What should stand there.
        expected: &'static str,
    },
    /// A row of a table with too few or too many cells.
    #[error("data file `{}`, line {line}: {found} cells where the header has {expected}", path.display())]
    Row {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// Cells of the header.
        expected: usize,
        /// Cells of the row.
        found: usize,
    },
    /// A number of a table that has no standardised form.
    #[error("data file `{}`, line {line}, column `{column}`: {value:e} cannot be standardised: {why}; scale the column, or leave it out", path.display())]
    Standardise {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: u64,
        /// The column's name.
        column: String,
        /// The number that stands there.
        value: f64,
        /// What its mean, deviation or quotient would be.
        why: &'static str,
    },
    /// Two columns of one name.
    #[error("data file `{}` has two columns `{name}`: rename one, or remove it", path.display())]
    Twice {
        /// The file.
        path: PathBuf,
        /// The name that stands twice in the header.
        name: String,
    },
    /// A name that the file does not have.
    #[error("data file `{}` has no {what} `{name}`; it has {known}", path.display())]
    Name {
        /// The file.
        path: PathBuf,
        /// What was looked for: a column, a tensor.
        what: &'static str,
        /// Its name.
        name: String,
        /// The names that are there.
        known: String,
    },
    /// A split that leaves one side without samples.
    #[error("data file `{}` has {samples} samples: `data.validation` = {share} leaves none for {side}", path.display())]
    Split {
        /// The file.
        path: PathBuf,
        /// Samples in all.
        samples: u64,
        /// The share asked for.
        share: f64,
        /// Who gets none.
        side: &'static str,
    },
    /// A position that no sample has.
    #[error("position {position} was asked of {samples} samples")]
    Position {
        /// The position.
        position: u64,
        /// How many samples there are.
        samples: u64,
    },
    /// Tensors that are no samples with their targets.
    #[error(
        "inputs of shape {inputs:?} and targets of shape {targets:?} are not the same number of samples, at least one"
    )]
    Tensors {
        /// Shape of the inputs.
        inputs: Vec<i64>,
        /// Shape of the targets.
        targets: Vec<i64>,
    },
    /// Files that only a program can read.
    #[error(
        "data of kind `files` is read by the job's own program, and this one does not say how: it has no `Program::data`"
    )]
    Unread,
    /// A program's own data set failed.
    #[error("the program could not read its data")]
    Program(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// libtorch could not make the batch.
    #[error("libtorch could not make a batch")]
    Torch(#[from] tch::TchError),
    /// The batch's memory could not be written.
    #[error("the memory of a batch could not be written")]
    Memory(#[from] lockstep_tch_ext::Error),
}

/// What is wrong with a cell that holds `text`.
fn cell(text: &str, expected: &str) -> String {
    if text.is_empty() {
        format!("the cell is empty: it needs {expected}")
    } else {
        format!("`{text}` is not {expected}")
    }
}

impl DataError {
    /// What `error` means for `path`.
    pub(crate) fn io(path: &std::path::Path, error: std::io::Error) -> Self {
        match error.kind() {
            std::io::ErrorKind::NotFound => Self::Missing { path: path.to_owned() },
            _ => Self::Io { path: path.to_owned(), source: error },
        }
    }

    /// `path` is not in the format `expected`.
    pub(crate) fn format(path: &std::path::Path, expected: &'static str, detail: impl Into<String>) -> Self {
        Self::Format { path: path.to_owned(), expected, detail: detail.into() }
    }
}
