//! The files in a job's data directories, from the lists that were made at submit.

use lockstep_common::listing;
use lockstep_common::manifest::DataFile;
use lockstep_store::BlobStore;

use super::error::FilesError;

/// Replaces each directory in `data` by its files, from the list in `store`.
pub fn listed(data: &[DataFile], store: &BlobStore) -> Result<Vec<DataFile>, FilesError> {
    let mut files = Vec::new();
    for entry in data {
        if !entry.is_directory() {
            files.push(entry.clone());
            continue;
        }
        let list = store.get(&entry.piece());
        let list = list.map_err(|source| FilesError::NoList { path: entry.path.clone().into(), source })?;
        let below = listing::decode(entry, &list);
        files.extend(below.map_err(|source| FilesError::List { path: entry.path.clone().into(), source })?);
    }
    Ok(files)
}
