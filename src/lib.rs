//! ONNX to TensorRT.
