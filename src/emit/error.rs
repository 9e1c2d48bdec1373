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
    /// Nodes that the target cannot express, all of them.
    #[error("{}", list(.0))]
    Unsupported(Vec<Unsupported>),
    /// TensorRT infers another type or shape than the graph.
    #[error("node '{node}' ({op}): '{value}' is {expected}, but TensorRT makes it {found}")]
    Mismatch {
        /// The node.
        node: String,
        /// Its operator.
        op: String,
        /// The tensor.
        value: String,
        /// The graph's type and shape.
        expected: String,
        /// TensorRT's.
        found: String,
    },
}

fn list(nodes: &[Unsupported]) -> String {
    let items: Vec<String> =
        nodes.iter().map(|node| format!("'{}' ({}): {}", node.node, node.op, node.reason)).collect();
    format!("{} unsupported: {}", if nodes.len() == 1 { "a node is" } else { "nodes are" }, items.join("; "))
}

/// A node that the target cannot express.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unsupported {
    /// The ONNX node.
    pub node: String,
    /// Its ONNX type; `input` for an input of the model.
    pub op: String,
    /// The attribute that the reason is about, if it is about one.
    pub attribute: Option<String>,
    /// Why not, as a phrase.
    pub reason: String,
}

impl Unsupported {
    /// Whether the reason is that something is not known of the inputs before the engine runs.
    pub(crate) fn is_for_lack_of_knowledge(&self) -> bool {
        ["only at run time", "only known at run time", "is not known", "are not known"]
            .iter()
            .any(|phrase| self.reason.contains(phrase))
    }
}
