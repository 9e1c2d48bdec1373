//! NVIDIA's own ONNX parser, to compare with.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use cxx::UniquePtr;

use super::EngineError;
use super::builder::{self, BuilderConfig, Plan, Progress};
use super::ffi::bridge;
use super::library::{Flavour, Library, Version};
use crate::emit::sink::LayerCounts;

/// What the bridge's message begins with where the parser was opened and took a look at the model.
const REFUSED: &str = "OnnxParser refused the model";

/// A network that the parser made.
pub struct ParsedNetwork {
    inner: UniquePtr<bridge::Network>,
    version: Version,
    /// How long parsing took.
    pub parse_time: Duration,
}

impl fmt::Debug for ParsedNetwork {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ParsedNetwork of {} layers", self.layer_counts().all)
    }
}

/// Parses a model with the ONNX parser that lies beside a library.
///
/// # Errors
/// If there is no parser, or it refuses the model.
pub fn parse_onnx(library: &Library, model: &Path) -> Result<ParsedNetwork, EngineError> {
    let parser = parser_beside(library.path(), library.version())?;
    let fail = |message: &str| EngineError::Parser { model: model.to_owned(), message: message.to_owned() };
    let (Some(parser), Some(name)) = (parser.to_str(), model.to_str()) else {
        return Err(fail("the path is not UTF-8"));
    };
    let mut inner =
        library.inner.create_network().map_err(|why| EngineError::Network { message: why.what().to_owned() })?;
    let start = Instant::now();
    inner.pin_mut().parse_onnx(parser, name).map_err(|why| match why.what() {
        message if message.starts_with(REFUSED) => fail(message),
        message => EngineError::Library { path: parser.into(), message: message.to_owned() },
    })?;
    Ok(ParsedNetwork { inner, version: library.version(), parse_time: start.elapsed() })
}

impl ParsedNetwork {
    /// Layers that the parser made.
    pub fn layer_counts(&self) -> LayerCounts {
        let counts = self.inner.layer_counts();
        LayerCounts { all: counts.all, without_constants: counts.without_constants }
    }

    /// Names of the inputs whose values decide shapes.
    ///
    /// # Errors
    /// If TensorRT does not tell.
    pub fn shape_inputs(&self) -> Result<Vec<String>, EngineError> {
        self.inner.shape_inputs().map_err(|why| EngineError::Network { message: why.what().to_owned() })
    }

    /// Builds the engine.
    ///
    /// # Errors
    /// If a range is refused, or the build fails or is stopped.
    pub fn build(self, config: &BuilderConfig, progress: Option<&mut Progress<'_>>) -> Result<Plan, EngineError> {
        builder::build(self.inner, self.version, config, progress)
    }
}

/// The parser's file. TensorRT's own parser is named after the library's major version.
fn parser_beside(library: &Path, version: Version) -> Result<PathBuf, EngineError> {
    let names = match version.flavour {
        Flavour::TensorRtRtx => {
            let names = ["libtensorrt_onnxparser_rtx.so", "libnvonnxparser_rtx.so"];
            names.map(|name| format!("{name}.{}", version.major)).to_vec()
        }
        Flavour::TensorRt => vec![format!("libnvonnxparser.so.{}", version.major)],
    };
    let files = names.iter().map(|name| library.with_file_name(name));
    files.into_iter().find(|file| file.is_file()).ok_or_else(|| EngineError::NoParser { library: library.to_owned() })
}
