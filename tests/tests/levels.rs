//! Levels of determinism across workers. At `exact`, processes that would compute other bits are refused by name before the first
//! step. At `portable`, the pinned switches make them equal.

#![expect(clippy::unwrap_used, reason = "a failing helper fails the test")]

use lockstep_tests::{Cluster, Job, digits};

/// Variables of code paths and precision that a worker may have, and that no job sets at `exact`.
const VARIANTS: &[(&str, &str)] = &[
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("ATEN_CPU_CAPABILITY", "default"),
    ("DNNL_MAX_CPU_ISA", "SSE41"),
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA"),
    ("MKL_CBWR", "AVX2"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
    ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
];

/// Fingerprint keys that libraries report themselves.
const SAID: [&str; 3] = ["cpu.capability", "cpu.mkl", "cpu.onednn"];

const TWO: [&str; 4] = ["--set", "world={processes=2, min_processes=2}", "--set", "steps=20"];

fn submit(cluster: &Cluster, job: &Job, level: &str) -> String {
    let level = format!("numerics.level={level}");
    cluster.submit(job.argument(), &[&TWO[..], &["--set", &level]].concat())
}

/// Waits for a run that must fail before its first step, and returns its reason.
fn refused(cluster: &Cluster, run: &str, what: &str) -> String {
    let view = cluster.ended(run);
    assert_eq!(view["status"], "failed", "{what}: {view:#}");
    assert!(cluster.record(run).is_empty(), "{what}: a step was made");
    assert!(cluster.checkpoints(run).is_empty(), "{what}: {view:#}");
    view["reason"].as_str().unwrap().to_owned()
}

#[test]
fn two_unlike_workers_are_refused_at_exact_and_compute_the_same_bits_at_portable() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_plain(dir.path(), 1);
    cluster.add_worker_with(&[("ATEN_CPU_CAPABILITY", "default"), ("ONEDNN_MAX_CPU_ISA", "AVX2")]);
    let job = digits(dir.path());

    let reason = refused(&cluster, &submit(&cluster, &job, "exact"), "exact");
    for part in ["the processes would compute different bits", "`cpu.capability`", "on `node-0`", "on `node-1`"] {
        assert!(reason.contains(part), "{part}: {reason}");
    }
    assert!(reason.contains("`DEFAULT`") || reason.contains("`NO AVX`"), "{reason}");

    let unlike = submit(&cluster, &job, "portable");
    let (state, record) = (cluster.finished(&unlike), cluster.record(&unlike));
    assert_eq!(record.len(), 20);
    assert_eq!(cluster.show(&unlike)["processes"], 2);
    cluster.restart_worker_with(1, &[]);
    let alike = submit(&cluster, &job, "portable");
    assert_eq!((cluster.finished(&alike), cluster.record(&alike)), (state, record));
}

#[test]
fn each_variant_is_refused_by_name_at_the_start_and_at_a_resume() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_plain(dir.path(), 2);
    let job = digits(dir.path());
    let plain = submit(&cluster, &job, "exact");
    cluster.finished(&plain);
    let (step, checkpoint) = cluster.checkpoints(&plain)[0].clone();
    assert_eq!(step, 15);
    for (name, value) in VARIANTS {
        cluster.restart_worker_with(1, &[(name, value)]);
        let what = format!("{name}={value}");
        let named = |reason: &str, beginning: &str| {
            assert!(reason.starts_with(beginning), "{what}: {reason}");
            // A library's own report may differ as well, depending on the processor, and its key comes first.
            let own = SAID.iter().any(|key| reason.contains(&format!("`{key}` is ")));
            let listed = reason.contains(&format!("`env.{name}` is "))
                && reason.contains(&format!("`{value}`"))
                && reason.contains("`(not set)`");
            assert!(own || listed, "{what}: {reason}");
        };
        named(
            &refused(&cluster, &submit(&cluster, &job, "exact"), &what),
            "the processes would compute different bits: ",
        );
        // The resumed run also has two processes: one equals those of the checkpoint, the other differs.
        let resumed = cluster.resume(&checkpoint);
        let reason = refused(&cluster, &resumed, &what);
        let by_checkpoint = reason.starts_with("the run would not continue with the same bits: ");
        named(&reason, if by_checkpoint { "" } else { "the processes would compute different bits: " });
    }
}

#[test]
fn a_checkpoint_is_refused_by_a_worker_that_is_alone_and_unlike_those_that_made_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_plain(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=40"]);
    let state = cluster.finished(&run);
    let (_, checkpoint) = cluster.checkpoints(&run)[0].clone();
    cluster.restart_worker_with(0, &[("ONEDNN_MAX_CPU_ISA", "AVX2")]);
    let reason = refused(&cluster, &cluster.resume(&checkpoint), "resume");
    let made = format!("`env.ONEDNN_MAX_CPU_ISA` is `(not set)` for checkpoint `{}`", &checkpoint[..12]);
    assert!(reason.starts_with("the run would not continue with the same bits: "), "{reason}");
    assert!(reason.contains(&made) && reason.contains("and `AVX2` for process 0 on `node-0`"), "{reason}");
    cluster.restart_worker_with(0, &[]);
    assert_eq!(cluster.finished(&cluster.resume(&checkpoint)), state);
}

/// Only the job decides the number of threads, not the worker's environment.
#[test]
fn what_the_job_sets_no_worker_changes() {
    let dir = tempfile::tempdir().unwrap();
    let mut cluster = Cluster::start_plain(dir.path(), 1);
    let job = digits(dir.path());
    let run = cluster.submit(job.argument(), &["--set", "steps=20"]);
    let (state, record) = (cluster.finished(&run), cluster.record(&run));
    cluster.add_worker_with(&[
        ("OMP_NUM_THREADS", "2"),
        ("MKL_NUM_THREADS", "2"),
        ("OMP_DYNAMIC", "TRUE"),
        ("MKL_DYNAMIC", "TRUE"),
        ("OMP_MAX_ACTIVE_LEVELS", "0"),
        ("OMP_THREAD_LIMIT", "1"),
    ]);
    let both = cluster.submit(job.argument(), &TWO);
    assert_eq!((cluster.finished(&both), cluster.record(&both)), (state, record));
}
