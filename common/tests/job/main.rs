//! Jobs: parsing, checks of values, and the environment of processes.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod numerics;
mod parse;
mod program;
mod validate;

/// All required keys of a job, and `ranks`.
const JOB: &str = r#"
    name = "t"
    steps = 10
    ranks = 4
    batch = { size = 8 }
    model = { kind = "mlp", hidden = [8], outputs = 2 }
    data = { kind = "csv", path = "x.csv", target = "y" }
    optimizer = { kind = "sgd", lr = 0.1 }
"#;
