//! What documents show is what the files say.

const README: &str = include_str!("../../README.md");
const JOB: &str = include_str!("../../configs/jobs/digits-mlp.toml");

#[test]
fn the_job_in_the_readme_is_the_example_file() {
    let shown = README.split("```toml\n").nth(1).and_then(|rest| rest.split("```").next()).expect("README shows a job");
    let body = JOB.split_once("name =").map(|(_, rest)| format!("name ={rest}")).expect("a job has a name");
    assert_eq!(shown, body);
}
