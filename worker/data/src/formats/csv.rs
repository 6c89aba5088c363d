//! A table of numbers with a header row.
//!
//! Inputs, and targets of a regression, are standardised: the mean over the training rows is subtracted, and the difference
//! is divided by their standard deviation (of the population; by 1 in a constant column). So the mean squared error of a
//! regression is the fraction of the variance that the model does not explain. A column that cannot be standardised into
//! 32-bit numbers is an error.

use std::collections::BTreeSet;
use std::path::Path;

use lockstep_common::job::Task;
use lockstep_common::preprocessing::{Inputs, Preprocessing, Standardised, Targets};
use tch::Kind;

use crate::DataError;
use crate::array::Pair;
use crate::column::Column;
use crate::dataset::DataSets;
use crate::mapped::{Bytes, Source};
use crate::moments::Moments;
use crate::split;

/// A table to read, and how to interpret it.
pub(crate) struct Table<'a> {
    pub(crate) file: &'a Source<'a>,
    /// The column to predict; all others are inputs.
    pub(crate) target: &'a str,
    pub(crate) task: Task,
    /// Fraction of the rows that is set apart for validation.
    pub(crate) validation: f64,
    /// Root seed, which chooses the validation rows.
    pub(crate) seed: u64,
    /// Number of the model's classes, if known.
    pub(crate) outputs: Option<u32>,
    /// The preprocessing of a checkpoint, whose moments replace those of the table.
    pub(crate) known: Option<&'a Preprocessing>,
}

/// Reads and checks the whole table.
pub(crate) fn open(table: &Table) -> Result<DataSets, DataError> {
    let path = table.file.path();
    let mut parsed = parse(table)?;
    let rows = parsed.targets.len() as u64;
    let split = split::by_seed(path, rows, table.validation, table.seed)?;
    let width = parsed.features.len();
    let training = (0..split.0.len()).map(|position| split.0.row(position) as usize).collect();
    let table_rows = TableRows { path, lines: &parsed.lines, training };
    let known = table.known_columns(&parsed.features);
    let mut columns = Vec::with_capacity(width);
    for (column, name) in parsed.features.iter().enumerate() {
        let known = known.and_then(|known| known.get(column));
        columns.push(standardise(&mut parsed.inputs, (column, width), name, &table_rows, known)?);
    }
    let (kind, shape, targets, target) = match table.task {
        Task::Classification => {
            let count = parsed.targets.iter().fold(0, |count, value| count.max(*value as i64 + 1));
            let bytes = to_bytes(&parsed.targets, |value| (value as i64).to_le_bytes());
            let target = Targets::Classes { column: Some(table.target.to_owned()), count };
            (Kind::Int64, vec![], bytes, Both { used: target.clone(), measured: target })
        }
        Task::Regression => {
            let target = standardise(&mut parsed.targets, (0, 1), table.target, &table_rows, table.known_target())?;
            let bytes = to_bytes(&parsed.targets, |value| (value as f32).to_le_bytes());
            (Kind::Float, vec![1], bytes, target.map(Targets::Standardised))
        }
    };
    let inputs = to_bytes(&parsed.inputs, |value| (value as f32).to_le_bytes());
    let column = |bytes, kind, shape| {
        Column::new(Bytes::Owned(bytes), 0, kind, shape, rows).expect("the bytes were made for these rows")
    };
    let inputs = column(inputs, Kind::Float, vec![width as i64]);
    let targets = column(targets, kind, shape);
    let (used, measured) = columns.into_iter().map(|column| (column.used, column.measured)).unzip();
    let used = Preprocessing { inputs: Inputs::Columns(used), targets: target.used };
    let measured = Preprocessing { inputs: Inputs::Columns(measured), targets: target.measured };
    let pair = Pair::new((path, inputs), (path, targets), table.outputs)?;
    Ok(pair.named(parsed.features).prepared(used, measured).split(split))
}

/// The moments by which a column was standardised, and its own.
struct Both<T> {
    used: T,
    measured: T,
}

impl<T> Both<T> {
    fn map<U>(self, change: impl Fn(T) -> U) -> Both<U> {
        Both { used: change(self.used), measured: change(self.measured) }
    }
}

impl Table<'_> {
    /// The checkpoint's input columns, if they have the names `features`.
    fn known_columns(&self, features: &[String]) -> Option<&[Standardised]> {
        match &self.known?.inputs {
            Inputs::Columns(columns) if columns.iter().map(|column| &column.column).eq(features) => Some(columns),
            _ => None,
        }
    }

    /// The checkpoint's target, if it is the same column.
    fn known_target(&self) -> Option<&Standardised> {
        match &self.known?.targets {
            Targets::Standardised(column) if column.column == self.target => Some(column),
            _ => None,
        }
    }
}

struct Parsed {
    /// Values of all input columns, row by row.
    inputs: Vec<f64>,
    targets: Vec<f64>,
    /// Names of the inputs' columns.
    features: Vec<String>,
    /// The line of each row in the file, from 1.
    lines: Vec<u64>,
}

