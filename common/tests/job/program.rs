//! Jobs with a `[program]`.

use lockstep_common::job::{JobSpec, Model, Parameter, parse_toml};

const JOB: &str = r#"
    name = "t"
    steps = 10
    batch = { size = 8 }
    data = { kind = "files", paths = ["images", "labels.csv"] }
    optimizer = { kind = "sgd", lr = 0.1 }

    [program]
    bin = "trainer"

    [program.parameters]
    widths = [8, 16]
    noise = 0.5
    deep = { on = true, name = "x" }
"#;

#[test]
fn a_program_takes_the_place_of_the_model_and_keeps_its_parameters() {
    let job = parse_toml(JOB, &["program.parameters.noise=1".to_owned()]).unwrap();
    let program = job.program.as_ref().unwrap();
    assert_eq!((&job.model, program.build.as_str()), (&Model::Program, "cargo build --release --locked"));
    assert_eq!(program.parameters["noise"], Parameter::Integer(1));
    assert_eq!(program.parameters["widths"], Parameter::Array(vec![Parameter::Integer(8), Parameter::Integer(16)]));
    assert_eq!(JobSpec::from_canonical(&job.canonical()).unwrap(), job);
    let other = parse_toml(JOB, &["program.parameters.noise=1.0".to_owned()]).unwrap();
    assert_ne!(job.digest(), other.digest());
    assert_eq!(JobSpec::from_canonical(&other.canonical()).unwrap(), other);
}

#[test]
fn what_makes_no_sense_is_refused_with_the_key() {
    for (set, key) in [
        ("program.bin=../x", "program.bin"),
        ("program.bin=\"\"", "program.bin"),
        ("program.build=\" \"", "program.build"),
        ("program.parameters.noise=nan", "program.parameters"),
        ("model={ kind = \"mlp\", hidden = [8], outputs = 2 }", "model.kind"),
        ("data.paths=[]", "data.paths"),
        ("data.paths=[\"a\", \"a\"]", "data.paths"),
        ("batch.loss=mse", "batch.loss"),
        ("data={ kind = \"tokens\", path = \"x\" }", "data.kind"),
    ] {
        let error = parse_toml(JOB, &[set.to_owned()]).expect_err(set).to_string();
        assert!(error.starts_with(&format!("key `{key}`: ")), "{set}: {error}");
    }
    let without = JOB.replace("[program]", "[x]").replace("program.", "x.");
    assert!(parse_toml(&without, &[]).unwrap_err().to_string().contains("unknown key `x`"));
    let neither = JOB.split("[program]").next().unwrap();
    let error = parse_toml(neither, &[]).unwrap_err().to_string();
    assert!(error.starts_with("key `model`: ") && error.contains("[program]"), "{error}");
    let model = neither.to_owned() + "[model]\nkind = \"mlp\"\nhidden = [8]\noutputs = 2";
    let error = parse_toml(&model, &[]).unwrap_err().to_string();
    assert!(error.starts_with("key `data.kind`: "), "{error}");
}
