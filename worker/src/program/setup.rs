//! What a run is begun with: job, data files, device.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use lockstep_common::job::{JobSpec, Parameter};
use lockstep_common::manifest::DataFile;
use lockstep_common::preprocessing::Preprocessing;
use lockstep_data::files::JobFiles;
use serde::de::DeserializeOwned;
use tch::Device;

/// What a run is begun with.
#[derive(Clone, Debug)]
pub struct Setup {
    job: JobSpec,
    data: JobFiles,
    files: Vec<String>,
    device: Device,
    known: Option<Preprocessing>,
    other_data: Option<OtherData>,
}

/// Data that is not the checkpoint's, and was accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtherData {
    /// Every file has as many bytes as before.
    AsLong,
    /// Some file has more or fewer bytes.
    OtherLength,
}

impl OtherData {
    /// What `now` is, of what was `then`; `None` if nothing differs.
    pub fn between(then: &[DataFile], now: &[DataFile]) -> Option<Self> {
        let lengths = |files: &[DataFile]| files.iter().map(|file| (file.path.clone(), file.bytes)).collect::<Vec<_>>();
        let other = if lengths(then) == lengths(now) { Self::AsLong } else { Self::OtherLength };
        (then != now).then_some(other)
    }
}

/// A parameter that is not what the program expects.
#[derive(Debug, thiserror::Error)]
pub enum ParameterError {
    /// The job does not have it.
    #[error("key `program.parameters.{0}`: the program needs it, and the job does not set it")]
    Missing(String),
    /// It is of another type.
    #[error("key `{key}`: {detail}")]
    Type {
        /// Which.
        key: String,
        /// What is wrong.
        detail: String,
    },
}

impl Setup {
    /// For `job`, whose data are `files` (as the job writes their paths), found as `data`.
    pub fn new(job: JobSpec, data: JobFiles, files: Vec<String>, device: Device) -> Self {
        Self { job, data, files, device, known: None, other_data: None }
    }

    /// The data is not the checkpoint's, and was accepted: sample positions are derived anew from it, while the preprocessing stays the
    /// checkpoint's.
    #[must_use]
    pub fn on(self, other_data: Option<OtherData>) -> Self {
        Self { other_data, ..self }
    }

    /// With what the checkpoint says of the preprocessing.
    pub(crate) fn known_from(self, known: Option<Preprocessing>) -> Self {
        Self { known, ..self }
    }

    /// The whole job.
    pub fn job(&self) -> &JobSpec {
        &self.job
    }

    /// The device that the model is built on.
    pub fn device(&self) -> Device {
        self.device
    }

    /// All of `[program.parameters]`.
    ///
    /// # Errors
    /// The first key that is not as `T` has it.
    pub fn parameters<T: DeserializeOwned>(&self) -> Result<T, ParameterError> {
        let all = self.job.program.as_ref().map(|program| program.parameters.clone()).unwrap_or_default();
        read("program.parameters", &Parameter::Table(all))
    }

    /// One of `[program.parameters]`.
    ///
    /// # Errors
    /// It is not there, or not a `T`.
    pub fn parameter<T: DeserializeOwned>(&self, name: &str) -> Result<T, ParameterError> {
        let value = self.job.program.as_ref().and_then(|program| program.parameters.get(name));
        let value = value.ok_or_else(|| ParameterError::Missing(name.to_owned()))?;
        read(&format!("program.parameters.{name}"), value)
    }

    /// Where the data file lies that the job calls `path`.
    pub fn file(&self, path: &str) -> PathBuf {
        self.data.at(path)
    }

    /// The data files at or below `path` of the job's `[data]`, sorted: by what follows `path` (nothing, if it is a file), and
    /// where each lies. They are those of the submit, and have been verified; what else a directory has got since is not among them.
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
        assert_eq!(missing, "key `program.parameters.rate`: the program needs it, and the job does not set it");
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
