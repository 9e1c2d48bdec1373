//! Why a model could not be imported.

use std::fmt;
use std::path::{Path, PathBuf};

use trt_fuse_ir::{DType, GraphError, TensorError};

use super::proto::NodeProto;

/// Why a model could not be imported.
///
/// Displayed in one line that names the file and the node or tensor at fault; names from the file are escaped and cut.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// The error inside, in this file.
    #[error("{}: {error}", path.display())]
    File {
        /// The model's file.
        path: PathBuf,
        /// What is wrong in it.
        error: Box<ImportError>,
    },
    /// The error inside, at this node.
    #[error("node `{}` ({}): {error}", show(node), show(op_type))]
    Node {
        /// Name of the node, or of its first output where it has no name.
        node: String,
        /// Operator, with its domain unless that is the default one.
        op_type: String,
        /// What is wrong with it.
        error: Box<ImportError>,
    },
    /// The file system refused.
    #[error("cannot read {}: {error}", path.display())]
    Io {
        /// File or folder.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// A folder, device or pipe.
    #[error("{} is not a regular file", path.display())]
    NotAFile {
        /// The path given.
        path: PathBuf,
    },
    /// No byte to decode.
    #[error("the file is empty")]
    Empty,
    /// A placeholder for a file in Git LFS.
    #[error("this is a Git LFS pointer, not a model: run `git lfs pull`")]
    LfsPointer,
    /// Not protobuf, or cut off.
    #[error("not an ONNX model, or truncated: {0}")]
    Decode(#[from] prost::DecodeError),
    /// A file that should hold an array of NumPy.
    #[error("{reason}")]
    Npy {
        /// What is wrong with it.
        reason: String,
    },
    /// More than [`Limits`](super::Limits) allow.
    #[error("{what}: {found} exceeds the limit of {limit}")]
    Limit {
        /// What is counted, and where.
        what: String,
        /// Count found; for open-ended counts the first beyond the limit.
        found: u64,
        /// Largest count allowed.
        limit: u64,
    },
    /// A data type that ONNX does not define, or that no tensor here can hold.
    #[error("tensor `{}`: data type {code} is not supported", show(tensor))]
    DataType {
        /// Name of the tensor or value.
        tensor: String,
        /// `onnx.TensorProto.DataType`.
        code: i32,
    },
    /// A tensor of strings where numbers are needed.
    #[error("tensor `{}`: string tensors hold no data that a network could use", show(tensor))]
    StringTensor {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor given in chunks.
    #[error("tensor `{}`: segmented tensors are not supported", show(tensor))]
    Segment {
        /// Name of the tensor.
        tensor: String,
    },
    /// A tensor with a dimension below 0.
    #[error("tensor `{}`: dimension {axis} is {dim}", show(tensor))]
    NegativeDim {
        /// Name of the tensor or value.
        tensor: String,
        /// Index of the dimension.
        axis: usize,
        /// Its value.
        dim: i64,
    },
    /// A number for a dimension that no input has.
    #[error("no input has a dimension `{}`; there are: {}", show(name), known.join(", "))]
    NoSuchDimension {
        /// The dimension's name.
        name: String,
        /// Names of the dimensions that there are.
        known: Vec<String>,
    },
    /// Values for what is no input.
    #[error("there is no input `{}`; there are: {}", show(name), known.join(", "))]
    NoSuchInput {
        /// The name.
        name: String,
        /// Names of the inputs that there are.
        known: Vec<String>,
    },
    /// Values that an input cannot have.
    #[error("the values of input `{}` cannot be fixed: {reason}", show(input))]
    InputValues {
        /// Name of the input.
        input: String,
        /// Why not.
        reason: String,
    },
    /// Data and dimensions disagree.
    #[error("tensor `{}` of {dtype}{dims:?} needs {expected} bytes, found {found} in {field}", show(tensor))]
    DataLength {
        /// Name of the tensor.
        tensor: String,
        /// Element type.
        dtype: DType,
        /// Dimensions.
        dims: Vec<i64>,
        /// Bytes that type and dimensions need.
        expected: u64,
        /// Bytes found.
        found: u64,
        /// Field of `onnx.TensorProto` that was read, or `external data`.
        field: &'static str,
    },
    /// Data in more than one field.
    #[error("tensor `{}` has data both in {first} and in {second}", show(tensor))]
    DataTwice {
        /// Name of the tensor.
        tensor: String,
        /// One field.
        first: &'static str,
        /// The other field.
        second: &'static str,
    },
    /// Data in a field that is not for this element type.
    #[error("tensor `{}`: {dtype} data belongs in {expected} or raw_data, found in {found}", show(tensor))]
    DataField {
        /// Name of the tensor.
        tensor: String,
        /// Element type.
        dtype: DType,
        /// Field of `onnx.TensorProto` for the type.
        expected: &'static str,
        /// Field that has data.
        found: &'static str,
    },
    /// A value that the element type cannot hold.
    #[error("tensor `{}`: value {value} at index {index} of {field} does not fit {dtype}", show(tensor))]
    DataValue {
        /// Name of the tensor.
        tensor: String,
        /// Element type.
        dtype: DType,
        /// Field of `onnx.TensorProto`.
        field: &'static str,
        /// Index in the field.
        index: usize,
        /// The value there.
        value: i128,
    },
    /// Dimensions whose product overflows.
    #[error("tensor `{}`: {error}", show(tensor))]
    Tensor {
        /// Name of the tensor.
        tensor: String,
        /// What is wrong.
        error: TensorError,
    },
    /// No graph in the model.
    #[error("the model has no graph")]
    NoGraph,
    /// No output: nothing to compute.
    #[error("the graph has no outputs")]
    NoOutputs,
    /// An input without a type.
    #[error("input `{}` has no type", show(tensor))]
    NoType {
        /// Name of the input.
        tensor: String,
    },
    /// A node without an operator.
    #[error("it has no op_type")]
    NoOpType,
    /// The version of ONNX's own operator set is too old or too new.
    #[error(
        "opset {found} is not supported, {oldest} to {newest} are; onnx.version_converter.convert_version converts it"
    )]
    Opset {
        /// Version asked for.
        found: i64,
        /// Oldest version that is converted.
        oldest: i64,
        /// Newest version that is converted.
        newest: i64,
    },
    /// No version of an operator set that a node needs.
    #[error("the model imports no opset of ONNX's own domain")]
    NoOpset,
    /// Two versions of one operator set.
    #[error("the model imports two opsets of domain `{}`", show(domain))]
    OpsetTwice {
        /// Domain; empty for ONNX's own.
        domain: String,
    },
    /// A name without a value.
    #[error("it reads `{}`, which nothing produces", show(value))]
    Dangling {
        /// Name of the value.
        value: String,
    },
    /// An output of the graph, a body or a function without a value.
    #[error("output `{}` is produced by nothing", show(value))]
    DanglingOutput {
        /// Name of the output.
        value: String,
    },
    /// One name for two values.
    #[error("two values are called `{}`", show(value))]
    DuplicateValue {
        /// Name of the values.
        value: String,
    },
    /// A node that needs what it produces.
    #[error("it needs its own output: the graph has a cycle")]
    Cycle,
    /// One name for two local functions.
    #[error("two functions are called `{}`", show(function))]
    DuplicateFunction {
        /// Domain, name and overload.
        function: String,
    },
    /// A local function that calls itself.
    #[error("function `{}` calls itself", show(function))]
    RecursiveFunction {
        /// Domain, name and overload.
        function: String,
    },
    /// An attribute that is missing, of another type, or has a value that the operator does not know.
    #[error("attribute `{}`: {reason}", show(attribute))]
    Attribute {
        /// Name of the attribute.
        attribute: String,
        /// What is wrong, and what was expected.
        reason: String,
    },
    /// Too few or too many inputs or outputs.
    #[error("{found} {what}, {expected} expected")]
    Arity {
        /// What is counted.
        what: &'static str,
        /// Count found.
        found: usize,
        /// Counts allowed, in words.
        expected: String,
    },
    /// A required input that is left out.
    #[error("input {slot} is missing")]
    MissingInput {
        /// Index of the input.
        slot: usize,
    },
    /// Inputs that do not fit the operator.
    #[error("{}", show(reason))]
    Operands {
        /// What does not fit.
        reason: String,
    },
    /// The model states of a value what cannot be.
    #[error(
        "tensor `{}` is stated as {} but is {}; wrong value_info may be deleted from the model",
        show(tensor),
        show(stated),
        show(inferred)
    )]
    Contradiction {
        /// Name of the value.
        tensor: String,
        /// What inference found.
        inferred: String,
        /// What the model states.
        stated: String,
    },
    /// The graph refused a node in a way that the importer should have noticed.
    #[error("{}", show(&.0.to_string()))]
    Graph(GraphError),
    /// External data that cannot or must not be read.
    #[error("tensor `{}`: external data `{}`: {reason}", show(tensor), show(location))]
    External {
        /// Name of the tensor.
        tensor: String,
        /// Path as the model gives it.
        location: String,
        /// Why, and what helps.
        reason: String,
    },
}

