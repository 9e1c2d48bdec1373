//! ONNX to TensorRT.

pub mod import;
