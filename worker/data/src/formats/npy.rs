//! Arrays in numpy's npy format (versions 1 to 3), memory-mapped.
//!
//! The header is a Python dictionary with three known keys. This strict parser replaces a general one for Python literals,
//! which would recurse, and multiply without overflow checks, on the header of a damaged file.

use tch::Kind;

use crate::array::Pair;
use crate::column::Column;
use crate::dataset::DataSets;
use crate::mapped::Source;
use crate::{DataError, split};

const FORMAT: &str = "an npy array";

/// Opens inputs and targets, and sets the fraction `validation` apart, chosen by the root seed.
pub(crate) fn open(
    inputs: &Source,
    targets: &Source,
    validation: f64,
    seed: u64,
    outputs: Option<u32>,
) -> Result<DataSets, DataError> {
    let pair = Pair::new((inputs.path(), column(inputs)?), (targets.path(), column(targets)?), outputs)?;
    let split = split::by_seed(inputs.path(), pair.samples(), validation, seed)?;
    Ok(pair.split(split))
}

fn column(file: &Source) -> Result<Column, DataError> {
    let (path, bytes) = (file.path(), file.bytes()?);
    let refuse = |detail: String| DataError::format(path, FORMAT, detail);
    let (header, start) = header(&bytes).map_err(|detail| refuse(detail.to_owned()))?;
    let Header { descr, fortran_order, shape } = parse(header)
        .ok_or_else(|| refuse(format!("its header is `{}`", header.chars().take(120).collect::<String>())))?;
    let kind = match descr {
        "<f4" => Kind::Float,
        "|u1" => Kind::Uint8,
        "|i1" => Kind::Int8,
        "<i2" => Kind::Int16,
        "<i4" => Kind::Int,
        "<i8" => Kind::Int64,
        other => {
            return Err(refuse(format!(
                "its element type is `{other}`: only `<f4`, `|u1`, `|i1`, `<i2`, `<i4` and `<i8` are supported"
            )));
        }
    };
    if fortran_order && shape.len() > 1 {
        return Err(refuse("it is in Fortran order: save `numpy.ascontiguousarray(x)`".to_owned()));
    }
    let Some((&rows, row_shape)) = shape.split_first() else {
        return Err(refuse("it has no axes".to_owned()));
    };
    if shape.contains(&0) {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    let size = shape.iter().try_fold(kind.elt_size_in_bytes() as u64, |size, &axis| size.checked_mul(axis as u64));
    let expected = size
        .and_then(|size| size.checked_add(start as u64))
        .ok_or_else(|| refuse(format!("its shape is {shape:?}")))?;
    let found = bytes.len() as u64;
    if expected != found {
        return Err(DataError::Length { path: path.to_owned(), expected, found });
    }
    Column::new(bytes, start, kind, row_shape.to_vec(), rows as u64)
        .ok_or_else(|| refuse(format!("its shape is {shape:?}")))
}

/// The header's text, and the offset of the first element.
fn header(bytes: &[u8]) -> Result<(&str, usize), &'static str> {
    let rest = bytes.strip_prefix(b"\x93NUMPY").ok_or("it does not start with the magic number")?;
    let (length, before) = match *rest {
        [1, _, a, b, ..] => (usize::from(u16::from_le_bytes([a, b])), 10),
        [2 | 3, _, a, b, c, d, ..] => (u32::from_le_bytes([a, b, c, d]) as usize, 12),
        [version, ..] if version != 1 => return Err("its version is not 1, 2 or 3"),
        _ => return Err("it ends within its header"),
    };
    let text = bytes.get(before..before + length).ok_or("it ends within its header")?;
    let text = std::str::from_utf8(text).map_err(|_| "its header is not text")?;
    Ok((text, before + length))
}

#[derive(Debug, PartialEq)]
struct Header<'a> {
    descr: &'a str,
    fortran_order: bool,
    shape: Vec<i64>,
}

/// Parses a header such as `{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }`, with the keys in any order.
fn parse(text: &str) -> Option<Header<'_>> {
    let mut rest = text.trim().strip_prefix('{')?.strip_suffix('}')?.trim();
    let (mut descr, mut fortran_order, mut shape) = (None, None, None);
    while !rest.is_empty() {
        let (key, value) = rest.split_once(':')?;
        let value = value.trim_start();
        let after = match key.trim() {
            "'descr'" => {
                let (name, after) = value.strip_prefix('\'')?.split_once('\'')?;
                descr = Some(name);
                after
            }
            "'fortran_order'" => {
                let after = value.strip_prefix("True").or_else(|| value.strip_prefix("False"))?;
                fortran_order = Some(value.starts_with("True"));
                after
            }
            "'shape'" => {
                let (sizes, after) = value.strip_prefix('(')?.split_once(')')?;
                let sizes = sizes.split(',').map(str::trim).filter(|size| !size.is_empty());
                shape =
                    Some(sizes.map(|size| size.parse().ok().filter(|&size: &i64| size >= 0)).collect::<Option<_>>()?);
                after
            }
            _ => return None,
        };
        let after = after.trim_start();
        rest = if after.is_empty() { after } else { after.strip_prefix(',')?.trim_start() };
    }
    Some(Header { descr: descr?, fortran_order: fortran_order?, shape: shape? })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_read_strictly() {
        let good = "{'descr': '<f4', 'fortran_order': False, 'shape': (3, 4), }    \n";
        assert_eq!(parse(good), Some(Header { descr: "<f4", fortran_order: false, shape: vec![3, 4] }));
        let reordered = "{'shape': (7,), 'fortran_order': True, 'descr': '|u1'}";
        assert_eq!(parse(reordered), Some(Header { descr: "|u1", fortran_order: true, shape: vec![7] }));
        for bad in [
            "",
            "{}",
            "{'descr': '<f4', 'fortran_order': False}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, -4)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3, x)}",
            "{'descr': '<f4', 'fortran_order': 0, 'shape': (3)}",
            "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (3,)}",
            "{'descr': '<f4', 'fortran_order': False, 'shape': (3,), 'more': 1}",
            "{'descr': '<f4' 'fortran_order': False, 'shape': (3,)}",
        ] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
