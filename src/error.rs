//! The error of the whole flow.

use std::path::PathBuf;

use trt_fuse_ir::VerifyErrors;
use trt_fuse_ir::eval::EvalError;
use trt_fuse_passes::{PassError, UnknownPass};

use crate::emit::EmitError;
use crate::import::ImportError;
use crate::npy::NpyError;
use crate::ranges::RangeError;
use crate::report::{InputError, UnknownName};
use crate::runtime::RuntimeError;
use crate::tensorrt::EngineError;

/// Why a model did not become an engine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be read.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// A pass has a bug.
    #[error(transparent)]
    Pass(#[from] PassError),
    /// A pass was named that does not exist.
    #[error(transparent)]
    UnknownPass(#[from] UnknownPass),
    /// A graph that should be right is not.
    #[error("the graph does not verify: {0}")]
    Verify(#[from] VerifyErrors),
    /// The graph cannot be expressed as a network.
    #[error(transparent)]
    Emit(#[from] EmitError),
    /// Ranges and symbols do not match.
    #[error(transparent)]
    Range(#[from] RangeError),
    /// A node or layer was named that does not exist.
    #[error(transparent)]
    Name(#[from] UnknownName),
    /// Inputs cannot be read.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The model cannot be evaluated, on these inputs or at all.
    #[error(transparent)]
    Eval(#[from] EvalError),
    /// A file cannot be written.
    #[error("cannot write {}: {error}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The system's reason.
        error: std::io::Error,
    },
    /// TensorRT could not be found or could not build.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A file of NumPy could not be read or written.
    #[error(transparent)]
    Npy(#[from] NpyError),
    /// The engine did not run.
    #[error(transparent)]
    Runtime(#[from] RuntimeError),
}

/// What kind of thing went wrong, for programs that decide what to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The model is broken.
    InvalidModel,
    /// The model is fine, and the target cannot express it.
    Unsupported,
    /// What was asked for does not fit the model.
    Usage,
    /// TensorRT or the CUDA driver is missing, or refused.
    Engine,
    /// A bug in this library.
    Internal,
}

impl Error {
    /// What kind of thing went wrong.
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Import(_) => ErrorKind::InvalidModel,
            Self::Emit(EmitError::Unsupported(_)) => ErrorKind::Unsupported,
            Self::UnknownPass(_)
            | Self::Range(_)
            | Self::Npy(_)
            | Self::Name(_)
            | Self::Input(_)
            | Self::Eval(_)
            | Self::Write { .. } => ErrorKind::Usage,
            Self::Emit(_) | Self::Engine(_) | Self::Runtime(_) => ErrorKind::Engine,
            Self::Pass(_) | Self::Verify(_) => ErrorKind::Internal,
        }
    }

    /// The ONNX node that it is about, if it is about one.
    pub fn node(&self) -> Option<&str> {
        match self {
            Self::Import(error) => error.node(),
            Self::Emit(EmitError::Unsupported(nodes)) => nodes.first().map(|node| node.node.as_str()),
            Self::Emit(EmitError::Mismatch { node, .. }) => Some(node),
            Self::Pass(PassError::Patch { node, .. } | PassError::Endless { node, .. }) => Some(node),
            _ => None,
        }
    }
}
