//! Sets the rpath by which the tests find libtorch, to the directory that `lockstep-tch-ext` names.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_LOCKSTEP_TCH_EXT_LIB");
    if let Some(lib) = std::env::var_os("DEP_LOCKSTEP_TCH_EXT_LIB") {
        println!("cargo::rustc-link-arg=-Wl,-rpath,{}", std::path::Path::new(&lib).display());
    }
}
