//! TensorRT: finding its library, making a network in it, building an engine.

mod builder;
pub(crate) mod dtype;
mod engine;
mod error;
// What cxx generates is public.
#[allow(clippy::too_many_arguments, unreachable_pub)]
mod ffi;
mod header;
mod library;
mod network;
mod parser;
mod timing;

pub use builder::{BuilderConfig, ComputeCapability, InputRange, Plan, Profile, Progress, RangeKind};
pub use engine::EngineLayer;
pub use error::EngineError;
pub(crate) use ffi::bridge;
pub use header::{PlanError, PlanHeader};
pub use library::{Flavour, Given, Library, Search, Version};
pub use network::{TrtNetwork, TrtTensor};
pub use parser::{ParsedNetwork, parse_onnx};