fn parse(table: &Table) -> Result<Parsed, DataError> {
    let (path, bytes) = (table.file.path(), table.file.bytes()?);
    let mut reader = csv::ReaderBuilder::new().flexible(true).trim(csv::Trim::All).from_reader(&*bytes);
    let broken = |error: csv::Error| DataError::format(path, "a CSV table", error.to_string());
    let header: Vec<String> =
        reader.byte_headers().map_err(broken)?.iter().map(|name| String::from_utf8_lossy(name).into_owned()).collect();
    let mut names = BTreeSet::new();
    if let Some(name) = header.iter().find(|&name| !names.insert(name)) {
        return Err(DataError::Twice { path: path.to_owned(), name: name.clone() });
    }
    let Some(target) = header.iter().position(|name| name == table.target) else {
        let known = header.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(", ");
        let name = table.target.to_owned();
        return Err(DataError::Name { path: path.to_owned(), what: "column", name, known });
    };
    if header.len() < 2 {
        return Err(DataError::format(path, "a table with inputs", "the target is its only column"));
    }
    let (mut inputs, mut targets, mut lines) = (Vec::new(), Vec::new(), Vec::new());
    let mut last = 0;
    let mut record = csv::ByteRecord::new();
    while reader.read_byte_record(&mut record).map_err(broken)? {
        let line = record.position().map_or(0, |position| line_at(&bytes, position));
        last = record.position().map_or(last, |position| position.byte() as usize);
        if record.len() != header.len() {
            let (expected, found) = (header.len(), record.len());
            return Err(DataError::Row { path: path.to_owned(), line, expected, found });
        }
        for (column, cell) in record.iter().enumerate() {
            let refuse = |expected| DataError::Cell {
                path: path.to_owned(),
                line,
                column: header[column].clone(),
                text: String::from_utf8_lossy(cell).chars().take(40).collect(),
                expected,
            };
            let number = std::str::from_utf8(cell).ok().and_then(|text| text.parse::<f64>().ok());
            let number = number.filter(|value| value.is_finite());
            if column == target && table.task == Task::Classification {
                let class = number.filter(|&value| is_class(value));
                targets.push(class.ok_or_else(|| refuse("a class (a whole number from 0)"))?);
                continue;
            }
            let value = number.ok_or_else(|| refuse("a finite number"))?;
            if column == target { &mut targets } else { &mut inputs }.push(value);
        }
        lines.push(line);
    }
    if targets.is_empty() {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    // A cell with a number has two quotation marks or none, so a complete last row has an even number of them.
    if bytes[last..].split(|&byte| byte == b'"').count().is_multiple_of(2) {
        let detail = format!(
            "the quoted cell at the end of line {} is not closed: the file was cut off",
            lines[lines.len() - 1]
        );
        return Err(DataError::format(path, "a whole CSV table", detail));
    }
    let features = header.iter().enumerate().filter(|(column, _)| *column != target);
    Ok(Parsed { inputs, targets, features: features.map(|(_, name)| name.clone()).collect(), lines })
}

/// The line of the record at `position`, from 1. The reader's own count is the line of the first empty line before the record.
fn line_at(bytes: &[u8], position: &csv::Position) -> u64 {
    let from = &bytes[position.byte() as usize..];
    let empty = from.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).filter(|&&byte| byte == b'\n');
    position.line() + empty.count() as u64
}

/// Whether `value` is a whole number from 0 to below 2^32 - 1, which is exact as `f64` and as `i64`.
fn is_class(value: f64) -> bool {
    value.fract() == 0.0 && (0.0..f64::from(u32::MAX)).contains(&value)
}

/// The table's rows: their lines in the file, and the indices of the training rows.
struct TableRows<'a> {
    path: &'a Path,
    lines: &'a [u64],
    training: Vec<usize>,
}

/// Standardises column `column` of `width` columns by `known` moments, or else by its own moments over the training rows.
fn standardise(
    values: &mut [f64],
    (column, width): (usize, usize),
    name: &str,
    rows: &TableRows,
    known: Option<&Standardised>,
) -> Result<Both<Standardised>, DataError> {
    let refuse = |row: usize, value: f64, why| DataError::Standardise {
        path: rows.path.to_owned(),
        line: rows.lines[row],
        column: name.to_owned(),
        value,
        why,
    };
    let of = |row: usize| values[row * width + column];
    let moments = Moments::of(rows.training.iter().map(|&row| of(row))).map_err(|why| {
        let largest = rows.training.iter().copied().rev().max_by(|&a, &b| of(a).abs().total_cmp(&of(b).abs()));
        let row = largest.expect("a split leaves rows to train on");
        refuse(row, of(row), why)
    })?;
    let Moments { mean, deviation, constant } = moments;
    let measured = Standardised { column: name.to_owned(), mean, deviation, constant };
    let used = known.unwrap_or(&measured).clone();
    let moments = Moments { mean: used.mean, deviation: used.deviation, constant: used.constant };
    for (row, value) in values.iter_mut().skip(column).step_by(width).enumerate() {
        let standard = moments.standardise(*value);
        if !(standard as f32).is_finite() {
            return Err(refuse(row, *value, "the standardised value is not a finite 32-bit number"));
        }
        *value = standard;
    }
    Ok(Both { used, measured })
}

fn to_bytes<const N: usize>(values: &[f64], convert: impl Fn(f64) -> [u8; N]) -> Vec<u8> {
    values.iter().flat_map(|&value| convert(value)).collect()
}
