//! Libraries that belong neither to the system nor to libtorch. Such a library can replace functions of the others, or change how the
//! processor rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_common::{Digest, Domain};

/// The directories of a system's own libraries.
const SYSTEM: [&str; 6] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/libexec/", "/nix/store/"];

/// The digest of each such library that this process has loaded, as `library.<path>`.
pub(crate) fn mapped() -> BTreeMap<String, String> {
    let loaded = loaded().into_iter().filter(|path| !is_of_the_system(path));
    loaded.map(|path| (format!("library.{path}"), digest(Path::new(&path)))).collect()
}

/// The files that this process has mapped as code, without the program itself and the libraries of libtorch.
fn loaded() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    beside(&maps, &own.to_string_lossy()).into_iter().map(str::to_owned).collect()
}

fn is_of_the_system(path: &str) -> bool {
    SYSTEM.iter().any(|prefix| path.starts_with(prefix))
}

/// The digest of each library that `LD_PRELOAD` or `LD_AUDIT` names by a path, as `library.<path>`: files of one name can have different
/// contents.
pub(crate) fn preloaded() -> BTreeMap<String, String> {
    let values = ["LD_PRELOAD", "LD_AUDIT"].map(|name| std::env::var(name).unwrap_or_default());
    let paths = values.iter().flat_map(|value| named(value));
    paths.map(|path| (format!("library.{path}"), digest(Path::new(path)))).collect()
}

/// The digest of each library that the loader finds through `LD_LIBRARY_PATH` instead of the system's or libtorch's, as `library.<name>`.
///
/// For the libraries that the program needs at its start, the loader itself is asked, because it knows all spellings of that list. For
/// libraries that were loaded later, their directories are compared with the list.
pub(crate) fn shadowing() -> BTreeMap<String, String> {
    let list = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    if list.is_empty() {
        return BTreeMap::new();
    }
    let (with, without) = (needed(Some(&list)), needed(None));
    let differing = with.into_iter().filter(|(name, path)| without.get(name) != Some(path)).map(|(_, path)| path);
    let folders = list.split([':', ';']).filter_map(|folder| fs::canonicalize(folder).ok());
    let folders: Vec<PathBuf> = folders.filter(|folder| !is_looked_into_anyway(folder)).collect();
    let paths = loaded().into_iter().map(PathBuf::from);
    let found = paths.filter(|path| folders.iter().any(|folder| is_found_in(folder, path))).chain(differing);
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    found.map(|path| (format!("library.{}", name(&path)), digest(&path))).collect()
}

/// The libraries that this program needs, by name, and the paths at which the loader finds them if `LD_LIBRARY_PATH` is `list`.
fn needed(list: Option<&str>) -> BTreeMap<String, PathBuf> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let loader = maps
        .lines()
        .filter_map(|line| line.split_once('/'))
        .find(|(_, path)| Path::new(path).file_name().is_some_and(|name| name.to_string_lossy().starts_with("ld-")));
    let (Some((_, loader)), Ok(own)) = (loader, fs::read_link("/proc/self/exe")) else { return BTreeMap::new() };
    let mut command = Command::new(format!("/{loader}"));
    command.arg("--list").arg(own).env_remove("LD_LIBRARY_PATH").env_remove("LD_PRELOAD").env_remove("LD_AUDIT");
    let listed = command.envs(list.map(|list| ("LD_LIBRARY_PATH", list))).output();
    listed.map_or_else(|_| BTreeMap::new(), |output| listing(&String::from_utf8_lossy(&output.stdout)))
}

/// Parses the loader's list: lines `name => path (address)`. Other lines (`not found`, or without a name) are skipped.
fn listing(text: &str) -> BTreeMap<String, PathBuf> {
    let of = |line: &str| {
        let (name, path) = line.trim().split_once(" => ")?;
        let (path, _) = path.rsplit_once(" (")?;
        Some((name.to_owned(), fs::canonicalize(path).unwrap_or_else(|_| path.into())))
    };
    text.lines().filter_map(of).collect()
}

/// Whether the loader searches `folder` without `LD_LIBRARY_PATH`, too, so that its libraries replace no others. Subdirectories of such
/// directories, for example for alternatives, are not searched.
fn is_looked_into_anyway(folder: &Path) -> bool {
    let is_root =
        |folder: &Path| ["/lib", "/lib64", "/usr/lib", "/usr/lib64"].iter().any(|root| folder == Path::new(root));
    let is_of_an_architecture = folder.file_name().is_some_and(|name| name.to_string_lossy().ends_with("-linux-gnu"));
    is_root(folder) || is_of_an_architecture && folder.parent().is_some_and(is_root)
}

