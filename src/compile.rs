//! The flow: a model is imported, optimised, emitted and built.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustc_hash::FxHashSet;
use trt_fuse_ir::{Capabilities, Graph, InputValues, Op, ValueRef, verify};
use trt_fuse_passes::{Pipeline, Remark, Report, Rewrite, Siblings, UnknownPass};

use crate::Error;
use crate::cache::EngineCache;
use crate::emit::record::Record;
use crate::emit::sink::{LayerCounts, NetworkSink};
use crate::emit::{EmitError, Unsupported, emit};
use crate::import::{ImportOptions, Model, import_file};
use crate::notes::{Note, target_notes, type_note, value_notes};
use crate::ranges::{Range, RangeError, check_integers, check_once, check_ranges, fixed_values, profile};
use crate::runtime::Device;
use crate::tensorrt::{
    BuilderConfig, EngineError, Flavour, InputRange, Library, Plan, Profile, Progress, RangeKind, Search, TrtNetwork,
    parse_onnx,
};

/// Which passes run.
#[derive(Debug, Clone, Default)]
pub struct PassSelection {
    /// Only these, if any are named.
    pub only: Option<Vec<String>>,
    /// Not these.
    pub skip: Vec<String>,
    /// No further than this many runs of passes.
    pub stop_after: Option<usize>,
    /// Which sibling products and convolutions become one.
    pub siblings: Siblings,
}

impl PassSelection {
    /// The standard pipeline, as far as it is selected, for a build that may compute f32 in f16 or not.
    pub(crate) fn pipeline(&self, capabilities: &Capabilities, half: bool) -> Result<Pipeline, UnknownPass> {
        let options = trt_fuse_passes::Options { siblings: self.siblings, half, ..Default::default() };
        let mut pipeline = Pipeline::standard(capabilities).with_options(options);
        if let Some(names) = &self.only {
            pipeline = pipeline.only(names)?;
        }
        for name in &self.skip {
            pipeline = pipeline.without(name)?;
        }
        Ok(match self.stop_after {
            Some(runs) => pipeline.stop_after(runs),
            None => pipeline,
        })
    }
}

/// How a model becomes an engine.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// How the model is read.
    pub import: ImportOptions,
    /// Which passes run.
    pub passes: PassSelection,
    /// What the target can express; the opened library's own, or the newest TensorRT-RTX if none was opened.
    pub capabilities: Option<Capabilities>,
    /// The TensorRT library, or the folder that it is in; searched for if absent.
    pub library: Option<PathBuf>,
    /// Ranges of the inputs' symbolic dimensions, and of values; see [`Options::with_ranges`].
    pub ranges: Vec<Range>,
    /// How the engine is built. Profiles are made from `ranges`.
    pub build: BuilderConfig,
    /// A folder of engines built before, which is made if it is not there. An engine is taken from it where the network,
    /// its weights, the ranges, the build's options, TensorRT and the GPU are the same.
    pub engine_cache: Option<PathBuf>,
}

impl Options {
    /// With these ranges in place of those that there were. A dimension of one size is no symbol, and an input of one value
    /// in each element a constant: both are told to the import, beside what it was told already, so that what follows from
    /// them is known to the passes.
    ///
    /// ```
    /// let ranges = ["batch=1:8:32", "seq=128", "sr[0]=16000"].map(|range| range.parse());
    /// let ranges = ranges.into_iter().collect::<Result<_, _>>()?;
    /// let options = trt_fuse::Options::default().with_ranges(ranges)?;
    /// assert_eq!(options.import.sizes["seq"], 128);
    /// # Ok::<(), trt_fuse::RangeError>(())
    /// ```
    ///
    /// # Errors
    /// If two ranges speak of the same.
    pub fn with_ranges(mut self, ranges: Vec<Range>) -> Result<Self, RangeError> {
        check_once(&ranges)?;
        let is_size = |range: &Range| range.min == range.max && !range.symbol.ends_with(']');
        let (sizes, ranges): (Vec<Range>, Vec<Range>) = ranges.into_iter().partition(is_size);
        self.import.values.extend(fixed_values(&ranges));
        self.import.sizes.extend(sizes.into_iter().map(|range| (range.symbol, range.min)));
        self.ranges = ranges;
        Ok(self)
    }
}

/// Times that the stages took.
#[derive(Debug, Clone, Copy, Default)]
pub struct Timings {
    /// Reading the model.
    pub import: Duration,
    /// All passes.
    pub optimize: Duration,
    /// Making the network.
    pub emit: Duration,
    /// Building the engine.
    pub build: Duration,
}

