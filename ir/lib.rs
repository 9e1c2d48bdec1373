//! The graph of trt-fuse.

mod dim;
mod dtype;
mod tensor;

pub use dim::{Dim, Shape};
pub use dtype::DType;
pub use tensor::{Dims, Element, Tensor, TensorError, numel};
