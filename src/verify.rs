//! An engine against the evaluator, on inputs of a fixed seed at the ends of its ranges.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::Serialize;
use trt_fuse_ir::eval::{convert, eval_graph};
use trt_fuse_ir::{Builder, DType, Dim, Graph, InputValues, Tensor, ValueInfo};

use crate::ranges::profile;
use crate::runtime::{Engine, Extents, RuntimeError, SessionOptions, random_inputs};
use crate::tensorrt::{Library, PlanHeader, RangeKind};
use crate::{Error, Options, build};

/// How an engine is compared.
#[derive(Debug, Clone, Copy)]
pub struct VerifyOptions {
    /// Chooses the inputs.
    pub seed: u64,
    /// Most that an output of floats may differ, relative to its largest number.
    pub tolerance: f64,
}

impl Default for VerifyOptions {
    fn default() -> Self {
        Self { seed: 1, tolerance: 1e-4 }
    }
}

/// One output on one set of inputs.
#[derive(Debug, Clone, Serialize)]
pub struct Compared {
    /// Where in the ranges: `min`, `opt` or `max`.
    pub at: &'static str,
    /// The tensor.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Largest difference relative to the largest number expected; infinite if shapes, types or the places of NaN
    /// differ.
    pub difference: f64,
    /// The largest number expected, of a float output.
    pub largest: Option<f64>,
    /// Whether that is within the tolerance.
    pub fits: bool,
}

/// Compares an engine's outputs with the evaluator's on `graph`, the model as imported. Ranges must be those that the
/// engine was built with.
///
/// # Errors
/// If either does not run.
pub fn verify_engine(
    engine: &Arc<Engine>,
    graph: &Graph,
    options: &Options,
    how: &VerifyOptions,
) -> Result<Vec<Compared>, Error> {
    check_fixed(graph, engine.header())?;
    let mut session = engine.session(SessionOptions::default())?;
    let mut compared = Vec::new();
    let mut done: Vec<Vec<(String, Tensor)>> = Vec::new();
    for (at, extents) in [("min", Extents::Min), ("opt", Extents::Opt), ("max", Extents::Max)] {
        let values = values_at(engine, graph, options, extents)?;
        let inputs = random_inputs(engine.tensors(), extents, &values, how.seed)?;
        if done.contains(&inputs) {
            continue;
        }
        let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
        let found = session.run(&given)?;
        let expected = evaluate(graph, &inputs, &|name| engine.header().fixed(name))?;
        for output in graph.outputs() {
            let expected = expected.get(&*output.name);
            let found = found.iter().find(|(name, _)| *name == *output.name).map(|(_, tensor)| tensor);
            let difference = match (expected, found) {
                (Some(expected), Some(found)) => difference(expected, found),
                _ => f64::INFINITY,
            };
            let tolerance = if expected.is_some_and(|tensor| tensor.dtype().is_float()) { how.tolerance } else { 0.0 };
            compared.push(Compared {
                at,
                name: output.name.to_string(),
                shape: expected.map(|tensor| tensor.dims().to_vec()).unwrap_or_default(),
                difference,
                largest: expected.and_then(largest),
                fits: difference <= tolerance,
            });
        }
        done.push(inputs);
    }
    Ok(compared)
}

/// The first value of an optimised graph, in order of execution, that an engine computes otherwise than the evaluator:
/// an engine is built that gives every value. `None` if all of them fit there, as fusion may be what is wrong.
///
/// # Errors
/// If that engine cannot be built or does not run.
pub fn first_bad_tensor(
    graph: &Graph,
    library: &Library,
    gpu: i32,
    options: &Options,
    how: &VerifyOptions,
) -> Result<Option<Compared>, Error> {
    let all = with_all_outputs(graph)?;
    let built = build(&all, library, options, None)?;
    let engine = Engine::from_plan(library, gpu, &built.plan)?;
    let (own, inner): (Vec<Compared>, Vec<Compared>) = verify_engine(&engine, &all, options, how)?
        .into_iter()
        .filter(|compared| !compared.fits)
        .partition(|compared| graph.outputs().iter().any(|output| *output.name == *compared.name));
    Ok(inner.into_iter().chain(own).next())
}

