//! What DVC knows of a directory: the MD5 and the path of every file, as a JSON text whose own MD5, with `.dir` behind
//! it, names the directory.
//!
//! The text must equal byte for byte what Python's `json.dumps` writes, or the hash would be another.

use std::fmt::Write as _;
use std::io;
use std::path::{Component, Path};

use serde::Deserialize;

use crate::hash::{Generation, Md5};

/// The files of a directory, by path.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Listing(Vec<Entry>);

/// One file of a directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the directory, with `/`; only plain names, so that it leads nowhere else.
    pub(crate) path: String,
    pub(crate) md5: Md5,
}

#[derive(Deserialize)]
struct RawEntry {
    md5: String,
    relpath: String,
}

impl Listing {
    /// From what a cache or a remote has; the text says what is wrong with it.
    pub(crate) fn parse(json: &[u8]) -> Result<Self, String> {
        let raw: Vec<RawEntry> = serde_json::from_slice(json).map_err(|error| error.to_string())?;
        let entry = |raw: RawEntry| {
            let md5 = Md5::from_hex(&raw.md5).ok_or_else(|| format!("`{}` is no md5", raw.md5))?;
            let plain = Path::new(&raw.relpath).components().all(|part| matches!(part, Component::Normal(_)));
            if raw.relpath.is_empty() || !plain {
                return Err(format!("`{}` is no path inside of a directory", raw.relpath));
            }
            Ok(Entry { path: raw.relpath, md5 })
        };
        Ok(Self(raw.into_iter().map(entry).collect::<Result<_, String>>()?))
    }

    /// Of the directory as it is on disk, `.git`, `.hg` and `.dvc` left out as DVC does; `.dvcignore` is not known here.
    /// `None`, without a look into the files, if they have not `size` bytes together.
    pub(crate) fn of_directory(dir: &Path, generation: Generation, size: Option<u64>) -> io::Result<Option<Self>> {
        let mut files = Vec::new();
        walk(dir, "", &mut files)?;
        if size.is_some_and(|size| size != files.iter().map(|(_, bytes)| bytes).sum::<u64>()) {
            return Ok(None);
        }
        // Python orders strings by code point, and UTF-8 orders them alike.
        files.sort();
        let entry = |(path, _)| Ok(Entry { md5: generation.hash_file(&dir.join(&path))?, path });
        Ok(Some(Self(files.into_iter().map(entry).collect::<io::Result<_>>()?)))
    }

    pub(crate) fn entries(&self) -> &[Entry] {
        &self.0
    }

    /// The text that DVC keeps in its cache.
    pub(crate) fn to_json(&self) -> String {
        let entries: Vec<String> = self
            .0
            .iter()
            .map(|entry| format!(r#"{{"md5": "{}", "relpath": {}}}"#, entry.md5, python_string(&entry.path)))
            .collect();
        format!("[{}]", entries.join(", "))
    }

    /// The directory's MD5, without `.dir`.
    pub(crate) fn md5(&self) -> Md5 {
        Md5::of(self.to_json().as_bytes())
    }
}

fn walk(dir: &Path, prefix: &str, files: &mut Vec<(String, u64)>) -> io::Result<()> {
    for item in std::fs::read_dir(dir)? {
        let path = item?.path();
        let name = path.file_name().and_then(|name| name.to_str()).ok_or(io::ErrorKind::InvalidFilename)?;
        if matches!(name, ".git" | ".hg" | ".dvc") {
            continue;
        }
        let relative = if prefix.is_empty() { name.to_owned() } else { format!("{prefix}/{name}") };
        let metadata = std::fs::metadata(&path)?;
        if metadata.is_dir() {
            walk(&path, &relative, files)?;
        } else {
            files.push((relative, metadata.len()));
        }
    }
    Ok(())
}

/// As Python writes it: ASCII, with the rest as escaped UTF-16.
fn python_string(text: &str) -> String {
    let mut json = String::with_capacity(text.len() + 2);
    json.push('"');
    for character in text.chars() {
        match character {
            '"' => json.push_str("\\\""),
            '\\' => json.push_str("\\\\"),
            '\n' => json.push_str("\\n"),
            '\r' => json.push_str("\\r"),
            '\t' => json.push_str("\\t"),
            '\u{8}' => json.push_str("\\b"),
            '\u{c}' => json.push_str("\\f"),
            ' '..='\u{7f}' => json.push(character),
            _ => {
                for unit in character.encode_utf16(&mut [0; 2]) {
                    write!(json, "\\u{unit:04x}").expect("a string takes everything");
                }
            }
        }
    }
    json.push('"');
    json
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_text_is_pythons() {
        // Written down from `json.dumps` of Python 3.11.
        assert_eq!(
            python_string("a\"b\\\n\r\t\u{8}\u{c}\u{1}\u{7f} ü€😀"),
            r#""a\"b\\\n\r\t\b\f\u0001"#.to_owned() + "\u{7f}" + r#" \u00fc\u20ac\ud83d\ude00""#
        );
        assert_eq!(Listing::default().to_json(), "[]");
        assert_eq!(Listing::default().md5().to_string(), "d751713988987e9331980363e24189ce");
    }

    #[test]
    fn a_directory_has_the_md5_that_dvc_gives_it() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join("sub")).unwrap();
        std::fs::write(dir.path().join("sub/ü 1"), "1\n").unwrap();
        std::fs::write(dir.path().join("\"q\""), "2\n").unwrap();
        let listing = Listing::of_directory(dir.path(), Generation::Three, Some(4)).unwrap().unwrap();
        assert_eq!(listing.md5().to_string(), "0c7c38bf95425bd6b65bc9f00455ca99");
        assert_eq!(Listing::parse(listing.to_json().as_bytes()).unwrap(), listing);
        assert_eq!(Listing::of_directory(dir.path(), Generation::Three, Some(5)).unwrap(), None);
    }

    #[test]
    fn a_listing_that_leads_out_of_its_directory_is_refused() {
        for path in ["../x", "/etc/passwd", "", "a/../../x", "./a"] {
            let json = format!(r#"[{{"md5": "0c7c38bf95425bd6b65bc9f00455ca99", "relpath": "{path}"}}]"#);
            assert!(Listing::parse(json.as_bytes()).unwrap_err().contains("no path inside"), "{path}");
        }
        assert!(Listing::parse(br#"[{"md5": "0c", "relpath": "x"}]"#).unwrap_err().contains("`0c` is no md5"));
        assert!(Listing::parse(b"{}").is_err());
    }
}
