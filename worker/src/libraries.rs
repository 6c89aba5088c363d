//! Libraries that are neither the system's nor libtorch's: one that was loaded beside them may compute in their place, or
//! change how the processor rounds.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use lockstep_common::{Digest, Domain};

/// Where a system keeps its libraries.
const SYSTEM: [&str; 6] = ["/lib/", "/lib64/", "/usr/lib/", "/usr/lib64/", "/usr/libexec/", "/nix/store/"];

/// The digest of each such file that this process has mapped as code, as `library.<path>`.
pub(crate) fn mapped() -> BTreeMap<String, String> {
    loaded().into_iter().map(|path| (format!("library.{path}"), digest(Path::new(&path)))).collect()
}

/// What is [`foreign`] in this process.
fn loaded() -> Vec<String> {
    let maps = fs::read_to_string("/proc/self/maps").unwrap_or_default();
    let own = fs::read_link("/proc/self/exe").unwrap_or_default();
    foreign(&maps, &own.to_string_lossy()).into_iter().map(str::to_owned).collect()
}

/// The digest of each library that `LD_PRELOAD` or `LD_AUDIT` names by a path, as `library.<path>`: a file of the same name may be
/// another one.
pub(crate) fn preloaded() -> BTreeMap<String, String> {
    let values = ["LD_PRELOAD", "LD_AUDIT"].map(|name| std::env::var(name).unwrap_or_default());
    let paths = values.iter().flat_map(|value| named(value));
    paths.map(|path| (format!("library.{path}"), digest(Path::new(path)))).collect()
}

/// The digest of each library that stands in the place of one of the system's or libtorch's, as `library.<name>`: the loader looks
/// into the folders of `LD_LIBRARY_PATH` first.
pub(crate) fn shadowing() -> BTreeMap<String, String> {
    let list = std::env::var("LD_LIBRARY_PATH").unwrap_or_default();
    let folders: Vec<_> = list.split([':', ';']).filter_map(|folder| fs::canonicalize(folder).ok()).collect();
    let paths = loaded().into_iter().map(PathBuf::from);
    let found = paths.filter(|path| folders.iter().any(|folder| path.starts_with(folder)));
    let name = |path: &Path| path.file_name().unwrap_or_default().display().to_string();
    found.map(|path| (format!("library.{}", name(&path)), digest(&path))).collect()
}

/// The paths of a list as the loader takes it.
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

/// Files with code in `maps`, in order, without the program `own`, the system's and those that came with libtorch.
fn foreign<'a>(maps: &'a str, own: &str) -> BTreeSet<&'a str> {
    let code = maps.lines().filter_map(|line| {
        let (access, rest) = line.split_once(' ')?.1.split_once(' ')?;
        // Offset, device, inode, and a path that may hold spaces.
        let path = rest.splitn(4, ' ').nth(3)?.trim_start();
        (access.contains('x') && path.starts_with('/')).then_some(path)
    });
    let code: BTreeSet<&str> = code.collect();
    let torch = code.iter().find_map(|path| path.strip_suffix("libtorch_cpu.so")).unwrap_or("/");
    // Beside the folder `torch` of a Python environment lies `nvidia`, with CUDA's libraries.
    let beside = torch.strip_suffix("torch/lib/").map(|packages| format!("{packages}nvidia/"));
    let known = |path: &str| {
        path == own
            || path.starts_with(lockstep_tch_ext::CUDA_IMAGE)
            || SYSTEM.iter().any(|prefix| path.starts_with(prefix))
            || torch.len() > 1 && path.starts_with(torch)
            || beside.as_ref().is_some_and(|beside| path.starts_with(beside.as_str()))
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
        assert_eq!(foreign(maps, "/opt/lockstep/worker-rank"), BTreeSet::from(["/home/some one/libfast.so"]));
        assert_eq!(foreign("", ""), BTreeSet::new());
        let listed: Vec<&str> = named("/opt/a.so:./b.so libc.so.6").collect();
        assert_eq!(listed, ["/opt/a.so", "./b.so"]);
    }
}
