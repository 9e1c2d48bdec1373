//! Compiles the C++ side of the bridge once for each set of TensorRT headers.
//!
//! The headers of TensorRT-RTX 1.7 and TensorRT 11.4 come with the crate `trtx-sys`, which is never built: `cargo
//! metadata` downloads it where needed and names its folder. `TENSORRT_INCLUDE_DIR` adds other sets, one a folder of the
//! list. No NVIDIA library is linked: they are opened at run time.

use std::env;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

const BRIDGE: &str = "src/tensorrt/ffi.rs";
/// Compiled once.
const LIBRARY: &str = "cpp/library.cc";
/// Compiled once for each set of headers.
const PER_SET: &[&str] = &[
    "cpp/engine.cc",
    "cpp/flow.cc",
    "cpp/layers.cc",
    "cpp/logger.cc",
    "cpp/movement.cc",
    "cpp/network.cc",
    "cpp/parser.cc",
    "cpp/runtime.cc",
    "cpp/terms.cc",
    "cpp/types.cc",
];
const HEADERS: &[&str] = &["cpp/bridge.h", "cpp/network.h"];

/// A set of headers under the name of its namespace.
struct HeaderSet {
    name: String,
    include: PathBuf,
}

fn main() {
    for file in [&[BRIDGE, LIBRARY], PER_SET, HEADERS].concat() {
        println!("cargo::rerun-if-changed={file}");
    }
    println!("cargo::rerun-if-changed=Cargo.lock");
    println!("cargo::rerun-if-env-changed=TENSORRT_INCLUDE_DIR");

    let shipped = shipped_headers();
    let mut sets = vec![
        HeaderSet { name: "rtx".to_owned(), include: shipped.join("TRT-RTX-1.7") },
        HeaderSet { name: "e11".to_owned(), include: shipped.join("TRT-Enterprise-11.4") },
    ];
    let listed = env::var_os("TENSORRT_INCLUDE_DIR").unwrap_or_default();
    let listed = env::split_paths(&listed).filter(|folder| !folder.as_os_str().is_empty());
    sets.extend(listed.enumerate().map(|(i, include)| HeaderSet { name: format!("sdk{i}"), include }));
    for set in &sets {
        let header = set.include.join("NvInfer.h");
        assert!(header.is_file(), "there is no {}", header.display());
        println!("cargo::rerun-if-changed={}", header.display());
    }

    let list: String = sets.iter().map(|set| format!("X({}) ", set.name)).collect();
    let mut bridge = cxx_build::bridge(BRIDGE);
    options(&mut bridge).file(LIBRARY).define("TRTFUSE_SETS(X)", list.trim_end());
    bridge.compile("trtfuse_bridge");
    for set in &sets {
        compile_set(set, &shipped);
    }
    println!("cargo::rustc-link-lib=dl");
    println!("cargo::rustc-env=TRTFUSE_BRIDGE={:016x}", hash_of_sources());
}

/// Tells one state of the bridge from another: it decides what TensorRT builds of a network, as the network itself does.
fn hash_of_sources() -> u64 {
    let mut hasher = DefaultHasher::new();
    for file in [&[BRIDGE, LIBRARY], PER_SET, HEADERS].concat() {
        fs::read(file).unwrap_or_else(|error| panic!("{file}: {error}")).hash(&mut hasher);
    }
    hasher.finish()
}

fn compile_set(set: &HeaderSet, shipped: &Path) {
    let generated = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR")).join("cxxbridge");
    let mut build = cc::Build::new();
    options(&mut build)
        .cpp(true)
        .include(generated.join("include"))
        .include(generated.join("crate"))
        .define("TRTFUSE_SET", set.name.as_str())
        .define("nvinfer1", format!("nvinfer1_{}", set.name).as_str())
        .define("nvonnxparser", format!("nvonnxparser_{}", set.name).as_str());
    // System folders, so that NVIDIA's headers give no warnings. The second one has a stand-in for cuda_runtime_api.h.
    for folder in [set.include.as_path(), shipped] {
        build.flag("-isystem").flag(folder);
    }
    build.files(PER_SET).compile(&format!("trtfuse_{}", set.name));
}

fn options(build: &mut cc::Build) -> &mut cc::Build {
    build.std("c++17").warnings(true).extra_warnings(true).flag("-Wno-deprecated-declarations")
}

/// The folder `TensorRT-Headers` of the crate `trtx-sys`.
fn shipped_headers() -> PathBuf {
    let metadata = metadata(true)
        .or_else(|_| metadata(false))
        .unwrap_or_else(|why| panic!("cargo metadata, asked for the TensorRT headers in trtx-sys: {why}"));
    let manifest = metadata["packages"]
        .as_array()
        .and_then(|packages| packages.iter().find(|package| package["name"] == "trtx-sys"))
        .and_then(|package| package["manifest_path"].as_str())
        .expect("Cargo.toml names trtx-sys");
    Path::new(manifest).with_file_name("TensorRT-Headers")
}

fn metadata(offline: bool) -> Result<Value, String> {
    let mut command = Command::new(env::var_os("CARGO").expect("cargo sets CARGO"));
    command.args(["metadata", "--format-version", "1"]).args(offline.then_some("--offline"));
    let output = command.output().map_err(|why| why.to_string())?;
    if !output.status.success() {
        return Err(String::from_utf8_lossy(&output.stderr).trim().to_owned());
    }
    serde_json::from_slice(&output.stdout).map_err(|why| why.to_string())
}