/// An optimised graph, and how it came about.
#[derive(Debug)]
pub struct Optimized {
    /// The graph.
    pub graph: Graph,
    /// What the passes did.
    pub report: Report,
    /// What import took on trust, or not as the model says.
    pub notes: Vec<Note>,
}

/// Takes an ONNX model to a TensorRT engine.
///
/// # Errors
/// What is wrong with the model, what the target cannot express, or why TensorRT did not build.
pub fn optimize_and_build(onnx: impl AsRef<Path>) -> Result<Plan, Error> {
    let options = Options::default();
    let library = open_library(&options)?;
    let model = import_file(onnx.as_ref(), &options.import)?;
    let optimized = optimize(model, &options)?;
    build(&optimized.graph, &library, &options, None).map(|built| built.plan)
}

/// Opens the TensorRT library that the options name, or searches for one.
///
/// # Errors
/// If none is found, with the places that were tried.
pub fn open_library(options: &Options) -> Result<Library, Error> {
    Ok(Search::usual(options.library.as_deref()).open()?)
}

/// Runs the passes over a model's graph.
///
/// # Errors
/// If the graph does not verify, a pass was named that does not exist, or a pass has a bug.
pub fn optimize(model: Model, options: &Options) -> Result<Optimized, Error> {
    optimize_with(model, options, false)
}

/// As [`optimize`]; every rewrite is in the report if `traced`.
pub(crate) fn optimize_with(model: Model, options: &Options, traced: bool) -> Result<Optimized, Error> {
    verify(&model.graph)?;
    let capabilities = options.capabilities.clone().unwrap_or_default();
    let pipeline = options.passes.pipeline(&capabilities, options.build.fp16)?;
    let (graph, report) = if traced { pipeline.trace(model.graph, usize::MAX) } else { pipeline.run(model.graph) }?;
    Ok(Optimized { graph, report, notes: model.notes.into_iter().map(Note::Import).collect() })
}

/// Writes a graph's network down as text, without TensorRT.
///
/// # Errors
/// If the target cannot express a node: all such nodes are named.
pub fn record(graph: &Graph, options: &Options) -> Result<(Record, LayerCounts), Error> {
    recorded(graph, &options.capabilities.clone().unwrap_or_default()).map(|(sink, counts, _)| (sink, counts))
}

/// The network as text, its layers, and the lowered graph.
fn recorded(graph: &Graph, capabilities: &Capabilities) -> Result<(Record, LayerCounts, Graph), Error> {
    let lowered = Lowered::of(graph, capabilities)?;
    let mut sink = Record::new();
    let counts = lowered.emit(capabilities, &mut sink)?;
    Ok((sink, counts, lowered.graph))
}

/// The layers of a graph's network, and what the target makes of the model's types.
pub(crate) fn counted(graph: &Graph, options: &Options) -> Result<(LayerCounts, Vec<Note>), Error> {
    let capabilities = options.capabilities.clone().unwrap_or_default();
    let (_, counts, lowered) = recorded(graph, &capabilities)?;
    Ok((counts, target_notes(graph, &lowered, &capabilities, &options.ranges)))
}

/// As [`record`], with the rewrites of the lowering.
pub(crate) fn record_traced(graph: &Graph, options: &Options) -> Result<(Record, Vec<Rewrite>), Error> {
    let capabilities = options.capabilities.clone().unwrap_or_default();
    verify(graph)?;
    let (graph, report) = Pipeline::lowering_of(graph, &capabilities).trace(graph.clone(), usize::MAX)?;
    let mut sink = Record::new();
    Lowered { graph, remarks: report.remarks }.emit(&capabilities, &mut sink)?;
    Ok((sink, report.trace))
}

/// A graph in operators that the target has layers for, and why some were left as they are.
pub(crate) struct Lowered {
    pub(crate) graph: Graph,
    remarks: Vec<Remark>,
}

impl Lowered {
    pub(crate) fn of(graph: &Graph, capabilities: &Capabilities) -> Result<Self, Error> {
        verify(graph)?;
        let (graph, report) = Pipeline::lowering_of(graph, capabilities).run(graph.clone())?;
        Ok(Self { graph, remarks: report.remarks })
    }

    /// Makes the network. A node that is refused because lowering left it has lowering's reason: that the target has no
    /// layer for it tells less.
    fn emit<'g, S: NetworkSink<'g>>(&'g self, capabilities: &Capabilities, sink: &mut S) -> Result<LayerCounts, Error> {
        let refused = match emit(verify(&self.graph)?, capabilities, sink) {
            Err(EmitError::Unsupported(nodes)) => nodes,
            other => return Ok(other?),
        };
        let told = |node: Unsupported| match self.remarks.iter().find(|remark| *remark.node == *node.node) {
            Some(remark) => Unsupported { reason: remark.reason.clone(), ..node },
            None => node,
        };
        Err(EmitError::Unsupported(refused.into_iter().map(told).collect()).into())
    }
}

