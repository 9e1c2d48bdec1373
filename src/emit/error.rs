//! Errors of the emit stage.

use thiserror::Error;
use trt_fuse_ir::DType;

/// Why a network could not be emitted.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EmitError {
    /// TensorRT refused a layer or one of its settings.
    #[error("layer '{layer}' was refused: {message}")]
    Layer {
        /// Name of the layer.
        layer: String,
        /// The call that failed and TensorRT's own messages about it.
        message: String,
    },
    /// The opened TensorRT has no such element type.
    #[error("layer '{layer}': TensorRT has no element type {dtype}")]
    DType {
        /// Name of the layer.
        layer: String,
        /// The type.
        dtype: DType,
    },
    /// A parameter that no TensorRT layer can hold.
    #[error("layer '{layer}': {parameter} is {found}, expected {expected}")]
    Parameter {
        /// Name of the layer.
        layer: String,
        /// The parameter's name.
        parameter: &'static str,
        /// What it may be.
        expected: String,
        /// What it is.
        found: String,
    },
}
