//! Jobs that documents show are jobs.

use lockstep_common::job::parse_toml;

const SHOWN: [(&str, &str); 2] =
    [("README.md", include_str!("../../README.md")), ("docs/models.md", include_str!("../../docs/models.md"))];

#[test]
fn jobs_that_documents_show_are_accepted() {
    for (document, text) in SHOWN {
        let blocks = text.split("```toml\n").skip(1).filter_map(|rest| rest.split("```").next());
        let jobs: Vec<_> = blocks.filter(|block| block.starts_with("name =")).collect();
        assert!(!jobs.is_empty(), "{document} shows a job");
        for job in jobs {
            if let Err(error) = parse_toml(job, &[]) {
                panic!("{document}: {error}\n{job}");
            }
        }
    }
}
