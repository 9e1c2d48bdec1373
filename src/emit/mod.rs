//! From a verified graph to a network definition, layer by layer.

mod error;
pub mod layers;
mod ops;
pub mod record;
pub mod sink;
mod site;
mod symbols;
pub mod terms;
mod walk;

pub use error::{EmitError, Unsupported};
pub use walk::emit;
