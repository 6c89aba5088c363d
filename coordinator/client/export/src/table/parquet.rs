//! Points as Parquet.

use std::fs::File;
use std::io::BufWriter;
use std::sync::Arc;

use lockstep_common::series::{Point, SeriesKey};
use parquet::basic::{Compression, Encoding};
use parquet::data_type::{ByteArray, ByteArrayType, DoubleType, Int32Type, Int64Type};
use parquet::errors::Result;
use parquet::file::properties::WriterProperties;
use parquet::file::writer::{SerializedFileWriter, SerializedRowGroupWriter};
use parquet::schema::parser::parse_message_type;
use parquet::schema::types::ColumnPath;

use super::Rows;

const SCHEMA: &str = "
    message points {
        required binary series (STRING);
        optional int32 part (INTEGER(32, false));
        required int64 step (INTEGER(64, false));
        required int64 at_ms (TIMESTAMP(MILLIS, true));
        required double value;
    }
";

/// Rows of a row group: as a reader holds one in memory, some 40 MB.
const GROUP: usize = 1 << 20;

/// Writes `rows` to `file`.
pub(super) fn write(rows: &Rows, file: &mut File) -> Result<()> {
    let schema = Arc::new(parse_message_type(SCHEMA)?);
    // Steps and times grow by almost the same from row to row. Values seldom repeat: a dictionary of them is a waste.
    let mut properties = WriterProperties::builder().set_compression(Compression::SNAPPY);
    for (column, encoding) in
        [("step", Encoding::DELTA_BINARY_PACKED), ("at_ms", Encoding::DELTA_BINARY_PACKED), ("value", Encoding::PLAIN)]
    {
        let column = ColumnPath::from(column);
        properties =
            properties.set_column_dictionary_enabled(column.clone(), false).set_column_encoding(column, encoding);
    }
    let mut file = SerializedFileWriter::new(BufWriter::new(file), schema, Arc::new(properties.build()))?;
    let mut rest = rows.iter().peekable();
    while rest.peek().is_some() {
        let group: Vec<_> = rest.by_ref().take(GROUP).collect();
        let mut writer = file.next_row_group()?;
        write_group(&group, &mut writer)?;
        writer.close()?;
    }
    file.close()?;
    Ok(())
}

fn write_group(
    group: &[(&SeriesKey, &Point)],
    writer: &mut SerializedRowGroupWriter<'_, BufWriter<&mut File>>,
) -> Result<()> {
    let mut index = 0;
    while let Some(mut column) = writer.next_column()? {
        let points = group.iter().map(|(_, point)| point);
        match index {
            0 => column.typed::<ByteArrayType>().write_batch(&names(group), None, None)?,
            1 => {
                let values: Vec<i32> = group.iter().filter_map(|(key, _)| key.part.map(u32::cast_signed)).collect();
                let levels: Vec<i16> = group.iter().map(|(key, _)| i16::from(key.part.is_some())).collect();
                column.typed::<Int32Type>().write_batch(&values, Some(&levels), None)?
            }
            2 => {
                let steps: Vec<i64> = points.map(|point| point.step as i64).collect();
                column.typed::<Int64Type>().write_batch(&steps, None, None)?
            }
            3 => {
                let times: Vec<i64> = points.map(|point| point.at_ms as i64).collect();
                column.typed::<Int64Type>().write_batch(&times, None, None)?
            }
            _ => {
                let values: Vec<f64> = points.map(|point| point.value).collect();
                column.typed::<DoubleType>().write_batch(&values, None, None)?
            }
        };
        column.close()?;
        index += 1;
    }
    Ok(())
}

/// The series' names, of which those of one series share their bytes.
fn names(group: &[(&SeriesKey, &Point)]) -> Vec<ByteArray> {
    let mut names: Vec<ByteArray> = Vec::with_capacity(group.len());
    for (key, _) in group {
        match names.last() {
            Some(last) if last.data() == key.name.as_bytes() => names.push(last.clone()),
            _ => names.push(ByteArray::from(key.name.as_bytes().to_vec())),
        }
    }
    names
}