/// The graph with every value that TensorRT can give as an output, in order of execution.
fn with_all_outputs(graph: &Graph) -> Result<Graph, Error> {
    let fail = |why: trt_fuse_ir::GraphError| RuntimeError::TensorRt { message: why.to_string() };
    let mut builder = Builder::like(graph);
    let mut inputs = Vec::new();
    for id in graph.inputs() {
        let value = graph.value((*id).into());
        inputs.push(value.map(|value| builder.input(value.name.clone(), value.info.clone())));
    }
    builder.copy(graph, &inputs).map_err(fail)?;
    let mut values = Vec::new();
    for id in builder.graph().live() {
        let reference = id.into();
        let Some(value) = builder.graph().value(reference) else { continue };
        let is_plain = value.info.shape.is_some() && matches!(value.info.dtype, DType::F32 | DType::F16);
        let is_other = builder
            .graph()
            .op(id)
            .is_some_and(|op| !matches!(op, trt_fuse_ir::Op::Input | trt_fuse_ir::Op::Constant(_)));
        if is_plain && is_other && !builder.graph().is_output(reference) {
            values.push((value.name.clone(), reference));
        }
    }
    for (name, reference) in values {
        builder.output(name, reference);
    }
    Ok(builder.finish())
}

/// The values of inputs that decide shapes.
fn values_at(
    engine: &Engine,
    graph: &Graph,
    options: &Options,
    extents: Extents,
) -> Result<BTreeMap<String, Vec<i64>>, Error> {
    let names: Vec<String> =
        engine.tensors().iter().filter(|spec| spec.is_input && spec.on_host).map(|spec| spec.name.clone()).collect();
    if names.is_empty() {
        return Ok(BTreeMap::new());
    }
    let ranges = profile(graph, &options.ranges, &names)?.map(|profile| profile.ranges).unwrap_or_default();
    let values = ranges.into_iter().filter(|range| range.kind == RangeKind::Values).map(|range| {
        let values = match extents {
            Extents::Min => range.min,
            Extents::Opt => range.opt,
            Extents::Max => range.max,
        };
        (range.input, values)
    });
    Ok(values.collect())
}

/// Refuses a graph in which a constant stands for an input that the engine takes other values of.
fn check_fixed(graph: &Graph, header: &PlanHeader) -> Result<(), Error> {
    match graph.fixed_inputs().iter().find(|(name, values)| header.fixed(name).as_ref() != Some(*values)) {
        Some((name, _)) => Err(Error::Runtime(RuntimeError::Tensor {
            name: name.to_string(),
            reason: "it is fixed here, and was not when the plan was built: give the ranges of then".to_owned(),
        })),
        None => Ok(()),
    }
}

/// The evaluator's outputs by name.
fn evaluate(
    graph: &Graph,
    inputs: &[(String, Tensor)],
    fixed: &dyn Fn(&str) -> Option<InputValues>,
) -> Result<BTreeMap<String, Tensor>, Error> {
    let fail = |message: String| Error::Runtime(RuntimeError::TensorRt { message });
    let given = |name: &str| inputs.iter().find(|(given, _)| given == name).map(|(_, tensor)| tensor);
    let values = || graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
    let mut symbols = BTreeMap::new();
    for (value, tensor) in values().filter_map(|value| Some((value, given(&value.name)?))) {
        for (dim, extent) in value.info.shape.iter().flatten().zip(tensor.dims()) {
            if let (Some(symbol), Ok(extent)) = (dim.as_symbol(), i64::try_from(*extent)) {
                symbols.insert(symbol.clone(), extent);
            }
        }
    }
    // What nothing reads is no input of the engine: what the engine was built for, or zeros, of whatever shape fits the
    // others.
    let unread = |name: &str, info: &ValueInfo| {
        let extent = |dim: &Dim| usize::try_from(dim.evaluate(&|name| symbols.get(name).copied()).unwrap_or(1)).ok();
        let dims: Vec<usize> = info.shape.as_ref()?.iter().map(extent).collect::<Option<_>>()?;
        let number = match fixed(name) {
            Some(InputValues::Each(values)) => return convert(&Tensor::from_vec(dims, values).ok()?, info.dtype).ok(),
            Some(InputValues::All(number)) => number as f64,
            None => 0.0,
        };
        Tensor::splat(info.dtype, dims, Tensor::number(info.dtype, number)?.bytes().clone()).ok()
    };
    let mut ordered = Vec::new();
    for value in values() {
        let input = given(&value.name).cloned().or_else(|| unread(&value.name, &value.info));
        ordered.push(input.ok_or_else(|| fail(format!("the engine has no input '{}'", value.name)))?);
    }
    let outputs = eval_graph(graph, &ordered).map_err(|error| fail(format!("the evaluator: {error}")))?;
    Ok(graph.outputs().iter().map(|output| output.name.to_string()).zip(outputs).collect())
}

