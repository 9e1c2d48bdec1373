//! What of a model was taken on trust, or not as it says.

/// Something of a model that its user should know of though it is imported.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImportNote {
    /// An input of a node decides its output's shape, and the shape that the model states stands for it.
    StatedShape {
        /// The node.
        node: String,
        /// Its ONNX type.
        op: String,
        /// The output.
        output: String,
        /// The shape that the model states.
        shape: String,
    },
    /// The model states another shape of one of its outputs than its nodes give, and theirs is taken.
    OutputShape {
        /// The output.
        output: String,
        /// What the model states.
        stated: String,
        /// What the nodes give.
        inferred: String,
    },
}
