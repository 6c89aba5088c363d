//! The limit on the tags of a code version.

use lockstep_common::manifest::{CodeVersion, MAX_TAG_BYTES, MAX_TAGS};

fn with_tags(tags: Vec<String>) -> CodeVersion {
    CodeVersion {
        commit: "a".repeat(40),
        branch: None,
        remote: None,
        dirty: false,
        tags,
        directory: String::new(),
        tree: None,
        source: None,
    }
}

#[test]
fn the_last_tags_of_too_many_are_left_out() {
    let left = |tags| {
        let mut code = with_tags(tags);
        let left_out = code.limit_tags();
        (code.tags.len(), left_out)
    };
    assert_eq!(left(vec!["v1".to_owned(), "v2".to_owned()]), (2, 0));
    assert_eq!(left(vec!["t".to_owned(); MAX_TAGS + 3]), (MAX_TAGS, 3));
    assert_eq!(left(vec!["t".repeat(MAX_TAG_BYTES / 16); 18]), (16, 2));
    // Each byte counts as its escaped form, `\u{1b}`.
    assert_eq!(left(vec!["\x1b".repeat(100); 200]), (MAX_TAG_BYTES / 600, 200 - MAX_TAG_BYTES / 600));
}