/// The largest difference relative to the largest number expected, of other types whether they are equal; infinite if
/// shapes, types or the places of NaN differ. Stricter than the one of the evaluator: integers have all their digits, and
/// outputs of tiny numbers no floor.
fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    if expected.dtype() != found.dtype() || expected.dims() != found.dims() {
        return f64::INFINITY;
    }
    let (Some(unit), Some(a), Some(b)) = (largest(expected), expected.to_f64s(), found.to_f64s()) else {
        return if expected == found { 0.0 } else { f64::INFINITY };
    };
    let unit = unit.max(f64::MIN_POSITIVE);
    a.iter().zip(&b).fold(0.0, |most: f64, (a, b)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        let gap = if same { 0.0 } else { (a - b).abs() / unit };
        if gap.is_nan() { f64::INFINITY } else { most.max(gap) }
    })
}

/// The largest finite number of a float tensor, by its magnitude.
fn largest(tensor: &Tensor) -> Option<f64> {
    let numbers = tensor.dtype().is_float().then(|| tensor.to_f64s())??;
    Some(numbers.into_iter().filter(|x| x.is_finite()).fold(0.0, |largest, x| x.abs().max(largest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_relative_to_the_largest_number() {
        let tensor = |data: &[f32]| Tensor::vector(data.to_vec());
        assert_eq!(difference(&tensor(&[0.0, -4.0]), &tensor(&[1.0, -4.0])), 0.25);
        assert_eq!(difference(&tensor(&[f32::NAN, f32::INFINITY]), &tensor(&[f32::NAN, f32::INFINITY])), 0.0);
        assert_eq!(difference(&tensor(&[f32::NAN]), &tensor(&[0.0])), f64::INFINITY);
        assert_eq!(difference(&tensor(&[f32::INFINITY]), &tensor(&[0.0])), f64::INFINITY);
        assert_eq!(difference(&tensor(&[1.0]), &tensor(&[1.0, 1.0])), f64::INFINITY);
        assert_eq!(difference(&Tensor::vector(vec![1_i64]), &Tensor::vector(vec![2_i64])), f64::INFINITY);
        assert_eq!(difference(&Tensor::vector(vec![true]), &Tensor::vector(vec![true])), 0.0);
        assert_eq!(difference(&tensor(&[0.0]), &tensor(&[0.0])), 0.0);
        assert_eq!(largest(&tensor(&[0.5, f32::NEG_INFINITY, -4.0, f32::NAN])), Some(4.0));
        assert_eq!(largest(&Tensor::vector(vec![1_i64])), None);
    }

    #[test]
    fn inputs_that_nothing_reads_are_zeros_of_a_shape_that_fits() {
        let graph: Graph = "graph g(%x: f32[n, 2], %mask: i64[n, m]) -> (%y) { %y = neg(%x) }".parse().unwrap();
        let x = Tensor::full([3, 2], 1.5_f32).unwrap();
        let outputs = evaluate(&graph, &[("x".to_owned(), x)], &|_| None).unwrap();
        assert_eq!(outputs["y"], Tensor::full([3, 2], -1.5_f32).unwrap());
    }

    #[test]
    fn every_value_becomes_an_output_in_order_of_execution() {
        let graph: Graph = "graph g(%x: f32[n, 2]) -> (%z) {
            %a = relu(%x) %b = cast(%a) to=i64 %c = cast(%b) to=f32 %z = add(%a, %c) }"
            .parse()
            .unwrap();
        let all = with_all_outputs(&graph).unwrap();
        trt_fuse_ir::verify(&all).unwrap();
        let names: Vec<&str> = all.outputs().iter().map(|output| &*output.name).collect();
        assert_eq!(names, ["z", "a", "c"]);
    }
}
