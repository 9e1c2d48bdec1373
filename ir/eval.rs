//! Reference evaluator: what every operator means, on the CPU.
//!
//! The oracle of the passes' tests, the engine of constant folding, calibration and verification. Float types of 16
//! bits and less are computed in f32 and rounded after each operator. Convolutions and matrix products are fast enough
//! for whole networks; the rest aims at being plainly right.

use rustc_hash::FxHashMap;
use smallvec::SmallVec;
use std::sync::Arc;

use crate::{Graph, NodeId, Op, Tensor, ValueRef};

mod activation;
mod attention;
mod cast;
mod control;
mod conv;
mod einsum;
mod float8;
mod index;
mod layout;
mod math;
mod matmul;
mod movement;
mod norm;
mod number;
mod pad;
mod pool;
mod quant;
mod random;
mod reduce;
mod resize;
mod sample;
#[cfg(test)]
mod tests;
mod vision;
mod window;

pub use resize::{Taps, resize_taps};
pub use sample::{difference, random_inputs};

/// An evaluation that failed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// A node's inputs or parameters do not work out.
    #[error("node `{node}` ({op}): {reason}")]
    Node {
        /// The node.
        node: Arc<str>,
        /// Its operator.
        op: String,
        /// What is wrong.
        reason: String,
    },
    /// The inputs given do not fit the graph's.
    #[error("input `{input}`: {reason}")]
    Input {
        /// The input.
        input: Arc<str>,
        /// What is wrong.
        reason: String,
    },
}

/// Values of symbols, found from the inputs' shapes.
pub type Bindings = FxHashMap<Arc<str>, i64>;

/// What evaluating a node needs besides its inputs.
#[derive(Debug, Clone, Copy)]
pub struct EvalContext<'a> {
    /// Number of outputs that the node has.
    pub outputs: usize,
    /// Values of symbols.
    pub symbols: &'a Bindings,
}

/// A node's outputs.
pub type Tensors = SmallVec<[Tensor; 1]>;

/// The outputs of a node that has one.
fn one(tensor: Result<Tensor, String>) -> Result<Tensors, String> {
    tensor.map(|tensor| SmallVec::from_iter([tensor]))
}

/// The inputs of a node, with phrases for what is missing.
#[derive(Clone, Copy)]
struct Inputs<'a>(&'a [Option<&'a Tensor>]);

impl<'a> Inputs<'a> {
    fn optional(self, slot: usize) -> Option<&'a Tensor> {
        self.0.get(slot).copied().flatten()
    }

    fn required(self, slot: usize) -> Result<&'a Tensor, String> {
        self.optional(slot).ok_or_else(|| format!("input {slot} is missing"))
    }
}

/// A tensor in another type, as ONNX `Cast` means it.
///
/// # Errors
/// For types without a conversion.
pub fn convert(tensor: &Tensor, to: crate::DType) -> Result<Tensor, String> {
    cast::cast(tensor, to, true)
}

/// Whole numbers up to this one are each a number of f64.
const MOST_WHOLE: f64 = (1_u64 << f64::MANTISSA_DIGITS) as f64;

/// A constant in a type that stands for its own where a target lacks that; `None` if one of its numbers has no place
/// there: it overflows, becomes 0, or is whole and becomes another. Digits of other f64 are dropped.
pub fn narrowed(constant: &Tensor, to: crate::DType) -> Option<Tensor> {
    let element = constant.repeated();
    let before = element.as_ref().unwrap_or(constant);
    let after = convert(before, to).ok()?;
    let is_held = match constant.dtype() {
        crate::DType::F64 if to.is_float() => {
            let is_kept = |(x, y): (&f64, f64)| {
                let is_whole = x.fract() == 0.0 && x.abs() <= MOST_WHOLE;
                *x == y || x.is_nan() || (!is_whole && y.is_finite() && y != 0.0)
            };
            before.to_f64s()?.iter().zip(after.to_f64s()?).all(is_kept)
        }
        crate::DType::U64 if to == crate::DType::I64 => before.to_i64s().is_some(),
        crate::DType::I64 if to == crate::DType::I32 => {
            before.to_i64s()?.iter().all(|number| i32::try_from(*number).is_ok())
        }
        _ => true,
    };
    if !is_held {
        return None;
    }
    match element {
        Some(_) => Tensor::splat(to, constant.dims(), after.bytes().clone()).ok(),
        None => Some(after),
    }
}

