// SPDX-License-Identifier: Apache-2.0
//! Compiles the protocol definitions, without `protoc`, to Rust and to descriptors for the JSON form.

use prost::Message;
use std::error::Error;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=proto");
    let files = protox::compile(["observer.proto", "peer.proto"], ["proto"])?;
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?);
    std::fs::write(out.join("descriptors.bin"), files.encode_to_vec())?;
    let mut config = tonic_prost_build::Config::new();
    config.enable_type_names();
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds_with_config(files, config)?;
    // Not of Hubble's API, so not among the descriptors that servers tell of.
    let collector = protox::compile(["opentelemetry.proto"], ["proto"])?;
    tonic_prost_build::configure().build_client(true).build_server(true).compile_fds(collector)?;
    Ok(())
}
