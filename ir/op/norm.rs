//! Normalisations.

use super::{Epilogue, Ints};
use crate::attr::F32;
use crate::attributes;

attributes! {
    /// ONNX `BatchNormalization` at inference: `(x - mean) / sqrt(var + epsilon) * scale + bias` along axis 1.
    /// Inputs: x, scale, bias, mean, var.
    pub struct BatchNorm {
        /// Added to the variance.
        epsilon: F32,
        /// Applied to the output; activations only.
        epilogue: Epilogue,
    }
}

attributes! {
    /// ONNX `LayerNormalization`: over the axes from `axis` to the last. Inputs: x, scale, bias or an empty slot.
    /// Outputs: y and, where the node has them, mean and inverse standard deviation.
    pub struct LayerNorm {
        /// The first axis normalised; negative counts from the end.
        axis: i64,
        /// Added to the variance.
        epsilon: F32,
    }
}

attributes! {
    /// ONNX `RMSNormalization`: LayerNorm without mean and bias. Inputs: x, scale.
    pub struct RmsNorm {
        /// The first axis normalised; negative counts from the end.
        axis: i64,
        /// Added to the mean of squares.
        epsilon: F32,
    }
}

attributes! {
    /// ONNX `InstanceNormalization` and `GroupNormalization` (opset 21). Inputs: x `[N, C, ...]`, scale `[C]`, bias
    /// `[C]`. An instance norm has as many groups as channels and says 0.
    pub struct GroupNorm {
        /// Groups that the channels fall into; 0 for one a channel.
        groups: i64,
        /// Added to the variance.
        epsilon: F32,
    }
}

attributes! {
    /// ONNX `LRN`: across channels, `x / (bias + alpha / size * sum of squares)^beta`.
    pub struct Lrn {
        /// Scale of the sum of squares.
        alpha: F32,
        /// Exponent.
        beta: F32,
        /// Added to the sum.
        bias: F32,
        /// Channels summed over.
        size: i64,
    }
}

attributes! {
    /// ONNX `LpNormalization`: `x / p-norm(x)` along one axis.
    pub struct LpNorm {
        /// The axis; negative counts from the end.
        axis: i64,
        /// The norm's exponent.
        p: i64,
    }
}

attributes! {
    /// ONNX `MeanVarianceNormalization`: `(x - mean) / sqrt(var)` over axes.
    pub struct MeanVarianceNorm {
        /// The axes normalised over.
        axes: Ints,
    }
}
