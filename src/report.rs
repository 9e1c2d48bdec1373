//! What `fuse-report` tells, as data. The JSON keys are stable.

mod bisect;
mod layout;
mod page;

mod provenance;
mod remarks;

use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};

use serde::Serialize;
use trt_fuse_ir::Graph;
use trt_fuse_passes::{PassReport, Remark, Rewrite, count_ops};

use crate::compile::{build_with_parser, counted, optimize_with};
use crate::emit::sink::LayerCounts;
use crate::import::{Model, import_file};
use crate::notes::Note;
use crate::tensorrt::{EngineError, EngineLayer, Library, Progress, parse_onnx};
use crate::{Error, Options, build};

pub use bisect::{Bisection, Culprit, InputError, StageLine, bisect, bisect_pipelines, read_inputs};
pub use layout::{Layout, layout};
pub use page::{page, write_page};

pub use provenance::{GraphNode, LayerOrigin, NetworkLayer, NodeFate, OnnxNode, Provenance, UnknownName};
pub use remarks::{RemarkGroup, group_remarks, remarks_text};

/// Everything that was seen of a model on its way.
#[derive(Debug, Serialize)]
pub struct FuseReport {
    /// The model.
    pub model: ModelLine,
    /// Number of nodes; constants are none.
    pub nodes: BeforeAfter<usize>,
    /// Number of nodes by type: ONNX types before, the graph's operators after.
    pub ops: BeforeAfter<BTreeMap<String, usize>>,
    /// Runs of passes.
    pub passes: Vec<PassReport>,
    /// Layers of the network and, if it was built, of the engine.
    pub layers: Layers,
    /// The engine's layers, if it was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine: Option<Engine>,
    /// The same model through NVIDIA's parser, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser: Option<Parser>,
    /// Why the parser or the build of its network refused the model, if that was asked for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parser_refusal: Option<String>,
    /// How long the stages took.
    pub timings_ms: Timings,
    /// What differs from the model or was chosen for the user.
    pub notes: Vec<Note>,
    /// Rewrites that nearly applied.
    pub remarks: Vec<Remark>,
    /// The same by rule and reason, the largest groups first.
    pub remark_groups: Vec<RemarkGroup>,
}

/// A model in a line.
#[derive(Debug, Serialize)]
pub struct ModelLine {
    /// Its file.
    pub file: String,
    /// Size of the file in bytes, external data left out.
    pub bytes: u64,
    /// The program that wrote it.
    pub producer: String,
    /// Its opset of ONNX's own operators.
    pub opset: Option<i64>,
    /// Name and type of each input.
    pub inputs: Vec<String>,
    /// Name and type of each output.
    pub outputs: Vec<String>,
}

/// Something before and after the passes.
#[derive(Debug, Serialize)]
pub struct BeforeAfter<T> {
    /// Before.
    pub before: T,
    /// After.
    pub after: T,
}

/// Numbers of layers.
#[derive(Debug, Clone, Copy, Serialize)]
pub struct Layers {
    /// All layers of the network.
    pub all: usize,
    /// Those that are no constants.
    pub without_constants: usize,
    /// Layers of the engine, if it was built.
    pub engine: Option<usize>,
}

impl Layers {
    fn of(counts: LayerCounts, engine: Option<usize>) -> Self {
        Self { all: counts.all, without_constants: counts.without_constants, engine }
    }
}

/// A built engine.
#[derive(Debug, Serialize)]
pub struct Engine {
    /// The library that built it.
    pub library: String,
    /// Size of the plan in bytes.
    pub plan_bytes: usize,
    /// Its layers.
    pub layers: Vec<EngineLayerLine>,
}

/// A layer of an engine.
#[derive(Debug, Serialize)]
pub struct EngineLayerLine {
    /// Its name.
    pub name: String,
    /// TensorRT's type of it.
    #[serde(rename = "type")]
    pub layer_type: String,
    /// The ONNX nodes in it.
    pub onnx_nodes: Vec<String>,
}

impl From<&EngineLayer> for EngineLayerLine {
    fn from(layer: &EngineLayer) -> Self {
        Self { name: layer.name.clone(), layer_type: layer.layer_type.clone(), onnx_nodes: layer.origins.clone() }
    }
}

/// The same model through NVIDIA's parser.
#[derive(Debug, Serialize)]
pub struct Parser {
    /// Layers that it makes.
    #[serde(flatten)]
    pub layers: Layers,
    /// Time to parse, in milliseconds.
    pub parse_ms: f64,
    /// Time to build, in milliseconds.
    pub build_ms: Option<f64>,
}

/// Times of the stages, in milliseconds.
#[derive(Debug, Clone, Copy, Default, Serialize)]
pub struct Timings {
    /// Reading the model.
    pub import: f64,
    /// All passes.
    pub optimize: f64,
    /// Making the network: TensorRT's if it was built, else the recorded one.
    pub emit: f64,
    /// Building the engine.
    pub build: Option<f64>,
}

/// What a report is to hold.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// Build the engine.
    pub build: bool,
    /// Take the model through NVIDIA's parser too, and build that if the engine is built.
    pub parser: bool,
    /// Keep the graph as it was imported, and every rewrite.
    pub trace: bool,
}

/// A report, and the graphs that it is about.
#[derive(Debug)]
pub struct Reported {
    /// The report.
    pub report: FuseReport,
    /// The optimised graph.
    pub graph: Graph,
    /// The graph as it was imported, if it was asked for.
    pub imported: Option<Graph>,
    /// Every rewrite of the standard passes, if they were asked for.
    pub trace: Vec<Rewrite>,
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}

