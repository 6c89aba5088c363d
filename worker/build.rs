//! Sets the rpath with which `worker-rank` and the tests find libtorch, and passes the path of libtorch on to users' programs
//! (`DEP_LOCKSTEP_WORKER_LIB` in their build scripts).

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rerun-if-env-changed=DEP_LOCKSTEP_TCH_EXT_LIB");
    // Set by the build script of `lockstep-tch-ext`, which has `links = "lockstep_tch_ext"`.
    if let Some(lib) = std::env::var_os("DEP_LOCKSTEP_TCH_EXT_LIB") {
        let lib = std::path::Path::new(&lib).display();
        println!("cargo::rustc-link-arg=-Wl,-rpath,{lib}");
        println!("cargo::metadata=LIB={lib}");
    }
}
