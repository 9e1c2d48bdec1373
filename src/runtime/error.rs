//! Errors of loading and running an engine.

use thiserror::Error;
use trt_fuse_ir::DType;

use crate::tensorrt::PlanError;

/// Why an engine did not run.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum RuntimeError {
    /// There is no CUDA driver on this machine.
    #[error("no CUDA driver found (libcuda.so): an engine runs where an NVIDIA GPU and its driver are")]
    NoDriver,
    /// There is a driver, and no such GPU.
    #[error("no GPU {ordinal}: the CUDA driver has {count}")]
    NoGpu {
        /// Its number.
        ordinal: i32,
        /// GPUs that the driver has.
        count: i32,
    },
    /// A call of the CUDA driver failed.
    #[error("{call}: {message}")]
    Cuda {
        /// The call.
        call: &'static str,
        /// What the driver says.
        message: String,
    },
    /// A file is no plan, or not whole.
    #[error("the plan cannot be used: {0}")]
    Plan(#[from] PlanError),
    /// Another TensorRT built the plan.
    #[error("the plan was built by {built}, this is {found}: a plan runs on the version that built it")]
    OtherTensorRt {
        /// Which built it.
        built: String,
        /// Which was opened.
        found: String,
    },
    /// The plan is for other GPUs.
    #[error("the plan was built for compute capability {built}, this GPU has {found}")]
    OtherGpu {
        /// Those that it was built for.
        built: String,
        /// The machine's.
        found: String,
    },
    /// TensorRT refused something.
    #[error("{message}")]
    TensorRt {
        /// What TensorRT says.
        message: String,
    },
    /// The engine has a tensor that cannot be given or taken.
    #[error("tensor '{name}': {reason}")]
    Tensor {
        /// The tensor.
        name: String,
        /// Why not.
        reason: String,
    },
    /// An input or output was given that the engine does not have.
    #[error("no {side} is called '{name}'; there are {known}")]
    UnknownTensor {
        /// `input` or `output`.
        side: &'static str,
        /// The name given.
        name: String,
        /// The engine's.
        known: String,
    },
    /// An input or output was not given, or twice.
    #[error("{side} '{name}' was given {times} times")]
    Times {
        /// `input` or `output`.
        side: &'static str,
        /// The tensor.
        name: String,
        /// How often it was given.
        times: usize,
    },
    /// An input or output has another element type.
    #[error("'{name}' is {found}, {expected} is wanted")]
    DType {
        /// The tensor.
        name: String,
        /// The model's type, or the engine's for tensors on the GPU.
        expected: DType,
        /// The type given.
        found: DType,
    },
    /// An input has a shape that the engine was not built for, or an output one that it does not give.
    #[error("'{name}' has shape {found:?}, {expected} is wanted")]
    Shape {
        /// The tensor.
        name: String,
        /// The extents, or their range.
        expected: String,
        /// The shape given.
        found: Vec<usize>,
    },
    /// A dimension of an input is not what the model says of it and of those of other inputs.
    #[error("'{name}' has a dimension of {found}; the model says it is {dim}, which is {expected} here")]
    Symbol {
        /// The input.
        name: String,
        /// The dimension, an expression over symbols.
        dim: String,
        /// What the symbols' values make of it.
        expected: i64,
        /// The extent given.
        found: usize,
    },
    /// An input whose values decide shapes has values that the engine was not built for.
    #[error("'{name}' is {found:?}; the engine was built for values {expected}")]
    Values {
        /// The input.
        name: String,
        /// The values, or their range.
        expected: String,
        /// The values given.
        found: Vec<i64>,
    },
    /// An input has an element that the engine was not built for.
    #[error("'{name}' has an element {found}; the engine was built for {min} to {max}")]
    Bounds {
        /// The input.
        name: String,
        /// The least element.
        min: i64,
        /// The largest.
        max: i64,
        /// An element that is neither of them nor between.
        found: i64,
    },
    /// An input has a number that the engine's type does not hold.
    #[error("input '{name}' has a number of {from} that {to} does not hold; the engine computes in {to}")]
    Number {
        /// The input.
        name: String,
        /// The model's type.
        from: DType,
        /// The engine's type.
        to: DType,
    },
}
