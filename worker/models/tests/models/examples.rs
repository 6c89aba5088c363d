//! Every example job is valid, and the jobs whose data is in the repository can compute a loss.

use std::fs;
use std::path::Path;

use lockstep_common::job::parse_toml;
use lockstep_data::open_data;
use lockstep_models::{Context, build_model};
use tch::Device;

#[test]
fn every_example_job_is_sound() {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/jobs");
    let mut names = Vec::new();
    for entry in fs::read_dir(&dir).unwrap() {
        let path = entry.unwrap().path();
        // A local run may have left its own directory there.
        if path.extension().is_none_or(|extension| extension != "toml") {
            continue;
        }
        let job = parse_toml(&fs::read_to_string(&path).unwrap(), &[]);
        let job = job.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        assert_eq!(job.name, name);
        for data in job.data_paths() {
            assert!(data.starts_with("../../target/data/") || dir.join(data).is_file(), "{name}: {data}");
        }
        if job.data_paths().iter().all(|data| dir.join(data).is_file()) {
            let sets = open_data(&job, &dir.as_path().into()).unwrap();
            let model = build_model(&job, sets.train.shape(), &dir.as_path().into(), Device::Cpu).unwrap();
            let batch = sets.train.batch(&[0, 1, 2], Device::Cpu).unwrap();
            assert!(model.loss(&batch, &Context::default()).unwrap().double_value(&[]).is_finite(), "{name}");
            let validation = sets.validation.expect("every example evaluates");
            assert!(
                model.evaluate(&validation.batch(&[0], Device::Cpu).unwrap(), &Context::default()).unwrap().count > 0
            );
        }
        names.push(name);
    }
    names.sort();
    assert_eq!(names, ["diamonds-mlp", "digits-mlp", "fashion-mlp", "fashion-resnet", "gpt-kjv"]);
}
