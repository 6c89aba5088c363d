//! The numerics fingerprint: everything that is known to change bits shows in the map of a process, with its name.
//!
//! `tests/tests/levels.rs` tests how the coordinator handles different maps.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use crate::lab::{Lab, idx, table};
use lockstep_common::numerics::VARIABLES;
use lockstep_support::{in_mount_namespace, printed};

const JOB: &str = r#"
    name = "numerics"
    steps = 2
    ranks = 2
    batch = { size = 8 }
    optimizer = { kind = "sgd", lr = 0.1, momentum = 0.9 }
    model = { kind = "mlp", hidden = [8], outputs = 3, dropout = 0.2 }
    data = { kind = "csv", path = "table.csv", target = "class" }
"#;

/// Environment variables with values that no job sets: threads, code paths, precision.
const VARIANTS: &[(&str, &str)] = &[
    ("ATEN_CPU_CAPABILITY", "avx2"),
    ("ATEN_CPU_CAPABILITY", "default"),
    ("DNNL_MAX_CPU_ISA", "SSE41"),
    ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA"),
    ("MKL_CBWR", "AVX2"),
    ("MKL_CBWR", "COMPATIBLE"),
    ("MKL_DYNAMIC", "TRUE"),
    ("MKL_ENABLE_INSTRUCTIONS", "AVX2"),
    ("MKL_NUM_THREADS", "2"),
    ("OMP_DYNAMIC", "TRUE"),
    ("OMP_NUM_THREADS", "2"),
    ("ONEDNN_DEFAULT_FPMATH_MODE", "BF16"),
    ("ONEDNN_MAX_CPU_ISA", "AVX2"),
    ("ONEDNN_MAX_CPU_ISA", "SSE41"),
];

type Map = BTreeMap<String, String>;

fn lab(sets: &[&str]) -> Lab {
    Lab::new(JOB, sets, &[("table.csv", table().into_bytes())]).plain()
}

/// The keys with different values.
fn differing(a: &Map, b: &Map) -> BTreeSet<String> {
    a.keys().chain(b.keys()).filter(|key| a.get(*key) != b.get(*key)).cloned().collect()
}

#[test]
fn every_variant_shows_under_its_name_and_nothing_else_does() {
    let mut lab = lab(&[]);
    for (index, (name, value)) in VARIANTS.iter().enumerate() {
        lab = lab.with_variable(index as u32 + 1, name, value);
    }
    let count = VARIANTS.len() as u32;
    // The last process has no further variable, as the first one.
    let maps = lab.fingerprints(count + 2);
    let plain = &maps[0];
    assert_eq!(*plain, maps[count as usize + 1], "processes that start alike have equal maps");
    for ((name, value), map) in VARIANTS.iter().zip(&maps[1..]) {
        let (key, differing) = (format!("env.{name}"), differing(plain, map));
        assert_eq!(map[&key], *value, "{name}={value}");
        assert!(differing.contains(&key), "{name}={value}: {differing:?}");
        // The descriptions of libraries may differ, too.
        let said = ["cpu.capability", "torch.config", "cpu.mkl", "cpu.onednn", key.as_str()];
        assert!(differing.iter().all(|key| said.contains(&key.as_str())), "{name}={value}: {differing:?}");
    }
    let default = VARIANTS.iter().position(|(_, value)| *value == "default").map(|index| &maps[index + 1]);
    let capability = default.map(|map| map["cpu.capability"].as_str());
    assert!(matches!(capability, Some("DEFAULT" | "NO AVX")), "libtorch took it: {capability:?}");
}

#[test]
fn the_number_of_threads_and_the_level_show() {
    let plain = lab(&[]).fingerprints(1).remove(0);
    let of = |set: &str| differing(&plain, &lab(&[set]).fingerprints(1)[0]);
    let threads = of("numerics.threads=2");
    let expected = ["env.MKL_NUM_THREADS", "env.OMP_NUM_THREADS", "threads.intra_op"];
    assert!(expected.iter().all(|key| threads.contains(*key)), "{threads:?}");
    let portable = of("numerics.level=portable");
    assert!(["level", "env.MKL_CBWR", "cpu.model"].iter().all(|key| portable.contains(*key)), "{portable:?}");
    assert!(!portable.contains("cpu.approximations"), "no operator of a built-in model begins with them: {portable:?}");
    assert_eq!(of("numerics.reduction=native"), BTreeSet::from(["reduction".to_owned()]));
    let model = of("model.hidden=[9]");
    assert_eq!(model, BTreeSet::from(["layout".to_owned()]), "what is reduced");
    // Name and seed are not part of the numerics.
    assert_eq!(of("seed=5"), BTreeSet::new());
}

