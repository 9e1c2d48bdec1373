//! ONNX files to graphs.

// Graph building, which calls all this, follows.
#![allow(dead_code)]

mod decode;
mod error;
mod external;
mod limits;
mod map;
mod proto;
mod scan;
mod tensor;

pub use error::ImportError;
pub use limits::Limits;
