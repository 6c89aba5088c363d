//! DVC's configuration: where the cache is, and where a remote is. It is read in the order in which DVC reads it, later
//! files over earlier ones: system, user, `.dvc/config`, `.dvc/config.local`.

use std::collections::BTreeMap;
use std::env;
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use crate::error::DvcError;
use crate::ini;

/// Keys whose values are paths, relative to the directory of the file that they stand in.
const PATHS: [(&str, &str); 3] = [("cache", "dir"), ("remote", "url"), ("remote", "credentialpath")];

/// What is configured for one repository.
#[derive(Debug)]
pub(crate) struct Config {
    root: PathBuf,
    sections: BTreeMap<String, BTreeMap<String, String>>,
}

/// A remote as configured.
#[derive(Clone, Debug)]
pub(crate) struct RemoteConfig {
    pub(crate) name: String,
    pub(crate) url: String,
    keys: BTreeMap<String, String>,
}

impl Config {
    /// Of the repository at `root`, the directory that holds `.dvc`.
    pub(crate) fn read(root: &Path) -> Result<Self, DvcError> {
        let mut config = Self { root: root.to_owned(), sections: BTreeMap::new() };
        let user = env::var_os("DVC_GLOBAL_CONFIG_DIR")
            .map(PathBuf::from)
            .or_else(|| Some(PathBuf::from(env::var_os("XDG_CONFIG_HOME")?).join("dvc")))
            .or_else(|| Some(env::home_dir()?.join(".config/dvc")));
        let system = env::var_os("DVC_SYSTEM_CONFIG_DIR").map_or_else(|| "/etc/xdg/dvc".into(), PathBuf::from);
        let local = root.join(".dvc");
        let files = [Some(system.join("config")), user.map(|dir| dir.join("config"))]
            .into_iter()
            .flatten()
            .chain([local.join("config"), local.join("config.local")]);
        for file in files {
            match fs::read_to_string(&file) {
                Ok(text) => config.merge(&file, &text)?,
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {}
                Err(source) => return Err(DvcError::Io { action: "read", path: file, source }),
            }
        }
        Ok(config)
    }

    /// The cache's directory.
    pub(crate) fn cache_dir(&self) -> PathBuf {
        self.get("cache", "dir").map_or_else(|| self.root.join(".dvc/cache"), PathBuf::from)
    }

    /// Whether the cache is for a group of people, whose directories all may write.
    pub(crate) fn cache_is_shared(&self) -> bool {
        self.get("cache", "shared").is_some_and(|value| value.eq_ignore_ascii_case("group"))
    }

    /// The remote `name`, or else the default one, or else the only one.
    pub(crate) fn remote(&self, name: Option<&str>) -> Result<RemoteConfig, DvcError> {
        let names: Vec<&str> = self.sections.keys().filter_map(|section| remote_name(section)).collect();
        let name = match (name.or_else(|| self.get("core", "remote")), names.as_slice()) {
            (Some(name), _) => name.to_lowercase(),
            (None, [name]) => (*name).to_owned(),
            (None, _) => {
                let names = names.into_iter().map(str::to_owned).collect();
                return Err(DvcError::NoRemote { root: self.root.clone(), names });
            }
        };
        self.resolve(&name, 0)
    }

    /// A remote by its name; one at `remote://other/path` has the keys of `other` under its own.
    fn resolve(&self, name: &str, depth: usize) -> Result<RemoteConfig, DvcError> {
        let unknown = || DvcError::UnknownRemote { root: self.root.clone(), name: name.to_owned() };
        let keys = self.sections.get(&format!("remote \"{name}\"")).ok_or_else(unknown)?;
        let url = keys.get("url").ok_or_else(unknown)?;
        let Some(referred) = url.strip_prefix("remote://") else {
            return Ok(RemoteConfig { name: name.to_owned(), url: url.clone(), keys: keys.clone() });
        };
        if depth == self.sections.len() {
            return Err(unknown());
        }
        let (base, path) = referred.split_once('/').unwrap_or((referred, ""));
        let base = self.resolve(&base.to_lowercase(), depth + 1)?;
        let url = format!("{}/{path}", base.url.trim_end_matches('/'));
        let mut merged = base.keys;
        merged.extend(keys.clone());
        Ok(RemoteConfig { name: name.to_owned(), url, keys: merged })
    }

