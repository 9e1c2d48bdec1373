//! ONNX to TensorRT.

pub mod emit;
