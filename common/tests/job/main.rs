//! What makes a job: its text, its values, and what follows from them for a process.
#![expect(clippy::unwrap_used, reason = "helpers of tests fail the test")]

mod numerics;
mod parse;
mod program;
mod validate;

/// What a job needs at least, and ranks.
const JOB: &str = r#"
    name = "t"
    steps = 10
    ranks = 4
    batch = { size = 8 }
    model = { kind = "mlp", hidden = [8], outputs = 2 }
    data = { kind = "csv", path = "x.csv", target = "y" }
    optimizer = { kind = "sgd", lr = 0.1 }
"#;
