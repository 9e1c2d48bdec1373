//! What of a model was taken on trust, or not as it says.

use std::fmt;

use serde::{Deserialize, Serialize};

/// Something of a model that its user should know of though it is imported.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
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
    /// The model states other shapes of tensors inside than its nodes give, and theirs are taken.
    ValueShape {
        /// The first such tensor.
        tensor: String,
        /// What the model states.
        stated: String,
        /// What the nodes give.
        inferred: String,
        /// How many other tensors are so.
        others: usize,
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
    /// Values were told of some elements of an input, and it stays one as the others are not known.
    FewValues {
        /// The input.
        input: String,
        /// How many elements were told.
        told: usize,
    },
}

impl fmt::Display for ImportNote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::StatedShape { node, op, output, shape } => write!(
                f,
                "node `{node}` ({op}): an input decides the shape of `{output}` at run time; the engine takes {shape}, as \
                 the model states, whatever that input says"
            ),
            Self::ValueShape { tensor, stated, inferred, others } => {
                let more = if *others > 0 { format!(" (and {others} more such)") } else { String::new() };
                write!(f, "tensor `{tensor}` is stated as {stated} but is {inferred}, which is taken{more}")
            }
            Self::OutputShape { output, stated, inferred } => {
                write!(f, "output `{output}` is stated as {stated} but is {inferred}; the engine gives the latter")
            }
            Self::FewValues { input, told } => {
                write!(f, "input `{input}` is not fixed: it has more than the {told} elements that were told")
            }
        }
    }
}
