//! The inputs of a training program: job, data files and device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lockstep_common::job::{JobSpec, Parameter};
use lockstep_common::manifest::DataFile;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_data::files::JobFiles;
use serde::de::DeserializeOwned;
use tch::Device;

/// The inputs of a training program: the job, its data files, and the device.
#[derive(Clone, Debug)]
pub struct Setup {
    job: JobSpec,
    data: JobFiles,
    files: Vec<String>,
    device: Device,
    known: Option<Preprocessing>,
    other_data: Option<OtherData>,
}

/// How accepted data (`coord resume --accept data`) differs from the checkpoint's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherData {
    /// All files have the same names and lengths as before.
    AsLong,
    /// The list of files, or the length of a file, differs.
    OtherLength,
}

impl OtherData {
    /// Compares the files of the checkpoint (`then`) with the files of the assignment (`now`); `None` if they are equal.
    pub fn between(then: &[DataFile], now: &[DataFile]) -> Option<Self> {
        let lengths = |files: &[DataFile]| files.iter().map(|file| (file.path.clone(), file.bytes)).collect::<Vec<_>>();
        let other = if lengths(then) == lengths(now) { Self::AsLong } else { Self::OtherLength };
        (then != now).then_some(other)
    }
}

/// A key of `[program.parameters]` is missing or has the wrong type.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// The job does not set the key.
    #[error("key `program.parameters.{0}`: missing; the program needs it, so set it in the job")]
    Missing(String),
    /// The value cannot be read as the type that the program asks for.
    #[error("key `{key}`: {detail}")]
    Type {
        /// Path of the value in the job, for example `program.parameters.widths[1]`.
        key: String,
        /// Expected and found type, or the unknown or missing field.
        detail: String,
    },
}

impl Setup {
    /// For `job`. `files` lists its data files by the paths that the job uses; `data` says where each file is.
    pub fn new(job: JobSpec, data: JobFiles, files: Vec<String>, device: Device) -> Self {
        Self { job, data, files, device, known: None, other_data: None }
    }

    /// Marks the data as accepted data that differs from the checkpoint's. Sample positions are then derived from the new data; the
    /// preprocessing stays that of the checkpoint.
    #[must_use]
    pub fn on(self, other_data: Option<OtherData>) -> Self {
        Self { other_data, ..self }
    }

    /// Sets the preprocessing of the checkpoint; `None` for a new run and for checkpoints of older versions.
    pub(crate) fn known_from(self, known: Option<Preprocessing>) -> Self {
        Self { known, ..self }
    }

    /// The job, with all defaults filled in.
    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// The device on which the model is built and trained.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Reads all of `[program.parameters]` into `T`. Use `#[serde(deny_unknown_fields)]` to reject misspelt keys.
    ///
    /// # Errors
    /// `Type` for the first key that does not fit `T`.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, ParameterError> {
        let all = self.job.program.as_ref().map(|program| program.parameters.clone()).unwrap_or_default();
        read("program.parameters", &Parameter::Table(all))
    }

    /// Reads the key `name` of `[program.parameters]`.
    ///
    /// # Errors
    /// `Missing` if the job does not set it; `Type` if its value is not a `T`.
    pub fn parameter<T: DeserializeOwned>(&self, name: &str) -> Result<T, ParameterError> {
        let value = self.job.program.as_ref().and_then(|program| program.parameters.get(name));
        let value = value.ok_or_else(|| ParameterError::Missing(name.to_owned()))?;
        read(&format!("program.parameters.{name}"), value)
    }

    /// The location on this machine of the data file that the job calls `path`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.data.at(path)
    }

    /// The data files at or below `path`, a path as the job writes it. The map goes from the rest of each file's path (empty if `path` is
    /// the file itself) to the file's location on this machine. Files that were added after the job was submitted are not listed. Under
    /// an agent, the digests of all listed files have been verified.
    pub fn files(&self, path: &str) -> BTreeMap<String, PathBuf> {
        let below = |file: &str| {
            let rest = Path::new(file).strip_prefix(path).ok()?;
            Some((rest.to_str()?.to_owned(), self.data.at(file)))
        };
        self.files.iter().filter_map(|file| below(file)).collect()
    }

    pub(crate) fn known(&self) -> Option<&Preprocessing> {
        self.known.as_ref()
    }

    pub(crate) fn other_data(&self) -> Option<OtherData> {
        self.other_data
    }

    pub(crate) fn data(&self) -> &JobFiles {
        &self.data
    }

    pub(crate) fn into_job(self) -> JobSpec {
        self.job
    }
}

fn read<T: DeserializeOwned>(key: &str, value: &Parameter) -> Result<T, ParameterError> {
    let wrong = |path: String, detail: String| ParameterError::Type {
        key: if path == "." { key.to_owned() } else { format!("{key}.{path}") },
        detail,
    };
    let value = serde_json::to_value(value).map_err(|error| wrong(".".to_owned(), error.to_string()))?;
    serde_path_to_error::deserialize(value).map_err(|error| wrong(error.path().to_string(), error.inner().to_string()))
}

#[cfg(test)]
mod tests {
    use lockstep_common::job::parse_toml;
    use serde::Deserialize;

    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Own {
        widths: Vec<i64>,
        #[serde(default)]
        noise: f64,
    }

    fn setup(parameters: &str) -> Setup {
        let text = format!(
            "name = \"t\"\nsteps = 1\nbatch = {{ size = 1 }}\noptimizer = {{ kind = \"sgd\", lr = 0.1 }}\n\
             data = {{ kind = \"files\", paths = [\"../images\"] }}\n[program]\nbin = \"t\"\nparameters = {parameters}"
        );
        let files = ["../images/b", "../images/a/c", "../imagesx"].map(str::to_owned).to_vec();
        Setup::new(parse_toml(&text, &[]).unwrap(), Path::new("/job").into(), files, Device::Cpu)
    }

    #[test]
    fn parameters_are_read_by_their_types_or_refused_by_their_keys() {
        let good = setup("{ widths = [3, 4], noise = 1 }");
        assert_eq!(good.parameters::<Own>().unwrap(), Own { widths: vec![3, 4], noise: 1.0 });
        assert_eq!(good.parameter::<Vec<i64>>("widths").unwrap(), [3, 4]);
        let words = |parameters: &str| setup(parameters).parameters::<Own>().unwrap_err().to_string();
        assert!(words("{ widths = [3, \"x\"] }").starts_with("key `program.parameters.widths[1]`: invalid type"));
        assert!(words("{}").starts_with("key `program.parameters`: missing field `widths`"));
        assert!(words("{ widths = [], nois = 1 }").contains("unknown field `nois`"));
        let missing = good.parameter::<f64>("rate").unwrap_err().to_string();
        assert_eq!(missing, "key `program.parameters.rate`: missing; the program needs it, so set it in the job");
        assert!(
            good.parameter::<bool>("noise").unwrap_err().to_string().starts_with("key `program.parameters.noise`:")
        );
    }

    #[test]
    fn files_are_those_below_a_path_in_one_order() {
        let found: Vec<_> = setup("{}").files("../images").into_iter().collect();
        let at = |name: &str| (name.to_owned(), PathBuf::from(format!("/job/../images/{name}")));
        assert_eq!(found, [at("a/c"), at("b")]);
        assert_eq!(setup("{}").file("../x"), Path::new("/job/../x"));
    }
}
