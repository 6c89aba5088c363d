//! Generates the wire types. `protox` is a protobuf compiler in Rust, so `protoc` is not needed.

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=proto");
    let descriptors = protox::compile(["proto/lockstep.proto"], ["proto"])?;
    // With `Bytes`, programs that only forward a block do not copy it.
    tonic_prost_build::configure()
        .bytes(".lockstep.v1.EncodedBlock")
        .bytes(".lockstep.v1.StoredBlock")
        .compile_fds(descriptors)?;
    Ok(())
}