/// Takes a model through the flow and writes down what is seen.
///
/// # Errors
/// Those of the flow.
pub fn fuse_report(
    path: &Path,
    options: &Options,
    wanted: Wanted,
    progress: Option<&mut Progress<'_>>,
) -> Result<Reported, Error> {
    fuse_report_with(path, options, wanted, progress).map(|(reported, _)| reported)
}

/// As [`fuse_report`], with the options that it came to: what the target can express is the library's own, if one was
/// opened.
fn fuse_report_with(
    path: &Path,
    options: &Options,
    wanted: Wanted,
    progress: Option<&mut Progress<'_>>,
) -> Result<(Reported, Options), Error> {
    let library = if wanted.build || wanted.parser { Some(crate::open_library(options)?) } else { None };
    let mut options = options.clone();
    if let (None, Some(library)) = (&options.capabilities, &library) {
        options.capabilities = Some(library.capabilities());
    }
    options.build.detailed = true;

    let start = Instant::now();
    let model = import_file(path, &options.import)?;
    let mut timings = Timings { import: ms(start.elapsed()), ..Timings::default() };
    let line = model_line(path, &model);
    let before = source_counts(&model.graph);
    let imported = wanted.trace.then(|| model.graph.clone());

    let start = Instant::now();
    let optimized = optimize_with(model, &options, wanted.trace)?;
    timings.optimize = ms(start.elapsed());
    let graph = optimized.graph;

    let (counts, engine, notes) = match &library {
        Some(library) if wanted.build => {
            let built = build(&graph, library, &options, progress)?;
            (timings.emit, timings.build) = (ms(built.emit), Some(ms(built.build)));
            let layers = built.plan.layers().iter().map(EngineLayerLine::from).collect();
            let plan_bytes = built.plan.bytes().len();
            let engine = Engine { library: library.version().to_string(), plan_bytes, layers };
            (built.layers, Some(engine), built.notes)
        }
        _ => {
            let start = Instant::now();
            let (counts, notes) = counted(&graph, &options)?;
            timings.emit = ms(start.elapsed());
            (counts, None, notes)
        }
    };
    let (parser, parser_refusal) = match &library {
        Some(library) if wanted.parser => refused(through_parser(path, library, &options, wanted.build))?,
        _ => (None, None),
    };
    let layers = Layers::of(counts, engine.as_ref().map(|engine| engine.layers.len()));
    let report = FuseReport {
        model: line,
        nodes: BeforeAfter { before: before.values().sum(), after: graph.operation_count() },
        ops: BeforeAfter { before, after: count_ops(&graph) },
        passes: optimized.report.passes,
        layers,
        engine,
        parser,
        parser_refusal,
        timings_ms: timings,
        notes: optimized.notes.into_iter().chain(notes).collect(),
        remark_groups: group_remarks(&optimized.report.remarks),
        remarks: optimized.report.remarks,
    };
    Ok((Reported { report, graph, imported, trace: optimized.report.trace }, options))
}

fn through_parser(path: &Path, library: &Library, options: &Options, engine: bool) -> Result<Parser, Error> {
    if !engine {
        let parsed = parse_onnx(library, path)?;
        let layers = Layers::of(parsed.layer_counts(), None);
        return Ok(Parser { layers, parse_ms: ms(parsed.parse_time), build_ms: None });
    }
    let built = build_with_parser(path, library, options, None)?;
    let layers = Layers::of(built.layers, Some(built.plan.layers().len()));
    Ok(Parser { layers, parse_ms: ms(built.emit), build_ms: Some(ms(built.build)) })
}

/// What the parser made, or why it refused: that is a result, too.
fn refused(parser: Result<Parser, Error>) -> Result<(Option<Parser>, Option<String>), Error> {
    match parser {
        Ok(parser) => Ok((Some(parser), None)),
        Err(Error::Engine(
            EngineError::Parser { message, .. } | EngineError::Build { message } | EngineError::Range { message, .. },
        )) => Ok((None, Some(message.split_whitespace().collect::<Vec<_>>().join(" ")))),
        // The parser takes the model without what is fixed for ours.
        Err(error @ (Error::Import(_) | Error::Range(_))) => Ok((None, Some(error.to_string()))),
        Err(other) => Err(other),
    }
}

/// The ONNX nodes of a model by type; constants written as nodes are none.
fn source_counts(graph: &Graph) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for source in graph.sources().iter().filter(|source| &*source.op_type != "Constant") {
        *counts.entry(source.op_type.to_string()).or_insert(0) += 1;
    }
    counts
}

fn model_line(path: &Path, model: &Model) -> ModelLine {
    let graph = &model.graph;
    let shown = |name: &str, info: Option<&trt_fuse_ir::ValueInfo>| match info {
        Some(info) => format!("{name}: {info}"),
        None => name.to_string(),
    };
    ModelLine {
        file: path.display().to_string(),
        bytes: std::fs::metadata(path).map_or(0, |metadata| metadata.len()),
        producer: model.producer.clone(),
        opset: model.opsets.get("").copied(),
        inputs: graph
            .inputs()
            .iter()
            .filter_map(|id| graph.value((*id).into()))
            .map(|value| shown(&value.name, Some(&value.info)))
            .collect(),
        outputs: graph.outputs().iter().map(|output| shown(&output.name, graph.info(output.value))).collect(),
    }
}
