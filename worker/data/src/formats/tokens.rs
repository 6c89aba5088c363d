//! A flat file of tokens, cut into windows that do not overlap.
//!
//! Window `i` begins at token `i × (context + 1)`. It has `context` inputs; the target of each is the token that follows it.
//! Tokens after the last complete window are not used.
//!
//! Hot: see [`Column::gather`]; tokens are converted to 64-bit integers on the device.

use std::path::Path;
use std::sync::Arc;

use lockstep_common::contents::Contents;
use lockstep_common::job::TokenType;
use lockstep_common::preprocessing::{self, Preprocessing};
use tch::{Device, Kind};

use crate::DataError;
use crate::column::Column;
use crate::dataset::{Batch, DataSets, Dataset, InputKind, SampleShape, Targets};
use crate::lookalike::lookalike;
use crate::mapped::Source;
use crate::split::{self, Rows};

/// A token file to read, and how to interpret it.
pub(crate) struct Windows<'a> {
    pub(crate) file: &'a Source<'a>,
    pub(crate) dtype: TokenType,
    pub(crate) context: u32,
    pub(crate) vocabulary: u32,
    /// Fraction of the windows, at the end of the file, that is set apart for validation.
    pub(crate) validation: f64,
    /// Whether to skip the check for other formats and element types.
    pub(crate) accept_as_is: bool,
}

/// Opens the file and checks every token in it.
pub(crate) fn open(windows: &Windows) -> Result<DataSets, DataError> {
    let &Windows { file, dtype, context, vocabulary, validation, accept_as_is } = windows;
    let (path, bytes) = (file.path(), file.bytes()?);
    if let Some(looks) = lookalike(&bytes, dtype).filter(|_| !accept_as_is) {
        return Err(DataError::Lookalike { path: path.to_owned(), dtype: name_of(dtype), looks });
    }
    let (kind, size) = match dtype {
        TokenType::U8 => (Kind::Uint8, 1),
        TokenType::U16 => (Kind::Int16, 2),
    };
    if bytes.len() % size != 0 {
        let detail = format!("its {} bytes are not a multiple of 2", bytes.len());
        return Err(DataError::format(path, "a file of 16-bit tokens", detail));
    }
    check(path, &bytes, dtype, vocabulary)?;
    let window = u64::from(context) + 1;
    let count = (bytes.len() / size) as u64 / window;
    if count == 0 {
        let tokens = bytes.len() / size;
        let detail = format!("its {tokens} tokens do not fill one window of {window} (`model.context` + 1)");
        return Err(DataError::format(path, "a file with at least one window of tokens", detail));
    }
    let column = Column::new(bytes, 0, kind, vec![window as i64], count).expect("whole windows lie within the file");
    let column = Arc::new(column);
    let (train, rest) = split::by_order(path, count, validation)?;
    let shape = SampleShape { input: vec![i64::from(context)], kind: InputKind::Tokens, targets: Targets::Tokens };
    let inputs = preprocessing::Inputs::Tokens { dtype, context, vocabulary };
    let preprocessing = Preprocessing { inputs, targets: preprocessing::Targets::NextToken };
    let select = |rows| -> Box<dyn Dataset> {
        let (column, shape, preprocessing) = (column.clone(), shape.clone(), preprocessing.clone());
        Box::new(Tokens { column, rows, shape, preprocessing })
    };
    Ok(DataSets { train: select(train), validation: rest.map(select) })
}

fn name_of(dtype: TokenType) -> &'static str {
    match dtype {
        TokenType::U8 => "8-bit",
        TokenType::U16 => "16-bit",
    }
}

/// `Token` for the first token that is not below `vocabulary`.
fn check(path: &Path, bytes: &[u8], dtype: TokenType, vocabulary: u32) -> Result<(), DataError> {
    let refuse = |position: usize, value| {
        Err(DataError::Token { path: path.to_owned(), position: position as u64, value, vocabulary })
    };
    // No check if the vocabulary has all values of the type.
    match dtype {
        TokenType::U8 if u8::try_from(vocabulary).is_ok() => {
            match bytes.iter().position(|&token| u32::from(token) >= vocabulary) {
                Some(position) => refuse(position, u16::from(bytes[position])),
                None => Ok(()),
            }
        }
        TokenType::U16 if u16::try_from(vocabulary).is_ok() => {
            let mut tokens = bytes.as_chunks::<2>().0.iter().map(|&pair| u16::from_le_bytes(pair)).enumerate();
            match tokens.find(|&(_, token)| u32::from(token) >= vocabulary) {
                Some((position, token)) => refuse(position, token),
                None => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

struct Tokens {
    column: Arc<Column>,
    rows: Rows,
    shape: SampleShape,
    preprocessing: Preprocessing,
}

impl Tokens {
    fn take(&self, positions: &[u64], device: Device, contents: Option<&mut Contents>) -> Result<Batch, DataError> {
        self.rows.check(positions)?;
        let rows = positions.iter().map(|&position| self.rows.row(position));
        let windows = self.column.gather(rows, device, contents.map(|contents| (contents, 0)))?;
        let mut windows = windows.f_to_kind(Kind::Int64)?;
        if self.column.kind() == Kind::Int16 {
            // libtorch's 16-bit integers are signed; the file's are not.
            windows = windows.f_bitwise_and(0xffff_i64)?;
        }
        let context = self.shape.input[0];
        Ok(Batch::new(windows.f_narrow(1, 0, context)?, windows.f_narrow(1, 1, context)?.f_contiguous()?))
    }
}

impl Dataset for Tokens {
    fn len(&self) -> u64 {
        self.rows.len()
    }

    fn shape(&self) -> &SampleShape {
        &self.shape
    }

    fn preprocessing(&self) -> Option<&Preprocessing> {
        Some(&self.preprocessing)
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
