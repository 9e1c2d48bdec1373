//! Operators whose indices are data. Indices are i32 or i64 and may be negative, counting from the end.

use crate::{attributes, words};

attributes! {
    /// ONNX `Gather`: whole slices along an axis. Inputs: data, indices of any rank.
    pub struct Gather {
        /// Negative counts from the end.
        axis: i64,
    }
}

attributes! {
    /// ONNX `GatherElements`. Inputs: data, indices of the output's shape.
    pub struct GatherElements {
        /// Negative counts from the end.
        axis: i64,
    }
}

attributes! {
    /// ONNX `GatherND`. Inputs: data, indices.
    pub struct GatherNd {
        /// Leading axes shared by data and indices.
        batch_dims: i64,
    }
}

words! {
    /// How an update joins what is there.
    pub enum ScatterReduction {
        /// Replaces.
        None = "none",
        /// Adds.
        Add = "add",
        /// Multiplies.
        Mul = "mul",
        /// Keeps the larger.
        Max = "max",
        /// Keeps the smaller.
        Min = "min",
    }
}

attributes! {
    /// ONNX `ScatterElements` (and `Scatter`). Inputs: data, indices, updates.
    pub struct ScatterElements {
        /// Negative counts from the end.
        axis: i64,
        /// How updates join.
        reduction: ScatterReduction,
    }
}

attributes! {
    /// ONNX `ScatterND`. Inputs: data, indices, updates.
    pub struct ScatterNd {
        /// How updates join.
        reduction: ScatterReduction,
    }
}

attributes! {
    /// ONNX `OneHot`. Inputs: indices, depth (scalar), values (off and on).
    pub struct OneHot {
        /// Axis of the output; negative counts from the end.
        axis: i64,
    }
}

attributes! {
    /// ONNX `ReverseSequence`. Inputs: data, how many elements of each sequence are reversed (`[batch]`).
    pub struct ReverseSequence {
        /// The axis of sequences.
        batch_axis: i64,
        /// The axis along which they are reversed.
        time_axis: i64,
    }
}
