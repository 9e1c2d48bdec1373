//! ONNX's own tests: a folder each, with `model.onnx` and `test_data_set_0/{input,output}_N.pb`.
//!
//! The evaluator's outputs are compared with the expected ones: those of the graph as imported, after the standard passes
//! and after the lowering for the target. The network can be built, which makes TensorRT check every shape.

use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use trt_fuse_ir::eval::{convert, eval_graph};
use trt_fuse_ir::{Capabilities, DType, Graph, Op, Tensor, ValueRef};

use crate::compile::Lowered;
use crate::import::{InputValues, import_file, read_tensor};
use crate::ranges::is_checked;
use crate::runtime::{Engine, SessionOptions};
use crate::tensorrt::{Library, Plan};
use crate::{Error, ErrorKind, Options, Range, build, optimize};

/// Relative tolerance of ONNX's tests.
const RELATIVE: f64 = 1e-3;
/// The same for bfloat16: two units in its last place.
const RELATIVE_BF16: f64 = 1.0 / 64.0;
/// Absolute tolerance of ONNX's tests.
const ABSOLUTE: f64 = 1e-7;

/// Values of an input that shapes may follow from.
const MOST_VALUES: usize = 64;

/// How a test ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Verdict {
    /// As expected.
    Pass,
    /// Another result than expected.
    Wrong,
    /// Not supported, and said so.
    Unsupported,
    /// An error.
    Error,
    /// A panic: a bug.
    Panic,
    /// Not tried.
    Skipped,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Pass => "pass",
            Self::Wrong => "WRONG",
            Self::Unsupported => "unsupported",
            Self::Error => "error",
            Self::Panic => "PANIC",
            Self::Skipped => "-",
        })
    }
}

/// The result of one test.
#[derive(Debug, Clone)]
pub struct CaseResult {
    /// The folder's name.
    pub name: String,
    /// The evaluator against the expected outputs, at every stage before the build.
    pub eval: Verdict,
    /// The build, and the engine's outputs if it was run.
    pub build: Verdict,
    /// Why not, for the first that did not pass; one line.
    pub reason: String,
}

/// The tests in a folder: it, or the folders in it that hold a `model.onnx`, by name.
///
/// # Errors
/// If the folder cannot be read.
pub fn cases(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    if folder.join("model.onnx").is_file() {
        return Ok(vec![folder.to_owned()]);
    }
    let mut cases = Vec::new();
    for entry in std::fs::read_dir(folder)? {
        let path = entry?.path();
        if path.join("model.onnx").is_file() {
            cases.push(path);
        }
    }
    cases.sort();
    Ok(cases)
}

/// How far a test goes after the evaluator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// The network is built.
    Build,
    /// The engine runs on the first GPU, its outputs are compared too.
    Run,
}

/// Runs one test with these options; builds, or runs on the GPU, too if there is a library, whose target the graph is then
/// lowered for. Without one that is the options' target.
pub fn run_case(case: &Path, target: Option<(&Library, Reach)>, options: &Options) -> CaseResult {
    let library = target.map(|(library, _)| library);
    let name = case.file_name().map_or_else(|| case.display().to_string(), |name| name.to_string_lossy().into_owned());
    let capabilities = match (library, &options.capabilities) {
        (Some(library), _) => library.capabilities(),
        (None, Some(capabilities)) => capabilities.clone(),
        (None, None) => Capabilities::default(),
    };
    let options = Options { capabilities: Some(capabilities.clone()), ..options.clone() };
    let (eval, eval_reason) = contained(|| evaluate(case, &options, &capabilities).map(|()| ""));
    let (build, build_reason) = match target {
        Some((library, reach)) => contained(|| try_build(case, library, reach, &options)),
        None => (Verdict::Skipped, String::new()),
    };
    let reason = if eval_reason.is_empty() { build_reason } else { eval_reason };
    CaseResult { name, eval, build, reason: reason.replace(['\n', '\t'], " ") }
}

/// A panic is a bug, and must not end the run.
fn contained(run: impl FnOnce() -> Result<&'static str, (Verdict, String)>) -> (Verdict, String) {
    match catch_unwind(AssertUnwindSafe(run)) {
        Ok(Ok(how)) => (Verdict::Pass, how.to_owned()),
        Ok(Err(failure)) => failure,
        Err(panic) => {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
            (Verdict::Panic, text.unwrap_or_else(|| "a panic".to_string()))
        }
    }
}