/// Evaluates one operator.
///
/// # Errors
/// What does not work out, as a phrase.
pub fn eval_op(op: &Op, inputs: &[Option<&Tensor>], context: &EvalContext<'_>) -> Result<Tensors, String> {
    let inputs = Inputs(inputs);
    match op {
        Op::Input => Err("an input has no value of its own".to_string()),
        Op::Constant(constant) => Ok(SmallVec::from_iter([constant.value.clone()])),
        Op::Unary(_) | Op::Binary(_) | Op::Activation(_) | Op::Cast(_) | Op::BitCast(_) | Op::Where => {
            math::eval(op, inputs)
        }
        Op::Conv(op) => conv::conv(op, inputs),
        Op::ConvTranspose(op) => conv::conv_transpose(op, inputs),
        Op::MatMul(op) => matmul::matmul(op, inputs),
        Op::Einsum(op) => einsum::einsum(op, inputs),
        Op::Pool(op) => pool::pool(op, inputs, context),
        Op::Resize(op) => resize::resize(op, inputs),
        Op::Reduce(_) | Op::ArgReduce(_) | Op::Softmax(_) | Op::TopK(_) | Op::Cumulative(_) => {
            reduce::eval(op, inputs, context)
        }
        Op::BatchNorm(_)
        | Op::LayerNorm(_)
        | Op::RmsNorm(_)
        | Op::GroupNorm(_)
        | Op::Lrn(_)
        | Op::LpNorm(_)
        | Op::MeanVarianceNorm(_) => norm::eval(op, inputs, context),
        Op::Attention(op) => attention::attention(op, inputs, context),
        Op::RotaryEmbedding(op) => attention::rotary_embedding(op, inputs),
        Op::GridSample(op) => vision::grid_sample(op, inputs),
        Op::NonMaxSuppression(op) => vision::non_max_suppression(op, inputs),
        Op::Reshape(_)
        | Op::Flatten(_)
        | Op::Squeeze(_)
        | Op::Unsqueeze(_)
        | Op::Transpose(_)
        | Op::Shuffle(_)
        | Op::Expand(_)
        | Op::Concat(_)
        | Op::Split(_)
        | Op::Slice(_)
        | Op::Roll(_)
        | Op::Pad(_)
        | Op::Tile(_)
        | Op::ShapeOf(_)
        | Op::Size
        | Op::Range
        | Op::ConstantOfShape(_)
        | Op::DepthToSpace(_)
        | Op::EyeLike(_)
        | Op::Trilu(_) => movement::eval(op, inputs, context),
        Op::Gather(_)
        | Op::GatherElements(_)
        | Op::GatherNd(_)
        | Op::ScatterElements(_)
        | Op::ScatterNd(_)
        | Op::OneHot(_)
        | Op::ReverseSequence(_)
        | Op::NonZero => index::eval(op, inputs),
        Op::Quantize(_) | Op::Dequantize(_) => quant::eval(op, inputs),
        Op::Random(op) => random::random(op, inputs),
        Op::If(_) | Op::Loop(_) | Op::Scan(_) => control::eval(op, inputs, context),
        Op::Opaque(op) => Err(op.reason.clone()),
    }
}

/// Evaluates a graph on inputs in the order of [`Graph::inputs`]; outputs come in the order of [`Graph::outputs`].
///
/// # Errors
/// If the inputs do not fit the graph's, or a node fails.
pub fn eval_graph(graph: &Graph, inputs: &[Tensor]) -> Result<Vec<Tensor>, EvalError> {
    eval_with(graph, inputs, &Bindings::default(), &mut |_, _| {})
}

