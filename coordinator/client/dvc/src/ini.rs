//! The form of DVC's configuration and of AWS's credentials: `[section]` and `key = value`, either in quotes or not.

use std::collections::BTreeMap;

/// Key and value by section; names of sections and keys in lower case, as DVC compares them.
pub(crate) type Sections = BTreeMap<String, BTreeMap<String, String>>;

/// Reads a file. An error is the line, counted from 1, and what is wrong with it.
pub(crate) fn parse(text: &str) -> Result<Sections, (usize, &'static str)> {
    let mut sections = Sections::new();
    let mut section = String::new();
    for (i, line) in text.trim_start_matches('\u{feff}').lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with(['#', ';']) {
            continue;
        }
        if let Some(rest) = line.strip_prefix('[') {
            let (name, _) = value(rest, "]").ok_or((i + 1, "the section's name does not end"))?;
            section = name.to_lowercase();
            sections.entry(section.clone()).or_default();
        } else {
            let (key, rest) = value(line, "=").ok_or((i + 1, "neither `[section]` nor `key = value`"))?;
            let (text, _) =
                value(rest, "#").or_else(|| value(rest, "")).ok_or((i + 1, "the value's quotes do not end"))?;
            sections.entry(section.clone()).or_default().insert(key.to_lowercase(), text.to_owned());
        }
    }
    Ok(sections)
}

/// What stands before `end`, and what behind it. What is in quotes is taken to the closing one, `end` and all.
/// An empty `end` is the line's.
fn value<'a>(text: &'a str, end: &str) -> Option<(&'a str, &'a str)> {
    let text = text.trim_start();
    if let Some(quote) = text.chars().next().filter(|c| matches!(c, '"' | '\'')) {
        let (quoted, rest) = text[1..].split_once(quote)?;
        let behind = if end.is_empty() { "" } else { rest.trim_start().strip_prefix(end)? };
        return Some((quoted, behind));
    }
    if end.is_empty() {
        return Some((text.trim_end(), ""));
    }
    let (plain, rest) = text.split_once(end)?;
    Some((plain.trim_end(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sections_and_values_with_and_without_quotes() {
        let text = "\u{feff}# c\n[core]\n    Remote = Store\n['remote \"Store\"']  # c\nurl = \"s3://b/p#x\"\nplain = /a b  # c\nempty =\nquoted = 'a \"b\"' # c\n";
        let sections = parse(text).unwrap();
        assert_eq!(sections["core"]["remote"], "Store");
        let remote = &sections["remote \"store\""];
        assert_eq!((remote["url"].as_str(), remote["plain"].as_str()), ("s3://b/p#x", "/a b"));
        assert_eq!((remote["empty"].as_str(), remote["quoted"].as_str()), ("", "a \"b\""));
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        assert_eq!(parse("[a]\nb\n").unwrap_err().0, 2);
        assert_eq!(parse("[a\n").unwrap_err().0, 1);
        assert_eq!(parse("[a]\nb = \"c\n").unwrap_err(), (2, "the value's quotes do not end"));
    }
}