/// Libraries read the processor directly, even if the system hides it.
#[test]
fn a_processor_that_the_system_hides_says_what_it_is() {
    if !in_mount_namespace("numerics::a_processor_that_the_system_hides_says_what_it_is") {
        return;
    }
    assert!(!lab(&[]).fingerprints(1)[0].contains_key("cpu.id"), "of a processor that the system shows");
    printed(Command::new("mount").args(["--bind", "/dev/null", "/proc/cpuinfo"]));
    let map = lab(&[]).fingerprints(1).remove(0);
    assert_eq!(map["cpu.features"], "");
    assert!(map["cpu.id"].starts_with("signature "), "{map:?}");
}

#[test]
fn every_variable_of_the_list_is_in_the_map_and_what_changes_nothing_is_not() {
    let lab = lab(&[])
        .with_variable(1, "LANG", "tr_TR.UTF-8")
        .with_variable(1, "TZ", "Asia/Kathmandu")
        .with_variable(1, "PYTHONHASHSEED", "7")
        .with_variable(1, "MALLOC_ARENA_MAX", "1");
    let maps = lab.fingerprints(2);
    assert_eq!(maps[0], maps[1]);
    for name in VARIABLES {
        assert!(maps[0].contains_key(&format!("env.{name}")), "{name}");
    }
    let both = lab.run(2, None);
    assert_eq!(both.codes, [0, 0], "{}", both.stderr);
    assert_eq!(both.state(), Lab { variables: BTreeMap::new(), ..lab }.run(1, None).state());
}

/// The reverse: a variant with other bits has another map. It depends on the processor which variants have other bits.
#[test]
fn whatever_gives_other_bits_has_another_fingerprint() {
    let job = r#"
        name = "convolutions"
        steps = 2
        batch = { size = 8 }
        optimizer = { kind = "sgd", lr = 0.05, momentum = 0.9 }
        model = { kind = "resnet", blocks = 1, width = 8, outputs = 4 }
        data = { kind = "idx", images = "images", labels = "labels" }
    "#;
    let images = idx(&[16, 8, 8], |at| ((at * 2_654_435_761) >> 7) as u8);
    let files = [("images", images), ("labels", idx(&[16], |at| (at % 4) as u8))];
    let of = |variant: Option<(&str, &str)>| {
        let mut lab = Lab::new(job, &[], &files).plain();
        if let Some((name, value)) = variant {
            lab = lab.with_variable(0, name, value);
        }
        let mut map = Map::new();
        let state = lab.run_and(1, None, |processes| map = processes.numerics.clone()).state();
        (state, map)
    };
    let (state, map) = of(None);
    assert!(of(None) == (state, map.clone()), "the same again");
    let other = [
        ("ATEN_CPU_CAPABILITY", "default"),
        ("DNNL_MAX_CPU_ISA", "SSE41"),
        ("GLIBC_TUNABLES", "glibc.cpu.hwcaps=-AVX2,-FMA"),
        ("MKL_CBWR", "COMPATIBLE"),
        ("MKL_DISABLE_FAST_MM", "1"),
        ("MKL_VML_DEBUG_CPU_TYPE", "9"),
        ("ONEDNN_MAX_CPU_ISA", "SSE41"),
        ("TORCH_LINEAR_FLATTEN_3D", "1"),
    ];
    let other_bits = other.iter().filter(|variant| {
        let (its_state, its_map) = of(Some(**variant));
        assert!(its_map != map, "{variant:?} may change bits, and nothing shows it");
        its_state != state
    });
    assert!(other_bits.count() > 0, "not one of them changes bits here, so this shows nothing");
}