/// A built engine and what was seen on the way.
#[derive(Debug)]
pub struct Built {
    /// The engine.
    pub plan: Plan,
    /// Layers of the network that was built.
    pub layers: LayerCounts,
    /// Time to make the network.
    pub emit: Duration,
    /// Time to build the engine.
    pub build: Duration,
    /// What differs from the graph or was chosen for the user.
    pub notes: Vec<Note>,
    /// Whether it was taken from the engine cache.
    pub cached: bool,
}

/// Makes a graph's network in TensorRT and builds the engine.
///
/// # Errors
/// If the target cannot express a node, a symbol has no range, or TensorRT refuses.
pub fn build(
    graph: &Graph,
    library: &Library,
    options: &Options,
    progress: Option<&mut Progress<'_>>,
) -> Result<Built, Error> {
    let capabilities = options.capabilities.clone().unwrap_or_else(|| library.capabilities());
    check_ranges(graph, &options.ranges)?;
    let start = Instant::now();
    let lowered = Lowered::of(graph, &capabilities)?;
    // An engine read from a file does not tell of its layers.
    let cache = options.engine_cache.as_deref().filter(|_| !options.build.detailed).map(EngineCache::new);
    let mut missed = None;
    if let Some(cache) = &cache {
        let mut record = Record::new();
        let layers = lowered.emit(&capabilities, &mut record)?;
        let place = cache.place(graph, &record, options, &builder_of(library)?);
        let emit = start.elapsed();
        let found = cache.find(&place);
        if let Ok(Some(plan)) = found {
            let notes =
                plan.header().notes.iter().filter_map(|note| serde_json::from_value(note.clone()).ok()).collect();
            return Ok(Built { plan, layers, emit, build: start.elapsed() - emit, notes, cached: true });
        }
        missed = Some((cache, place, found.err()));
    }
    let mut network = TrtNetwork::new(library)?;
    let layers = lowered.emit(&capabilities, &mut network)?;
    let emit = start.elapsed();

    let mut config = options.build.clone();
    config.profiles = profile(graph, &options.ranges, &network.shape_inputs()?)?.into_iter().collect();
    let bounds = check_integers(&lowered.graph, &capabilities, &options.ranges, &config.profiles)?;
    let mut notes: Vec<Note> = type_note(graph, &capabilities).into_iter().collect();
    notes.extend(config.profiles.iter().flat_map(|profile| value_notes(profile, &options.ranges)));
    let start = Instant::now();
    let gpu = gpu_of(library)?;
    let mut plan = network.build(&config, progress).map_err(|why| with_cure(why, &config.profiles))?;
    describe(&mut plan, graph, gpu.as_deref());
    plan.header.bounds = bounds;
    fix(&mut plan, graph);
    plan.header.notes = notes.iter().filter_map(|note| serde_json::to_value(note).ok()).collect();
    notes.extend(timing_note(&plan, &config));
    if let Some((cache, place, unread)) = missed {
        let unkept = cache.keep(&place, &plan).err().map(|why| why.to_string());
        let reasons = unread.map(|why| why.to_string()).into_iter().chain(unkept);
        notes.extend(reasons.map(|reason| Note::Cache { file: place.clone(), reason }));
    }
    Ok(Built { plan, layers, emit, build: start.elapsed(), notes, cached: false })
}

/// Builds a model through NVIDIA's own ONNX parser, to compare with.
///
/// # Errors
/// If there is no parser beside the library, or it or TensorRT refuses the model.
pub fn build_with_parser(
    path: &Path,
    library: &Library,
    options: &Options,
    progress: Option<&mut Progress<'_>>,
) -> Result<Built, Error> {
    // The parser takes the model as it is, fixed sizes as ranges.
    let import = ImportOptions { sizes: BTreeMap::new(), values: BTreeMap::new(), ..options.import.clone() };
    let graph = import_file(path, &import)?.graph;
    let fixed = options.import.sizes.iter();
    let fixed = fixed.map(|(symbol, size)| Range { symbol: symbol.clone(), min: *size, opt: *size, max: *size });
    let ranges: Vec<Range> = options.ranges.iter().cloned().chain(fixed).collect();
    let parsed = parse_onnx(library, path)?;
    let layers = parsed.layer_counts();
    let emit = parsed.parse_time;
    let mut config = options.build.clone();
    config.profiles = profile(&graph, &ranges, &parsed.shape_inputs()?)?.into_iter().collect();
    let start = Instant::now();
    let gpu = gpu_of(library)?;
    let mut plan = parsed.build(&config, progress)?;
    describe(&mut plan, &graph, gpu.as_deref());
    if !options.import.values.is_empty() {
        // It reads what ours knows, and is to be given the same.
        fix(&mut plan, &import_file(path, &options.import)?.graph);
    }
    let notes = timing_note(&plan, &config).into_iter().collect();
    Ok(Built { plan, layers, emit, build: start.elapsed(), notes, cached: false })
}

