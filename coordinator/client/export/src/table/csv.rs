//! Points as CSV.

use std::fs::File;
use std::io::{BufWriter, Write as _};

use serde::Serialize;

use super::Rows;

/// The columns' names.
pub(super) const HEADER: &str = "series,part,step,at_ms,value\n";

#[derive(Serialize)]
struct Row<'a> {
    series: &'a str,
    part: Option<u32>,
    step: u64,
    at_ms: u64,
    value: f64,
}

/// Writes `rows` to `file`. Floats are as the crate `csv` writes them: the shortest text that reads as the same bits.
pub(super) fn write(rows: &Rows, file: &mut File) -> csv::Result<()> {
    let mut file = BufWriter::new(file);
    // By hand, so that it is there where no row is.
    file.write_all(HEADER.as_bytes())?;
    let mut csv = csv::WriterBuilder::new().has_headers(false).from_writer(file);
    for (key, point) in rows.iter() {
        let (series, part) = (&*key.name, key.part);
        csv.serialize(Row { series, part, step: point.step, at_ms: point.at_ms, value: point.value })?;
    }
    csv.flush()?;
    Ok(())
}
