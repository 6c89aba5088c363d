//! All points of a run in one file: one row for each, by series and step.

mod csv;
mod parquet;
mod rows;

use std::fs::{self, File, Permissions};
use std::io::{self, Read as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _, fchown};
use std::path::{Path, PathBuf};

use lockstep_host::plain;
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

impl TableFormat {
    /// How its files begin.
    fn head(self) -> &'static [u8] {
        match self {
            Self::Csv => csv::HEADER.as_bytes(),
            Self::Parquet => b"PAR1",
        }
    }
}

/// A file with the columns `series`, `part`, `step`, `at_ms`, `value`. It is there whole, or not.
#[derive(Debug)]
pub struct TableFile {
    path: PathBuf,
    format: TableFormat,
    rows: Rows,
}

impl TableFile {
    /// Will be at `path`, in place of an earlier one or of an empty file, whose mode it keeps.
    pub fn new(path: impl Into<PathBuf>, format: TableFormat) -> Self {
        Self { path: path.into(), format, rows: Rows::default() }
    }

    /// That a file can be there, before anything is read.
    pub(crate) fn begin(&self) -> Result<(), ExportError> {
        place(&self.path, self.format).map(drop)
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

/// Where a table for `path` goes: where its links lead, and the table that it replaces.
fn place(path: &Path, format: TableFormat) -> Result<(PathBuf, Option<File>), ExportError> {
    let replace = ExportError::io("replace", path);
    match fs::canonicalize(path) {
        Ok(place) if place.is_file() => match earlier(&place, format) {
            Ok(file) => Ok((place, Some(file))),
            Err(error) => Err(replace(error)),
        },
        Ok(_) => Err(replace(io::Error::other("it is no ordinary file"))),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !path.is_symlink() => Ok((path.to_owned(), None)),
        Err(error) => Err(replace(error)),
    }
}

/// The file at `place`, if nothing is lost with it that a table of the same format does not bring again.
fn earlier(place: &Path, format: TableFormat) -> io::Result<File> {
    let (file, head) = (plain::open(place)?, format.head());
    let mut found = Vec::new();
    (&file).take(head.len() as u64).read_to_end(&mut found)?;
    if found.is_empty() || found == head {
        return Ok(file);
    }
    let head = head.escape_ascii();
    Err(io::Error::other(format!(
        "it does not begin with `{head}`, as such a table does: move it away, or name another file"
    )))
}

fn write(path: &Path, format: TableFormat, rows: &Rows) -> Result<(), ExportError> {
    let (path, earlier) = &place(path, format)?;
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let earlier = earlier.as_ref().map(File::metadata).transpose().map_err(ExportError::io("replace", path))?;
    // What the umask takes off a new file is the user's choice.
    let mode = earlier.as_ref().map_or(0o666, |earlier| earlier.mode() & 0o777);
    let file = tempfile::Builder::new().permissions(Permissions::from_mode(mode)).tempfile_in(dir);
    let mut file = file.map_err(ExportError::io("create a file in", dir))?;
    let written = match format {
        TableFormat::Csv => csv::write(rows, file.as_file_mut()).map_err(Into::into),
        TableFormat::Parquet => parquet::write(rows, file.as_file_mut()).map_err(Into::into),
    };
    written.map_err(|source| ExportError::Table { path: path.to_owned(), source })?;
    if let Some(earlier) = earlier {
        // Whoever is not of that group cannot give it the file: then no group has it.
        let kept = fchown(file.as_file(), None, Some(earlier.gid())).is_ok();
        let mode = Permissions::from_mode(if kept { mode } else { mode & !0o070 });
        file.as_file().set_permissions(mode).map_err(ExportError::io("write", path))?;
    }
    file.as_file().sync_all().map_err(ExportError::io("write", path))?;
    file.persist(path).map_err(|error| ExportError::io("replace", path)(error.error))?;
    Ok(())
}