/// Why the timing cache was of no use.
fn timing_note(plan: &Plan, config: &BuilderConfig) -> Option<Note> {
    Some(Note::Cache { file: config.timing_cache.clone()?, reason: plan.timing_refusal.clone()? })
}

/// What builds, as far as it decides what is built.
fn builder_of(library: &Library) -> Result<String, Error> {
    let version = library.version();
    Ok(match version.flavour {
        Flavour::TensorRt => format!("{version} on {:?}", Device::open(0)?),
        // For the generations of GPUs in the build's options.
        Flavour::TensorRtRtx => version.to_string(),
    })
}

/// The GPU that TensorRT builds on, made that of this thread, which may have run an engine on another; none for
/// TensorRT-RTX, which builds on none.
fn gpu_of(library: &Library) -> Result<Option<Arc<Device>>, Error> {
    if library.version().flavour == Flavour::TensorRtRtx {
        return Ok(None);
    }
    let gpu = Device::open(0)?;
    gpu.bind()?;
    Ok(Some(gpu))
}

/// Tells in a plan's header from which graph it was built, and for which GPU if that is this machine's.
fn describe(plan: &mut Plan, graph: &Graph, gpu: Option<&Device>) {
    plan.header.describe(graph);
    if let Some(gpu) = gpu {
        plan.header.gpus = vec![gpu.capability().to_string()];
    }
}

/// A refusal of TensorRT, with what may help where values of inputs decide shapes: it takes few networks in which they do.
fn with_cure(why: EngineError, profiles: &[Profile]) -> EngineError {
    let mut ranges = profiles.iter().flat_map(|profile| &profile.ranges);
    match (why, ranges.find(|range| range.kind == RangeKind::Values)) {
        (EngineError::Build { message }, Some(InputRange { input, .. })) => EngineError::Build {
            message: format!(
                "{message}; if the values of `{input}` are always the same, fix them: --range '{input}[0]=1'"
            ),
        },
        (why, _) => why,
    }
}

/// Has runs check inputs whose values were taken for constants.
fn fix(plan: &mut Plan, graph: &Graph) {
    for (input, values) in graph.fixed_inputs() {
        let name = input.to_string();
        match values {
            InputValues::All(element) => drop(plan.header.bounds.insert(name, (*element, *element))),
            InputValues::Each(values) => drop(plan.header.values.insert(name, (values.clone(), values.clone()))),
        }
    }
}

/// The nodes of a graph that the target cannot express, without TensorRT.
///
/// # Errors
/// If the network cannot be made for another reason.
pub fn unsupported(graph: &Graph, options: &Options) -> Result<Vec<Unsupported>, Error> {
    match record(graph, options) {
        Ok(_) => Ok(Vec::new()),
        Err(Error::Emit(EmitError::Unsupported(nodes))) => Ok(nodes),
        Err(error) => Err(error),
    }
}

/// The nodes that import found no typed form for, those in the bodies of control flow too. One that has none
/// because it knows nothing of what another of them gives is left out: it cannot be judged.
pub fn unsupported_nodes(graph: &Graph) -> Vec<Unsupported> {
    let mut found = Vec::new();
    let mut unjudged = FxHashSet::default();
    for id in graph.live() {
        let Some(node) = graph.node(id) else { continue };
        let follows = graph.node_inputs(id).into_iter().flatten().any(|input| unjudged.contains(&input));
        if let Op::Opaque(opaque) = &node.op {
            let source = graph.origins(id).next();
            let refused = Unsupported {
                node: source.map_or(&node.name, |source| &source.name).to_string(),
                op: node.op.to_string(),
                attribute: opaque.attribute.clone(),
                reason: opaque.reason.clone(),
            };
            if !(follows && refused.is_for_lack_of_knowledge()) {
                found.push(refused);
            }
        }
        if follows || matches!(node.op, Op::Opaque(_)) {
            let unshaped = (0..).zip(&node.outputs).filter(|(_, value)| value.info.shape.is_none());
            unjudged.extend(unshaped.map(|(slot, _)| ValueRef { node: id, slot }));
        }
        found.extend(node.op.bodies().iter().flat_map(|body| unsupported_nodes(&body.0)));
    }
    found
}
