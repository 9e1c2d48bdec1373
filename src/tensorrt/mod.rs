//! TensorRT: finding its library, making a network in it, building an engine.

mod builder;
mod dtype;
mod engine;
mod error;
#[allow(unsafe_code, missing_docs, unreachable_pub, clippy::too_many_arguments)]
mod ffi;
mod library;
mod network;
mod parser;

pub use builder::{BuilderConfig, ComputeCapability, InputRange, Plan, Profile, Progress, RangeKind};
pub use engine::EngineLayer;
pub use error::EngineError;
pub use library::{Flavour, Library, Search, Version};
pub use network::{TrtNetwork, TrtTensor};
pub use parser::{ParsedNetwork, parse_onnx};
