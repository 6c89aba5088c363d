//! All points of a run in one file: one row for each, by series and step.

mod csv;
mod parquet;
mod rows;

use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tokio::task::spawn_blocking;

pub(crate) use rows::Rows;

use crate::{ExportError, Item};

/// Of a file with all points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableFormat {
    /// Numbers are the shortest that read as the same bits; `NaN`, `inf`, `-inf`.
    Csv,
    /// Compressed with Snappy.
    Parquet,
}

/// A file with the columns `series`, `part`, `step`, `at_ms`, `value`. It is there whole, or not.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    format: TableFormat,
    rows: Rows,
}

impl TableFile {
    /// Will be at `path`, in place of what is there.
    pub fn new(path: impl Into<PathBuf>, format: TableFormat) -> Self {
        Self { path: path.into(), format, rows: Rows::default() }
    }

    /// That a file can be there, before anything is read.
    pub(crate) fn begin(&self) -> Result<(), ExportError> {
        place(&self.path).map(drop)
    }

    pub(crate) fn write(&mut self, items: &[Item<'_>]) {
        for item in items {
            self.rows.take(item);
        }
    }

    pub(crate) async fn finish(&mut self) -> Result<(), ExportError> {
        let (path, format, mut rows) = (self.path.clone(), self.format, std::mem::take(&mut self.rows));
        spawn_blocking(move || {
            rows.sort();
            write(&path, format, &rows)
        })
        .await
        .expect("writing a table does not panic")
    }
}

/// Where a table for `path` goes: where its links lead.
fn place(path: &Path) -> Result<PathBuf, ExportError> {
    match fs::canonicalize(path) {
        Ok(place) if place.is_file() => Ok(place),
        Ok(_) => Err(ExportError::io("replace", path)(io::Error::other("it is no ordinary file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok(path.to_owned()),
        Err(error) => Err(ExportError::io("replace", path)(error)),
    }
}

fn write(path: &Path, format: TableFormat, rows: &Rows) -> Result<(), ExportError> {
    let path = &place(path)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What the umask takes off is the user's choice.
    let file = tempfile::Builder::new().permissions(Permissions::from_mode(0o666)).tempfile_in(dir);
    let mut file = file.map_err(ExportError::io("create a file in", dir))?;
    let written = match format {
        TableFormat::Csv => csv::write(rows, file.as_file_mut()).map_err(Into::into),
        TableFormat::Parquet => parquet::write(rows, file.as_file_mut()).map_err(Into::into),
    };
    written.map_err(|source| ExportError::Table { path: path.to_owned(), source })?;
    file.as_file().sync_all().map_err(ExportError::io("write", path))?;
    file.persist(path).map_err(|error| ExportError::io("replace", path)(error.error))?;
    Ok(())
}
