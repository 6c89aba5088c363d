//! Helpers of this crate's tests.

use std::path::Path;

use lockstep_common::chain;
use lockstep_common::job::{JobSpec, parse_toml};
use lockstep_data::{DataSets, open_data};

/// A job with these `model` and `data` tables.
pub(crate) fn job(model: &str, data: &str, overrides: &[&str]) -> JobSpec {
    let text = format!(
        "name = \"t\"\nseed = 7\nsteps = 10\nbatch = {{ size = 8 }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n\
         model = {model}\ndata = {data}\n"
    );
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    parse_toml(&text, &overrides).unwrap()
}

/// The data sets of a job with files in `dir`, or the whole chain of errors.
pub(crate) fn open(model: &str, data: &str, dir: &Path) -> Result<DataSets, String> {
    open_seeded(model, data, dir, 7)
}

/// As [`open`], with another root seed.
pub(crate) fn open_seeded(model: &str, data: &str, dir: &Path, seed: u64) -> Result<DataSets, String> {
    open_data(&job(model, data, &[&format!("seed={seed}")]), &dir.into()).map_err(|error| chain(&error))
}