/// As [`eval_graph`], with symbols of an outer graph, calling `observe` with every tensor made.
///
/// # Errors
/// If the inputs do not fit the graph's, or a node fails.
pub fn eval_with(
    graph: &Graph,
    inputs: &[Tensor],
    outer: &Bindings,
    observe: &mut dyn FnMut(ValueRef, &Tensor),
) -> Result<Vec<Tensor>, EvalError> {
    let mut symbols = outer.clone();
    let mut run = Run { graph, values: FxHashMap::default(), left: FxHashMap::default() };
    bind_inputs(graph, inputs, &mut symbols, &mut run)?;
    let order = graph.live();
    run.count_uses(&order);
    for id in order {
        let Some(node) = graph.node(id) else { continue };
        if matches!(node.op, Op::Input) {
            continue;
        }
        let fail = |reason: String| EvalError::Node { node: node.name.clone(), op: node.op.to_string(), reason };
        let sources = graph.node_inputs(id);
        let context = EvalContext { outputs: node.outputs.len(), symbols: &symbols };
        let outputs = {
            let tensors: SmallVec<[Option<&Tensor>; 4]> =
                sources.iter().map(|source| source.and_then(|source| run.values.get(&source))).collect();
            eval_op(&node.op, &tensors, &context).map_err(fail)?
        };
        for (slot, (tensor, value)) in outputs.into_iter().zip(&node.outputs).enumerate() {
            bind(&value.info, &tensor, &mut symbols).map_err(fail)?;
            let reference = ValueRef { node: id, slot: slot as u32 };
            observe(reference, &tensor);
            if run.left.contains_key(&reference) {
                run.values.insert(reference, tensor);
            }
        }
        run.release(&sources);
    }
    let missing = |name: &Arc<str>| EvalError::Node {
        node: name.clone(),
        op: "output".to_string(),
        reason: "no value was computed".to_string(),
    };
    let outputs = graph.outputs().iter();
    outputs.map(|output| run.values.get(&output.value).cloned().ok_or_else(|| missing(&output.name))).collect()
}

/// Values alive, and how often each is still to be read.
struct Run<'a> {
    graph: &'a Graph,
    values: FxHashMap<ValueRef, Tensor>,
    left: FxHashMap<ValueRef, usize>,
}

impl Run<'_> {
    fn count_uses(&mut self, order: &[NodeId]) {
        for output in self.graph.outputs() {
            *self.left.entry(output.value).or_insert(0) += 1;
        }
        for id in order {
            for source in self.graph.node_inputs(*id).into_iter().flatten() {
                *self.left.entry(source).or_insert(0) += 1;
            }
        }
    }

    /// Drops what nothing reads any more.
    fn release(&mut self, sources: &[Option<ValueRef>]) {
        for source in sources.iter().flatten() {
            if let Some(left) = self.left.get_mut(source) {
                *left -= 1;
                if *left == 0 {
                    self.values.remove(source);
                }
            }
        }
    }
}

fn bind_inputs(graph: &Graph, inputs: &[Tensor], symbols: &mut Bindings, run: &mut Run<'_>) -> Result<(), EvalError> {
    if inputs.len() != graph.inputs().len() {
        let reason = format!("{} inputs given, the graph has {}", inputs.len(), graph.inputs().len());
        return Err(EvalError::Input { input: graph.name().clone(), reason });
    }
    for (id, tensor) in graph.inputs().iter().zip(inputs) {
        let Some(value) = graph.value((*id).into()) else { continue };
        let fail = |reason| EvalError::Input { input: value.name.clone(), reason };
        if value.info.dtype != tensor.dtype() {
            return Err(fail(format!("{} given, {} expected", tensor.dtype(), value.info.dtype)));
        }
        bind(&value.info, tensor, symbols).map_err(fail)?;
        run.values.insert((*id).into(), tensor.clone());
    }
    Ok(())
}

/// Takes a tensor's dimensions as the values of the symbols that stand for them, and checks the others.
fn bind(info: &crate::ValueInfo, tensor: &Tensor, symbols: &mut Bindings) -> Result<(), String> {
    let Some(shape) = &info.shape else { return Ok(()) };
    let mismatch = || format!("shape {:?} where {info} was expected", tensor.dims());
    if shape.len() != tensor.rank() {
        return Err(mismatch());
    }
    for (dim, size) in shape.iter().zip(tensor.dims()) {
        let size = i64::try_from(*size).map_err(|_| mismatch())?;
        match dim.evaluate(&|name| symbols.get(name).copied()) {
            Some(expected) if expected == size => {}
            Some(_) => return Err(mismatch()),
            None => {
                if let Some(name) = dim.as_symbol() {
                    symbols.insert(name.clone(), size);
                }
            }
        }
    }
    Ok(())
}
