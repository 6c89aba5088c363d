//! The processor's floating-point mode, with a preloaded library that changes it, as libraries built with -ffast-math do.

use std::path::{Path, PathBuf};
use std::process::Command;

use lockstep_support::printed;

use crate::lab::{Lab, table};

/// Gradients are clipped to subnormal numbers: a process that flushes them to zero gets another momentum.
const JOB: &str = r#"
    name = "small"
    steps = 4
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9, clip_norm = 1e-38 }
    model = { kind = "mlp", hidden = [8], outputs = 3 }
    data = { kind = "csv", path = "table.csv", target = "class" }
    report = { fingerprints_every = 2 }
"#;

/// With `EVERY_CALL` each call of `clock_gettime` changes the mode of its thread; the training thread makes such a call at every step.
/// Without it, only the mode of the thread that loads the library changes, before `main`.
const LIBRARY: &str = r#"
#define _GNU_SOURCE
#include <dlfcn.h>
#include <time.h>
static void flush(void) {
  unsigned mode = 0x1f80 | 0x8040;
  __asm__ volatile("ldmxcsr %0" : : "m"(mode));
}
#ifdef EVERY_CALL
int clock_gettime(clockid_t clock, struct timespec* time) {
  static int (*own)(clockid_t, struct timespec*);
  if (!own) own = (int (*)(clockid_t, struct timespec*))dlsym(RTLD_NEXT, "clock_gettime");
  flush();
  return own(clock, time);
}
#else
__attribute__((constructor)) static void loaded(void) { flush(); }
#endif
"#;

fn lab(sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("table.csv", table().into_bytes())]).plain()
}

fn library(dir: &Path, flags: &[&str]) -> PathBuf {
    let (source, library) = (dir.join("fast.c"), dir.join("libfast.so"));
    std::fs::write(&source, LIBRARY).unwrap();
    let mut command = Command::new("cc");
    command.args(["-shared", "-fPIC", "-O1", "-w", "-o"]).args([&library, &source]).args(flags).arg("-ldl");
    printed(&mut command);
    library
}

#[test]
fn a_mode_that_was_changed_before_the_start_is_set_back_and_the_library_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &[]);
    let plain = lab(&[]);
    let path = library.to_str().unwrap();
    let preloaded = lab(&[]).with_variable(0, "LD_PRELOAD", path);
    let maps = plain.fingerprints(1).remove(0);
    assert_eq!(maps["float_mode"], "round to nearest, subnormals kept");
    assert_eq!(maps["env.LD_PRELOAD"], "(not set)");
    let maps = preloaded.fingerprints(1).remove(0);
    assert_eq!(
        (maps["float_mode"].as_str(), maps["env.LD_PRELOAD"].as_str()),
        ("round to nearest, subnormals kept", path)
    );
    // The digest shows if another file has the same name.
    assert_eq!(maps[&format!("library.{path}")].len(), 64, "{maps:?}");

    // A library that replaces one of the system's is recorded by its digest, too.
    let shadowing = dir.path().join("first");
    std::fs::create_dir(&shadowing).unwrap();
    let mapped = std::fs::read_to_string("/proc/self/maps").unwrap();
    let maths = mapped.split_whitespace().find(|word| word.ends_with("/libm.so.6")).expect("tests use it");
    std::fs::copy(maths, shadowing.join("libm.so.6")).unwrap();
    let linked = dir.path().join("linked");
    std::fs::create_dir(&linked).unwrap();
    std::os::unix::fs::symlink(shadowing.join("libm.so.6"), linked.join("libm.so.6")).unwrap();
    for folder in [&shadowing, &linked] {
        let shadowed = lab(&[]).with_variable(0, "LD_LIBRARY_PATH", folder.to_str().unwrap());
        let maps = shadowed.fingerprints(1).remove(0);
        assert_eq!(maps["library.libm.so.6"].len(), 64, "{maps:?}");
    }

    let (expected, found) = (plain.run(1, None), preloaded.run(1, None));
    assert_eq!(found.codes, [0], "{}", found.stderr);
    assert_eq!((found.record(), found.state()), (expected.record(), expected.state()));
    let environment = &found.manifests.last().unwrap().environment;
    assert_eq!(environment["LD_PRELOAD"], path);
    assert_eq!(environment[&format!("library.{path}")].len(), 64, "{environment:?}");
    let environment = &expected.manifests.last().unwrap().environment;
    assert!(!environment.keys().any(|key| key.starts_with("library.") || key == "LD_PRELOAD"), "{environment:?}");
}

#[test]
fn a_mode_that_changes_during_training_ends_the_run_with_words() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &["-DEVERY_CALL"]);
    let path = library.to_str().unwrap();
    let outcome = lab(&[]).with_variable(0, "LD_PRELOAD", path).run(1, None);
    assert_ne!(outcome.codes, [0]);
    let reason = &outcome.failures[0];
    let parts = [
        "step 2 was computed in another floating-point mode",
        "subnormal flushed to zero",
        "MXCSR 0x9fc0",
        "-ffast-math",
    ];
    assert!(parts.iter().all(|part| reason.contains(part)), "{reason}");
    // At a level without guarantees the run continues.
    let outcome = lab(&["numerics.level=off"]).with_variable(0, "LD_PRELOAD", path).run(1, None);
    assert_eq!(outcome.codes, [0], "{}", outcome.stderr);
}

/// Shows that the mode changes bits at all; otherwise the first test would prove nothing.
#[test]
fn a_changed_mode_gives_other_bits() {
    let dir = tempfile::tempdir().unwrap();
    let library = library(dir.path(), &["-DEVERY_CALL"]);
    let off = lab(&["numerics.level=off"]);
    let plain = off.run(1, None).state();
    assert_ne!(off.with_variable(0, "LD_PRELOAD", library.to_str().unwrap()).run(1, None).state(), plain);
}
