//! ONNX to a tuned TensorRT engine.
//!
//! A model is imported into a graph ([`import`]), rewritten by passes ([`trt_fuse_passes`]), emitted layer by layer as a
//! TensorRT network ([`emit`]), and built ([`tensorrt`]). No GPU is needed to build for TensorRT-RTX.
//!
//! ```no_run
//! let plan = trt_fuse::optimize_and_build("resnet50.onnx")?;
//! plan.save(std::path::Path::new("resnet50.plan"))?;
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

mod cache;
mod check;
mod compile;
pub mod conformance;
pub mod emit;
mod error;
mod files;
pub mod import;
mod notes;
pub mod npy;
mod ranges;
pub mod report;
pub mod runtime;
pub mod tensorrt;
mod verify;

pub use check::{Checked, Finding, check};
pub use compile::{
    Built, Optimized, Options, PassSelection, Timings, build, build_with_parser, open_library, optimize,
    optimize_and_build, record, unsupported, unsupported_nodes,
};
pub use error::{Error, ErrorKind};
pub use notes::{Note, TypeChange};
pub use ranges::{Range, RangeError, check_ranges, profile};
pub use trt_fuse_ir as ir;
pub use trt_fuse_passes as passes;
pub use verify::{Compared, VerifyOptions, first_bad_tensor, verify_engine};