impl ImportError {
    /// This error with the file it is in.
    pub(crate) fn in_file(self, path: &Path) -> Self {
        Self::File { path: path.to_owned(), error: Box::new(self) }
    }

    /// This error with the node it is at.
    pub(crate) fn at(self, node: &NodeProto) -> Self {
        let name = if node.name.is_empty() { node.output.first() } else { Some(&node.name) };
        Self::Node {
            node: name.cloned().unwrap_or_default(),
            op_type: qualified(&node.domain, &node.op_type),
            error: Box::new(self),
        }
    }

    /// Name of the node at fault, if one is known; the innermost, where bodies and functions nest.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::File { error, .. } => error.node(),
            Self::Node { node, error, .. } => error.node().or(Some(node)),
            _ => None,
        }
    }
}

impl From<GraphError> for ImportError {
    fn from(error: GraphError) -> Self {
        match error {
            GraphError::Infer { reason, .. } => Self::Operands { reason },
            GraphError::Contradiction { value, inferred, stated } => {
                Self::Contradiction { tensor: value.to_string(), inferred, stated }
            }
            error => Self::Graph(error),
        }
    }
}

/// An operator's type with its domain, unless that is ONNX's own.
pub(crate) fn qualified(domain: &str, op_type: &str) -> String {
    match super::scope::domain(domain) {
        "" => op_type.to_owned(),
        domain => format!("{domain}::{op_type}"),
    }
}

