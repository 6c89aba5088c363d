//! Images and labels in IDX, the format of MNIST: a magic number, big-endian sizes, then the bytes; plain or gzipped.

use std::io::Read;
use std::path::Path;

use flate2::read::MultiGzDecoder;
use tch::Kind;

use crate::DataError;
use crate::array::Pair;
use crate::column::Column;
use crate::dataset::DataSets;
use crate::mapped::{Bytes, Source};
use crate::split::Rows;

/// A file of images, and the file of their labels.
#[derive(Clone, Copy)]
pub(crate) struct Files<'a> {
    pub(crate) images: &'a Source<'a>,
    pub(crate) labels: &'a Source<'a>,
}

/// Opens the files. `outputs` is the number of the model's classes, if known.
pub(crate) fn open(train: Files, validation: Option<Files>, outputs: Option<u32>) -> Result<DataSets, DataError> {
    let all = |pair: &Pair| pair.select(Rows::range(0, pair.samples()));
    let pair = read(train, outputs)?;
    let validation = match validation {
        None => None,
        Some(files) => {
            let other = read(files, outputs)?;
            if other.shape().input != pair.shape().input {
                return Err(DataError::Shapes {
                    train: train.images.path().to_owned(),
                    expected: pair.shape().input.clone(),
                    validation: files.images.path().to_owned(),
                    found: other.shape().input.clone(),
                });
            }
            Some(all(&other))
        }
    };
    Ok(DataSets { train: all(&pair), validation })
}

fn read(files: Files, outputs: Option<u32>) -> Result<Pair, DataError> {
    // Gray images have one channel, for which the format has no axis.
    let images = column(files.images, "an IDX file of images (N × H × W or N × C × H × W)", |sizes| match *sizes {
        [height, width] => Some(vec![1, height, width]),
        [channels, height, width] => Some(vec![channels, height, width]),
        _ => None,
    })?;
    let labels = column(files.labels, "an IDX file of labels (N)", |sizes| sizes.is_empty().then(Vec::new))?;
    Pair::new((files.images.path(), images), (files.labels.path(), labels), outputs)
}

/// Reads the array in the file. `row_shape` maps the sizes after the first to the shape of a row, or to `None` if they are wrong.
fn column(
    source: &Source,
    expected: &'static str,
    row_shape: impl Fn(&[i64]) -> Option<Vec<i64>>,
) -> Result<Column, DataError> {
    let (path, file) = (source.path(), source.bytes()?);
    let (header, bytes) = if file.starts_with(&[0x1f, 0x8b]) {
        inflate(path, &file, expected)?
    } else {
        (Header::read(path, &mut &*file, expected)?, file)
    };
    let (rows, sizes) = (header.sizes[0], &header.sizes[1..]);
    let Some(row_shape) = row_shape(sizes) else {
        return Err(DataError::format(path, expected, format!("its sizes are {:?}", header.sizes)));
    };
    if header.sizes.contains(&0) {
        return Err(DataError::Empty { path: path.to_owned() });
    }
    if bytes.len() as u64 != header.file_bytes() {
        let (expected, found) = (header.file_bytes(), bytes.len() as u64);
        return Err(DataError::Length { path: path.to_owned(), expected, found });
    }
    let rows = rows as u64;
    Column::new(bytes, header.bytes(), Kind::Uint8, row_shape, rows)
        .ok_or_else(|| DataError::format(path, expected, format!("its sizes are {:?}", header.sizes)))
}

/// Unpacks as many bytes as the header declares, and one more if there are any, which is an error later.
fn inflate(path: &Path, packed: &[u8], expected: &'static str) -> Result<(Header, Bytes), DataError> {
    let mut decoder = MultiGzDecoder::new(packed);
    let header = Header::read(path, &mut decoder, expected)?;
    let mut bytes = vec![0; header.bytes()];
    let rest = header.file_bytes() - header.bytes() as u64;
    decoder.take(rest + 1).read_to_end(&mut bytes).map_err(|error| match error.kind() {
        // The gzip stream was cut off.
        std::io::ErrorKind::UnexpectedEof => DataError::format(path, "a whole gzip file", "it ends early"),
        _ => DataError::format(path, "a gzip file", error.to_string()),
    })?;
    Ok((header, Bytes::Owned(bytes)))
}

struct Header {
    /// One to four sizes; their product fits in an `i64`.
    sizes: Vec<i64>,
}

impl Header {
    fn read(path: &Path, file: &mut impl Read, expected: &'static str) -> Result<Self, DataError> {
        let short = |_| DataError::format(path, expected, "it ends within its header");
        let mut magic = [0; 4];
        file.read_exact(&mut magic).map_err(short)?;
        let [0, 0, kind, axes @ 1..=4] = magic else {
            return Err(DataError::format(path, expected, format!("it starts with the bytes {magic:02x?}")));
        };
        if kind != 0x08 {
            let detail = format!("its element type is 0x{kind:02x}: only unsigned bytes (0x08) are supported");
            return Err(DataError::format(path, expected, detail));
        }
        let mut sizes = Vec::with_capacity(axes.into());
        for _ in 0..axes {
            let mut size = [0; 4];
            file.read_exact(&mut size).map_err(short)?;
            sizes.push(i64::from(u32::from_be_bytes(size)));
        }
        let product = sizes.iter().try_fold(1_i64, |product, &size| product.checked_mul(size));
        if product.is_none_or(|product| product > i64::MAX / 2) {
            return Err(DataError::format(path, expected, format!("its sizes are {sizes:?}")));
        }
        Ok(Self { sizes })
    }

    /// Bytes of the header itself.
    fn bytes(&self) -> usize {
        4 + 4 * self.sizes.len()
    }

    /// Bytes of header and array.
    fn file_bytes(&self) -> u64 {
        self.bytes() as u64 + self.sizes.iter().product::<i64>() as u64
    }
}
