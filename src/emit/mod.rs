//! From a verified graph to a network definition, layer by layer.

mod error;
pub mod layers;
pub mod record;
pub mod sink;
pub mod terms;

pub use error::EmitError;