/// Characters of a name shown in a message.
const SHOWN: usize = 160;

/// A name from a file, fit for a one-line message: control characters escaped, the middle of long names left out.
pub(crate) fn show(name: &str) -> impl fmt::Display {
    let count = name.chars().count();
    let escaped = |text: String| text.escape_debug().to_string().replace("\\\"", "\"").replace("\\'", "'");
    if count <= SHOWN {
        return escaped(name.to_owned());
    }
    let head = name.chars().take(SHOWN / 2).collect();
    let tail = name.chars().skip(count - SHOWN / 2).collect();
    format!("{}...{}", escaped(head), escaped(tail))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stay_in_one_short_line() {
        assert_eq!(show("a/b:0 'c' \"d\"").to_string(), "a/b:0 'c' \"d\"");
        assert_eq!(show("a\nb\u{1b}[31m").to_string(), "a\\nb\\u{1b}[31m");
        let long = format!("{}{}", "x".repeat(5000), "é".repeat(5000));
        assert_eq!(show(&long).to_string(), format!("{}...{}", "x".repeat(80), "é".repeat(80)));
    }

    #[test]
    fn the_line_names_file_and_node() {
        let error = ImportError::Node {
            node: "conv1".into(),
            op_type: "Conv".into(),
            error: Box::new(ImportError::StringTensor { tensor: "w".into() }),
        }
        .in_file(Path::new("dir/m.onnx"));
        assert_eq!(
            error.to_string(),
            "dir/m.onnx: node `conv1` (Conv): tensor `w`: string tensors hold no data that a network could use"
        );
        assert_eq!(error.node(), Some("conv1"));
    }
}
