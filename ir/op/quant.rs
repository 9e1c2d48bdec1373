//! Quantization. Inputs of both: x, scale, zero point or an empty slot for 0.

use crate::{DType, attributes};

attributes! {
    /// ONNX `QuantizeLinear`: `saturate(round_half_even(x / scale) + zero_point)`.
    pub struct Quantize {
        /// The axis along which scales differ; negative counts from the end.
        axis: i64,
        /// Elements that share a scale along the axis, for blocked scales.
        block_size: Option<i64>,
        /// The output's dtype.
        to: DType,
        /// Values out of a float8 type's range become its largest.
        saturate: bool,
    }
}

attributes! {
    /// ONNX `DequantizeLinear`: `(x - zero_point) * scale`, in the scale's dtype.
    pub struct Dequantize {
        /// The axis along which scales differ; negative counts from the end.
        axis: i64,
        /// Elements that share a scale along the axis, for blocked scales.
        block_size: Option<i64>,
    }
}
