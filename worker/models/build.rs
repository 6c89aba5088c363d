//! Sets the rpath with which the tests find libtorch. The build script of `lockstep-tch-ext` provides the path.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_LOCKSTEP_TCH_EXT_LIB");
    if let Some(lib) = std::env::var_os("DEP_LOCKSTEP_TCH_EXT_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", std::path::Path::new(&lib).display());
    }
}
