//! ONNX files to graphs.
//!
//! A model is mapped and decoded without copying its weights (`proto`, `map`), within [`Limits`]; external data is
//! read from the model's folder only. Its nodes are brought into an order, local functions inlined, bodies of control
//! flow imported as graphs whose captures are inputs. Each operator is converted, whatever its opset (1 to 28), to the
//! one form that [`trt_fuse_ir::op`] has for it (`ops`); what has none stays as an opaque node with the reason. What
//! the model states of values is believed where inference says nothing; a contradiction is an error, but for the shapes
//! of outputs, where the statement is dropped with a note.

mod attrs;
mod body;
mod decode;
mod error;
mod external;
mod formula;
mod given;
mod limits;
mod map;
mod model;
mod names;
mod node;
mod note;
mod npy;
mod ops;
mod order;
mod proto;
mod scan;
mod scope;
mod tensor;
mod types;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use prost::Message;
pub use trt_fuse_ir::InputValues;
use trt_fuse_ir::{Graph, Tensor};

pub use error::ImportError;
pub use limits::Limits;
pub use note::ImportNote;
pub use npy::read_npy;

use external::ExternalFiles;
use scope::Opsets;
use tensor::TensorReader;

/// How a model is imported.
#[derive(Debug, Clone, Default)]
pub struct ImportOptions {
    /// Bounds on what the model may ask for.
    pub limits: Limits,
    /// Where external data lies; for a model in a file, beside it unless this says otherwise.
    pub folder: Option<PathBuf>,
    /// Symbolic dimensions of inputs that are to be numbers. Shapes that follow from them may choose branches.
    pub sizes: BTreeMap<String, i64>,
    /// Values of inputs by name. Such an input is kept, and what reads it reads a constant: a flag may choose branches, axes
    /// decide shapes, and a mask that is 1 everywhere hides nothing. Of fewer elements than an input has, none is taken.
    pub values: BTreeMap<String, InputValues>,
}

/// A model, imported.
#[derive(Debug, Clone)]
pub struct Model {
    /// What it computes.
    pub graph: Graph,
    /// Version of the ONNX format.
    pub ir_version: i64,
    /// The program that wrote it, with its version; empty if it does not say.
    pub producer: String,
    /// Versions of operator sets by domain; ONNX's own is empty.
    pub opsets: BTreeMap<String, i64>,
    /// What was taken on trust, or not as the model says.
    pub notes: Vec<ImportNote>,
}

/// Imports the model at `path`. Its weights stay in the file, which must not change while the graph is in use.
///
/// # Errors
/// What is wrong with the file, naming it and the node or tensor.
pub fn import_file(path: &Path, options: &ImportOptions) -> Result<Model, ImportError> {
    let import = || {
        let bytes = map::map_file(path)?;
        let external = match &options.folder {
            Some(folder) => ExternalFiles::in_folder(folder)?,
            None => ExternalFiles::beside(path)?,
        };
        import(bytes, external, options)
    };
    import().map_err(|error| error.in_file(path))
}

/// Imports a model in memory, without copying its weights.
///
/// # Errors
/// What is wrong with the model, naming the node or tensor.
pub fn import_bytes(bytes: impl Into<Bytes>, options: &ImportOptions) -> Result<Model, ImportError> {
    let external = match &options.folder {
        Some(folder) => ExternalFiles::in_folder(folder)?,
        None => ExternalFiles::none(),
    };
    import(bytes.into(), external, options)
}

/// The types of the ONNX operators that have an internal form, those of other domains than ONNX's own as `domain::type`.
/// Each may have attributes or types that keep a node from being taken.
pub fn operators() -> BTreeSet<String> {
    ops::names()
}

/// Reads a file that holds one tensor, as ONNX's own tests keep their data.
///
/// # Errors
/// What is wrong with the file.
pub fn read_tensor(path: &Path) -> Result<Tensor, ImportError> {
    let read = || {
        let proto = proto::TensorProto::decode(map::map_file(path)?)?;
        TensorReader::new(Limits::default(), ExternalFiles::none()).read(proto, "")
    };
    read().map_err(|error: ImportError| error.in_file(path))
}

fn import(bytes: Bytes, external: ExternalFiles, options: &ImportOptions) -> Result<Model, ImportError> {
    let mut proto = decode::decode(bytes, &options.limits)?;
    if proto.graph.is_none() {
        return Err(ImportError::NoGraph);
    }
    let opsets = Opsets::read(&proto.opset_import)?;
    let (graph, notes) = model::import(&mut proto, opsets.clone(), external, options)?;
    let producer = format!("{} {}", proto.producer_name, proto.producer_version).trim().to_owned();
    Ok(Model { graph, ir_version: proto.ir_version, producer, opsets: opsets.into_inner(), notes })
}

#[cfg(test)]
mod tests;
