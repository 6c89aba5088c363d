//! Gives the `worker` binary and the tests the rpath by which they find libtorch, and tells users' programs of it
//! (`DEP_LOCKSTEP_WORKER_LIB` in their build scripts).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_LOCKSTEP_TCH_EXT_LIB");
    // Set by `lockstep-tch-ext`, which names itself in `links`.
    if let Some(lib) = std::env::var_os("DEP_LOCKSTEP_TCH_EXT_LIB") {
        let lib = std::path::Path::new(&lib).display();
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo::metadata=LIB={lib}");
    }
}