    fn get(&self, section: &str, key: &str) -> Option<&str> {
        self.sections.get(section)?.get(key).map(String::as_str)
    }

    fn merge(&mut self, file: &Path, text: &str) -> Result<(), DvcError> {
        let dir = file.parent().unwrap_or(Path::new(""));
        let sections =
            ini::parse(text).map_err(|(line, reason)| DvcError::BadConfig { path: file.to_owned(), line, reason })?;
        for (section, keys) in sections {
            // Spaces around the name are DVC's to allow.
            let section = remote_name(&section).map_or(section.clone(), |name| format!("remote \"{name}\""));
            let kind = if section.starts_with("remote \"") { "remote" } else { section.as_str() };
            let is_path = |key: &str| PATHS.contains(&(kind, key));
            let resolved: Vec<_> = keys
                .into_iter()
                .map(|(key, value)| if is_path(&key) { (key, resolve_path(dir, &value)) } else { (key, value) })
                .collect();
            self.sections.entry(section).or_default().extend(resolved);
        }
        Ok(())
    }
}

impl RemoteConfig {
    /// One of its keys.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        self.keys.get(key).map(String::as_str)
    }

    /// Whether one of its keys is switched on.
    pub(crate) fn is_on(&self, key: &str) -> bool {
        self.get(key).is_some_and(|value| value.eq_ignore_ascii_case("true"))
    }
}

/// `store` of the section `remote "store"`.
fn remote_name(section: &str) -> Option<&str> {
    section.trim().strip_prefix("remote")?.trim_start().strip_prefix('"')?.strip_suffix('"')
}

/// A URL as it is, a path from `dir`.
fn resolve_path(dir: &Path, value: &str) -> String {
    if value.contains("://") {
        return value.to_owned();
    }
    let path = match (value.strip_prefix("~/"), env::home_dir()) {
        (Some(inside), Some(home)) => home.join(inside),
        _ => dir.join(value),
    };
    normalize(&path).to_string_lossy().into_owned()
}

/// Without `.` and `..`, by the names alone: what a path leads to is not looked at.
pub(crate) fn normalize(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(text: &str) -> Config {
        let mut config = Config { root: "/r".into(), sections: BTreeMap::new() };
        config.merge(Path::new("/r/.dvc/config"), text).unwrap();
        config
    }

    #[test]
    fn later_files_win_and_paths_are_relative_to_their_file() {
        let mut config =
            config("[core]\nremote = Store\n[cache]\ndir = ../../cch\n['remote \"store\"']\nurl = ../../away\n");
        assert_eq!(config.cache_dir(), Path::new("/cch"));
        assert_eq!(config.remote(None).unwrap().url, "/away");
        config.merge(Path::new("/r/.dvc/config.local"), "['remote \"store\"']\nurl = s3://b/p\nregion = x\n").unwrap();
        let remote = config.remote(None).unwrap();
        assert_eq!((remote.url.as_str(), remote.get("region"), remote.name.as_str()), ("s3://b/p", Some("x"), "store"));
    }

    #[test]
    fn the_only_remote_needs_no_default_and_two_do() {
        let one = config("['remote \"a\"']\nurl = /a\n");
        assert_eq!(one.remote(None).unwrap().url, "/a");
        assert_eq!(one.cache_dir(), Path::new("/r/.dvc/cache"));
        let two = config("['remote \"a\"']\nurl = /a\n['remote \"b\"']\nurl = /b\n");
        assert_eq!(two.remote(Some("b")).unwrap().url, "/b");
        let error = two.remote(None).unwrap_err().to_string();
        assert!(error.contains("`a`, `b`") && error.contains("dvc remote default"), "{error}");
        assert!(two.remote(Some("c")).unwrap_err().to_string().contains("`c`"));
    }

    #[test]
    fn a_remote_may_stand_on_another() {
        let config = config(
            "['remote \"base\"']\nurl = s3://b/x\nregion = r\nprofile = p\n['remote \"sub\"']\nurl = remote://base/y\nprofile = q\n['remote \"loop\"']\nurl = remote://loop/z\n",
        );
        let sub = config.remote(Some("sub")).unwrap();
        assert_eq!((sub.url.as_str(), sub.get("region"), sub.get("profile")), ("s3://b/x/y", Some("r"), Some("q")));
        assert!(config.remote(Some("loop")).is_err());
    }
}
