//! Errors of finding TensorRT and of building an engine.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Why there is no engine.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum EngineError {
    /// No library was found.
    #[error("no TensorRT library found; tried {tried}; `make tensorrt` gets one")]
    NoLibrary {
        /// The places looked in, and what was wrong with each.
        tried: String,
    },
    /// A library was found that cannot be used.
    #[error("{}: {message}", path.display())]
    Library {
        /// The library.
        path: PathBuf,
        /// What the loader or the library's version says.
        message: String,
    },
    /// The library has no ONNX parser beside it.
    #[error("no ONNX parser beside {}", library.display())]
    NoParser {
        /// The library.
        library: PathBuf,
    },
    /// NVIDIA's ONNX parser refused a model.
    #[error("{}: {message}", model.display())]
    Parser {
        /// The model.
        model: PathBuf,
        /// What the parser says.
        message: String,
    },
    /// TensorRT could not make a network.
    #[error("no network: {message}")]
    Network {
        /// What TensorRT says.
        message: String,
    },
    /// A range of an optimization profile was refused.
    #[error("range of input '{input}' in profile {profile}: {message}")]
    Range {
        /// Index of the profile.
        profile: usize,
        /// The input.
        input: String,
        /// What TensorRT says.
        message: String,
    },
    /// The build failed.
    #[error("build failed: {message}")]
    Build {
        /// What TensorRT says.
        message: String,
    },
    /// The progress callback stopped the build.
    #[error("build stopped")]
    Stopped,
    /// A plan could not be written.
    #[error("{}: {source}", path.display())]
    Save {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}
