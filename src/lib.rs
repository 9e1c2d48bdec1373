//! ONNX to TensorRT.

pub mod emit;
pub mod import;
