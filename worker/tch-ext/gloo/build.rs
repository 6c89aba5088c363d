//! Compiles the Gloo part of the shim, as `lockstep-tch-ext` compiles the rest, and sets the rpath with which the tests find libtorch.

use std::env;
use std::path::PathBuf;

fn main() {
    println!("cargo::rerun-if-changed=cpp");
    println!("cargo::rerun-if-changed=../cpp/c10d/group.h");
    println!("cargo::rerun-if-changed=../cpp/shim.h");
    println!("cargo::rerun-if-env-changed=DEP_LOCKSTEP_TCH_EXT_LIB");
    let lib = env::var_os("DEP_LOCKSTEP_TCH_EXT_LIB")
        .map(PathBuf::from)
        .expect("`lockstep-tch-ext` sets the path of libtorch");
    let includes = lib.with_file_name("include");
    let mut build = cc::Build::new();
    build
        .cpp(true)
        .std("c++20")
        .opt_level(2)
        .flag_if_supported("-Wno-unused-parameter")
        .define("USE_C10D_GLOO", None)
        // As libtorch was built: without it, its headers give some classes another layout.
        .define("NDEBUG", None)
        .include("../cpp")
        // The wheel has gloo's code but not its headers: these declare the few names that c10d's header needs.
        .include("cpp/gloo-declarations");
    // As system directories, so that the compiler reports no warnings in libtorch's headers.
    for folder in [includes.join("torch/csrc/api/include"), includes] {
        build.flag("-isystem").flag(folder.to_string_lossy().as_ref());
    }
    build.file("cpp/gloo.cpp").compile("lockstep_gloo");
    println!("cargo::rustc-link-arg=-Wl,-rpath,{}", lib.display());
}