/// Whether the loader finds `path` in `folder`, or in the subdirectory for this kind of processor.
fn is_found_in(folder: &Path, path: &Path) -> bool {
    path.parent() == Some(folder) || path.starts_with(folder.join("glibc-hwcaps"))
}

/// The paths in the value of `LD_PRELOAD` or `LD_AUDIT`; names without a slash are skipped.
fn named(list: &str) -> impl Iterator<Item = &str> {
    list.split([' ', ':']).filter(|name| name.contains('/'))
}

fn digest(path: &Path) -> String {
    let mut hasher = Domain::Blob.hasher();
    let read = fs::File::open(path).and_then(|mut file| std::io::copy(&mut file, &mut hasher));
    match read {
        Ok(_) => Digest::of(&hasher).to_hex(),
        Err(error) => format!("cannot be read: {error}"),
    }
}

/// The files with code in `maps` (`/proc/self/maps`), sorted, without the program `own` and the libraries of libtorch.
fn beside<'a>(maps: &'a str, own: &str) -> BTreeSet<&'a str> {
    let code = maps.lines().filter_map(|line| {
        let (access, rest) = line.split_once(' ')?.1.split_once(' ')?;
        // Offset, device, inode, and a path that may contain spaces.
        let path = rest.splitn(4, ' ').nth(3)?.trim_start();
        (access.contains('x') && path.starts_with('/')).then_some(path)
    });
    let code: BTreeSet<&str> = code.collect();
    let torch = code.iter().find_map(|path| path.strip_suffix("libtorch_cpu.so")).unwrap_or("/");
    // In a Python environment the directory `nvidia` beside `torch` has CUDA's libraries.
    let cuda = torch.strip_suffix("torch/lib/").map(|packages| format!("{packages}nvidia/"));
    let known = |path: &str| {
        path == own
            || path.starts_with(lockstep_tch_ext::CUDA_IMAGE)
            || torch.len() > 1 && path.starts_with(torch)
            || cuda.as_ref().is_some_and(|cuda| path.starts_with(cuda.as_str()))
    };
    code.into_iter().filter(|path| !known(path)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_from_elsewhere_is_named_and_the_systems_and_libtorchs_are_not() {
        let maps = "\
55d0-55d1 r-xp 00000000 fe:01 12 /opt/lockstep/worker-rank
7f00-7f01 r-xp 00001000 fe:01 13                  /env/lib/site-packages/torch/lib/libtorch_cpu.so
7f00-7f01 r-xp 00001000 fe:01 13                  /env/lib/site-packages/torch/lib/libgomp-24.so.1
7f00-7f01 r-xp 00001000 00:01 13                  /memfd:lockstep-cuda (deleted)
7f01-7f02 r-xp 00001000 fe:01 14                  /env/lib/site-packages/nvidia/nccl/lib/libnccl.so.2
7f02-7f03 r--p 00001000 fe:01 15                  /home/someone/data.npy
7f03-7f04 r-xp 00001000 fe:01 16                  /home/some one/libfast.so
7f04-7f05 r-xp 00000000 00:00 0                   [vdso]
7f05-7f06 r-xp 00000000 00:00 0
7f06-7f07 r-xp 00001000 fe:01 17                  /usr/lib/x86_64-linux-gnu/libc.so.6
";
        let (found, system) = ("/home/some one/libfast.so", "/usr/lib/x86_64-linux-gnu/libc.so.6");
        assert_eq!(beside(maps, "/opt/lockstep/worker-rank"), BTreeSet::from([found, system]));
        assert_eq!([found, system].map(is_of_the_system), [false, true]);
        let folders =
            ["/usr/lib", "/usr/lib/x86_64-linux-gnu", "/usr/lib/x86_64-linux-gnu/blis", "/usr/lib/init", "/opt/lib"];
        let anyway = folders.map(|folder| is_looked_into_anyway(Path::new(folder)));
        assert_eq!(anyway, [true, true, false, false, false]);
        let in_opt = |path: &str| is_found_in(Path::new("/opt/lib"), Path::new(path));
        assert!(
            in_opt("/opt/lib/a.so") && in_opt("/opt/lib/glibc-hwcaps/x86-64-v3/a.so") && !in_opt("/opt/lib/x/a.so")
        );
        assert_eq!(beside("", ""), BTreeSet::new());
        let listed =
            listing("\tlinux-vdso.so.1 (0x7f)\n\tliba.so => /some one/liba.so (0x7f)\n\tlibb.so => not found\n");
        assert_eq!(listed, BTreeMap::from([("liba.so".to_owned(), "/some one/liba.so".into())]));
        let listed: Vec<&str> = named("/opt/a.so:./b.so libc.so.6").collect();
        assert_eq!(listed, ["/opt/a.so", "./b.so"]);
    }
}