fn failure(error: impl Into<Error>) -> (Verdict, String) {
    let error = error.into();
    let verdict = if error.kind() == ErrorKind::Unsupported { Verdict::Unsupported } else { Verdict::Error };
    (verdict, error.to_string())
}

/// Compares with the expected outputs what the graph gives at each stage.
fn evaluate(case: &Path, options: &Options, capabilities: &Capabilities) -> Result<(), (Verdict, String)> {
    let model = import_file(&case.join("model.onnx"), &options.import).map_err(failure)?;
    let opaque = crate::unsupported_nodes(&model.graph);
    if let Some(node) = opaque.first() {
        return Err((Verdict::Unsupported, format!("{}: {}", node.op, node.reason)));
    }
    let data = case.join("test_data_set_0");
    let inputs = read_all(&data, "input", model.graph.inputs().len())?;
    let expected = read_all(&data, "output", model.graph.outputs().len())?;
    compare(&model.graph, &inputs, &expected, "")?;
    let optimized = optimize(model, options).map_err(failure)?;
    compare(&optimized.graph, &inputs, &expected, "after the standard passes: ")?;
    let lowered = Lowered::of(&optimized.graph, capabilities).map_err(failure)?.graph;
    let expected: Vec<Tensor> = expected.into_iter().map(|tensor| in_range(tensor, capabilities)).collect();
    compare(&lowered, &inputs, &expected, "after the lowering: ")
}

/// What the target makes of an output that it computes in a type of a narrower range: infinities beyond that.
fn in_range(tensor: Tensor, capabilities: &Capabilities) -> Tensor {
    let dtype = tensor.dtype();
    let narrowed = match capabilities.computed_in(dtype) {
        Some(computed) if dtype == DType::F64 => convert(&tensor, computed).and_then(|tensor| convert(&tensor, dtype)),
        _ => return tensor,
    };
    narrowed.unwrap_or(tensor)
}

/// Evaluates a graph and compares; `stage` begins the reason.
fn compare(graph: &Graph, inputs: &[Tensor], expected: &[Tensor], stage: &str) -> Result<(), (Verdict, String)> {
    let found = eval_graph(graph, inputs).map_err(|error| (Verdict::Error, format!("{stage}{error}")))?;
    for (at, (expected, found)) in expected.iter().zip(&found).enumerate() {
        if let Some(difference) = difference(expected, found) {
            return Err((Verdict::Wrong, format!("{stage}output {at}: {difference}")));
        }
    }
    Ok(())
}

fn read_all(data: &Path, kind: &str, count: usize) -> Result<Vec<Tensor>, (Verdict, String)> {
    (0..count).map(|at| read_tensor(&data.join(format!("{kind}_{at}.pb"))).map_err(failure)).collect()
}

/// What differs beyond the tolerance, if anything does.
fn difference(expected: &Tensor, found: &Tensor) -> Option<String> {
    if expected.dtype() != found.dtype() || expected.dims() != found.dims() {
        return Some(format!("{found:?} where {expected:?} was expected"));
    }
    let (Some(a), Some(b)) = (floats(expected), floats(found)) else {
        return (expected != found).then(|| "other values".to_string());
    };
    let relative = if expected.dtype() == DType::BF16 { RELATIVE_BF16 } else { RELATIVE };
    let wrong = a.iter().zip(&b).enumerate().find(|(_, (a, b))| {
        let same = a == b || (a.is_nan() && b.is_nan());
        let gap = (*a - *b).abs();
        !same && (!a.is_finite() || gap.is_nan() || gap > ABSOLUTE + relative * a.abs())
    });
    wrong.map(|(at, (a, b))| format!("element {at} is {b}, {a} was expected"))
}

fn floats(tensor: &Tensor) -> Option<Vec<f64>> {
    matches!(tensor.dtype(), DType::F32 | DType::F16 | DType::BF16 | DType::F64).then(|| tensor.to_f64s()).flatten()
}

fn values_of(graph: &Graph, inputs: &[Tensor]) -> Vec<Range> {
    let names = graph.inputs().iter().filter_map(|id| graph.value((*id).into())).map(|value| &value.name);
    let integers = names.zip(inputs).filter(|(_, tensor)| tensor.dtype().is_integer() && tensor.rank() <= 1);
    let ranges = integers.flat_map(|(name, tensor)| {
        let values = tensor.to_i64s().unwrap_or_default();
        let range = move |(at, value)| Range { symbol: format!("{name}[{at}]"), min: value, opt: value, max: value };
        values.into_iter().take(MOST_VALUES).enumerate().map(range)
    });
    ranges.collect()
}

