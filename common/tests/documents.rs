//! The jobs in README and docs are valid.

use lockstep_common::job::parse_toml;

const SHOWN: [(&str, &str); 3] = [
    ("README.md", include_str!("../../README.md")),
    ("docs/data.md", include_str!("../../docs/data.md")),
    ("docs/models.md", include_str!("../../docs/models.md")),
];

#[test]
fn jobs_that_documents_show_are_accepted() {
    for (document, text) in SHOWN {
        // The rest of the opening line says how the commands around the job are tested.
        let blocks = text.split("```toml").skip(1).filter_map(|rest| rest.split_once('\n')?.1.split("```").next());
        let jobs: Vec<_> = blocks.filter(|block| block.starts_with("name =")).collect();
        assert!(!jobs.is_empty(), "{document} shows a job");
        for job in jobs {
            if let Err(error) = parse_toml(job, &[]) {
                panic!("{document}: {error}\n{job}");
            }
        }
    }
}
