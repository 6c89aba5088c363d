//! The golden bits of operators, which `worker --operators` computes on this machine.

use std::process::Command;

/// Environment variables that would change the bits if they were inherited.
const DISTURBING: [(&str, &str); 3] = [("ATEN_CPU_CAPABILITY", "avx2"), ("MKL_CBWR", "AVX2"), ("OMP_NUM_THREADS", "2")];

#[test]
fn every_operator_computes_the_golden_bits_at_portable() {
    let output = Command::new(env!("CARGO_BIN_EXE_worker")).arg("--operators").envs(DISTURBING).output().unwrap();
    let (lines, said) = (String::from_utf8(output.stdout).unwrap(), String::from_utf8(output.stderr).unwrap());
    assert!(lines.lines().count() > 35, "{lines}\n{said}");
    let (rough, golden): (Vec<&str>, Vec<&str>) = lines.lines().partition(|line| line.ends_with(" by processor"));
    for line in &golden {
        assert!(line.ends_with(" same"), "{line}\n{said}");
    }
    assert_eq!(output.status.code(), Some(0), "{said}");
    let names: std::collections::BTreeSet<&str> = lines.lines().filter_map(|line| line.split(' ').next()).collect();
    assert_eq!(names.len(), lines.lines().count(), "each name stands once");
    let list = include_str!("../../../golden/operators-portable.txt");
    let listed = list.lines().filter(|line| !line.starts_with('#')).count();
    assert_eq!(
        (listed, golden.len(), rough.len()),
        (39, 39, 9),
        "every golden operator is computed, and no more are left out"
    );
}