/// What the integers of a test hold, on which the proof that all fit the target's type may rest.
fn bounds_of(graph: &Graph, inputs: &[Tensor]) -> Vec<Range> {
    let names = graph.inputs().iter().filter_map(|id| graph.value((*id).into())).map(|value| &value.name);
    let integers = names.zip(inputs).filter(|(_, tensor)| is_checked(tensor.dtype()));
    let bounds = integers.filter_map(|(name, tensor)| {
        let elements = tensor.to_i64s()?;
        let (min, max) = (elements.iter().copied().min()?, elements.iter().copied().max()?);
        Some(Range { symbol: format!("{name}[]"), min, opt: min, max })
    });
    bounds.collect()
}

/// How a test was right whose network TensorRT took only so.
const KNOWN: &str = "with the values of its integer inputs known beforehand";

/// Builds, and runs if asked to: once more with the values of integer inputs known, as users may fix them, where TensorRT
/// does not take axes and the like as inputs.
fn try_build(
    case: &Path,
    library: &Library,
    reach: Reach,
    options: &Options,
) -> Result<&'static str, (Verdict, String)> {
    let graph = optimized(case, options)?;
    if reach == Reach::Build {
        return build(&graph, library, options, None).map(|_| "").map_err(failure);
    }
    let data = case.join("test_data_set_0");
    let inputs = read_all(&data, "input", graph.inputs().len())?;
    let mut stated = options.clone();
    stated.ranges.extend(values_of(&graph, &inputs));
    stated.ranges.extend(bounds_of(&graph, &inputs));
    let refused = match build(&graph, library, &stated, None) {
        Ok(built) => return run(&data, &graph, &inputs, library, &built.plan).map(|()| ""),
        Err(refused) => failure(refused),
    };
    let names = graph.inputs().iter().filter_map(|id| graph.value((*id).into())).map(|value| value.name.to_string());
    let integers = names.zip(&inputs).filter(|(_, tensor)| !tensor.dtype().is_float());
    let few = integers.filter(|(_, tensor)| tensor.numel() <= MOST_VALUES);
    stated.import.values =
        few.filter_map(|(name, tensor)| Some((name, InputValues::Each(tensor.to_i64s()?)))).collect();
    if stated.import.values.is_empty() {
        return Err(refused);
    }
    let Ok(graph) = optimized(case, &stated) else { return Err(refused) };
    let is_input = |value: &ValueRef| matches!(graph.op(value.node), Some(Op::Input));
    if !graph.live().into_iter().any(|id| graph.node_inputs(id).iter().flatten().any(is_input)) {
        // All is known: the GPU would compute nothing.
        return Err(refused);
    }
    let Ok(built) = build(&graph, library, &stated, None) else { return Err(refused) };
    run(&data, &graph, &inputs, library, &built.plan).map(|()| KNOWN)
}

fn optimized(case: &Path, options: &Options) -> Result<Graph, (Verdict, String)> {
    let model = import_file(&case.join("model.onnx"), &options.import).map_err(failure)?;
    Ok(optimize(model, options).map_err(failure)?.graph)
}

/// Compares what an engine gives on the GPU with what is expected.
fn run(data: &Path, graph: &Graph, inputs: &[Tensor], library: &Library, plan: &Plan) -> Result<(), (Verdict, String)> {
    let expected = read_all(data, "output", graph.outputs().len())?;
    let engine = Engine::from_plan(library, 0, plan).map_err(failure)?;
    let mut session = engine.session(SessionOptions::default()).map_err(failure)?;
    let names = graph.inputs().iter().filter_map(|id| graph.value((*id).into())).map(|value| &*value.name);
    let given: Vec<(&str, &Tensor)> = names.zip(inputs).collect();
    let found = session.run(&given).map_err(failure)?;
    for (output, expected) in graph.outputs().iter().zip(expected) {
        let expected = in_range(expected, &library.capabilities());
        let found = found.iter().find(|(name, _)| *name == *output.name).map(|(_, tensor)| tensor);
        let wrong = found.map_or(Some("is missing".to_owned()), |found| difference(&expected, found));
        if let Some(difference) = wrong {
            return Err((Verdict::Wrong, format!("on the GPU: output `{}`: {difference}", output.name)));
        }
    }
    Ok(())
}
