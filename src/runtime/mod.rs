//! Running engines: a plan is loaded once as an [`Engine`], and run by [`Session`]s, each with its own memory and stream.

mod bench;
mod cuda;
mod engine;
mod error;
mod inputs;
mod interface;
mod memory;
mod profile;
mod session;

pub use bench::{BenchOptions, Measured, Spread, measure_streams};
pub use cuda::Device;
pub use engine::Engine;
pub use error::RuntimeError;
pub use inputs::{Extents, random_inputs};
pub use interface::TensorSpec;
pub use memory::{DeviceTensor, SharedMemory};
pub use profile::LayerTime;
pub use session::{Running, Session, SessionOptions};
