//! Bounds of numbers: interval arithmetic over a graph (Moore, Interval Analysis, 1966).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::infer::resolve_axis;
use crate::op::{Activation, BinaryOp, Reduce, ReduceKind, ScatterReduction, UnaryOp};
use crate::value::MAX_KNOWN_ELEMENTS;
use crate::{DType, Dim, DimAlgebra, DimOp, Graph, Node, NodeId, Op, Shape, Tensor, ValueRef};

/// Numbers from a least to a largest one, both included.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Interval {
    /// The least.
    pub min: f64,
    /// The largest.
    pub max: f64,
}

impl Interval {
    /// All numbers.
    pub const ALL: Self = Self { min: f64::NEG_INFINITY, max: f64::INFINITY };

    /// The numbers of `i32`.
    pub const I32: Self = Self { min: i32::MIN as f64, max: i32::MAX as f64 };

    /// The numbers between two, in any order; all if either is no number.
    pub fn between(a: f64, b: f64) -> Self {
        if a.is_nan() || b.is_nan() { Self::ALL } else { Self { min: a.min(b), max: a.max(b) } }
    }

    /// Whether all of another's numbers are among these.
    pub fn holds(self, other: Self) -> bool {
        self.min <= other.min && other.max <= self.max
    }

    fn hull(self, other: Self) -> Self {
        Self { min: self.min.min(other.min), max: self.max.max(other.max) }
    }

    fn within(self, other: Self) -> Self {
        let inside = |end: f64| end.max(other.min).min(other.max);
        Self { min: inside(self.min), max: inside(self.max) }
    }

    /// What a function that is monotone in each operand makes of the ends.
    fn ends(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        let ends = [f(self.min, other.min), f(self.min, other.max), f(self.max, other.min), f(self.max, other.max)];
        ends.into_iter().map(|end| Self::between(end, end)).reduce(Self::hull).unwrap_or(Self::ALL)
    }

    fn each(self, f: impl Fn(f64) -> f64) -> Self {
        Self::between(f(self.min), f(self.max))
    }
}

/// The names of the values of a type that may leave `bounds` although all that they are computed from keeps within, in the
/// graph's order, those of the bodies of control flow among them, and of nodes of which a size may, on its way.
///
/// Inputs of the graph keep within, and within what `inputs` says of them by name; constants are whatever they are; `symbols`
/// are the least and largest sizes. Linear in the graph.
///
/// ```
/// # use trt_fuse_ir::{DType, Graph, Interval, beyond};
/// let graph: Graph = "graph g(%x: i64[2], %y: i64[2]) -> (%a, %b) { %a = min(%x, %y) %b = add(%x, %y) }".parse()?;
/// let found = beyond(&graph, DType::I64, Interval::I32, &|_| None, &|_| None);
/// assert_eq!(found.iter().map(|name| &**name).collect::<Vec<_>>(), ["b"]);
/// # Ok::<(), trt_fuse_ir::ParseError>(())
/// ```
pub fn beyond(
    graph: &Graph,
    dtype: DType,
    bounds: Interval,
    symbols: &dyn Fn(&str) -> Option<(i64, i64)>,
    inputs: &dyn Fn(&str) -> Option<(i64, i64)>,
) -> Vec<Arc<str>> {
    analysed(graph, dtype, bounds, symbols, inputs).1
}

/// The interval of each value, and what [`beyond`] gives.
fn analysed(
    graph: &Graph,
    dtype: DType,
    bounds: Interval,
    symbols: &dyn Fn(&str) -> Option<(i64, i64)>,
    inputs: &dyn Fn(&str) -> Option<(i64, i64)>,
) -> (FxHashMap<ValueRef, Interval>, Vec<Arc<str>>) {
    let mut known = FxHashMap::default();
    let mut found = Vec::new();
    for id in graph.topo() {
        let Some(node) = graph.node(id) else { continue };
        for body in node.op.bodies() {
            // Nothing is known of what a body takes but that it keeps within.
            found.extend(beyond(&body.0, dtype, bounds, symbols, &|_| None));
        }
        let fits = sizes_keep_within(&node.op, bounds, symbols);
        for (slot, value) in node.outputs.iter().enumerate() {
            let reference = ValueRef { node: id, slot: slot as u32 };
            let stated = if matches!(node.op, Op::Input) { inputs(&value.name) } else { None };
            let mut interval = match stated {
                Some((min, max)) => Interval::between(min as f64, max as f64),
                None => Analysis { graph, known: &known, bounds, symbols }.of(id, node, slot),
            };
            let is_told = matches!(node.op, Op::Input | Op::Constant(_)) || !node.op.bodies().is_empty();
            let leaves = value.info.dtype == dtype && !bounds.holds(interval);
            if (leaves && !is_told) || (slot == 0 && !fits) {
                found.push(value.name.clone());
            }
            if leaves {
                interval = interval.within(bounds);
            }
            known.insert(reference, interval);
        }
    }
    (known, found)
}

/// Whether every step of the sizes that an operator is told by expressions keeps within.
fn sizes_keep_within(op: &Op, bounds: Interval, symbols: &dyn Fn(&str) -> Option<(i64, i64)>) -> bool {
    let each = |dims: &Option<Shape>| {
        let mut dims = dims.iter().flatten().filter(|dim| dim.value().is_none());
        dims.all(|dim| !matches!(dim.compute(&mut Sizes { symbols, bounds }), Err(Unsized::Leaves)))
    };
    match op {
        Op::Reshape(op) => each(&op.shape),
        Op::Shuffle(op) => each(&op.shape),
        Op::Expand(op) => each(&op.shape),
        Op::Split(op) => each(&op.sizes),
        Op::Slice(op) => each(&op.starts) && each(&op.ends),
        _ => true,
    }
}

struct Analysis<'a> {
    graph: &'a Graph,
    known: &'a FxHashMap<ValueRef, Interval>,
    bounds: Interval,
    symbols: &'a dyn Fn(&str) -> Option<(i64, i64)>,
}

const ZERO: Interval = Interval { min: 0.0, max: 0.0 };

impl Analysis<'_> {
    fn of(&self, id: NodeId, node: &Node, slot: usize) -> Interval {
        let Some(output) = node.outputs.get(slot) else { return Interval::ALL };
        let dtype = output.info.dtype;
        let own = of_type(dtype);
        if let Some(elements) = output.info.known_elements() {
            return elements.iter().map(|dim| self.size(dim)).reduce(Interval::hull).unwrap_or(ZERO);
        }
        if node.op.epilogue().is_some_and(|epilogue| !epilogue.0.is_empty()) {
            return own;
        }
        let Some(computed) = self.computed(id, &node.op, dtype, slot) else { return own };
        if dtype.is_float() {
            return rounded(computed, dtype);
        }
        // What a type does not hold wraps around in it, or not if the target computes in a wider one.
        if own.holds(computed) { computed } else { computed.hull(own) }
    }

    /// Bounds by the operator, where they say more than the type.
    fn computed(&self, id: NodeId, op: &Op, dtype: DType, slot: usize) -> Option<Interval> {
        let input = |slot| self.known.get(&self.graph.input(id, slot)?).copied();
        let all = || {
            let inputs = self.graph.node_inputs(id).into_iter().flatten();
            inputs.map(|value| self.known.get(&value).copied()).reduce(|a, b| Some(a?.hull(b?))).flatten()
        };
        let truncated = |interval: Interval| if dtype.is_float() { interval } else { interval.each(f64::trunc) };
        match op {
            Op::Constant(constant) => numbers(&constant.value),
            Op::Unary(op) => unary(*op, input(0)?),
            Op::Binary(op) => binary(*op, self.taken_below_zero(id).or(input(0))?, input(1)?).map(truncated),
            Op::Activation(op) => activation(op, input(0)?),
            Op::Cast(_) if dtype == DType::Bool => Some(of_type(DType::Bool)),
            // What is no number may become 0.
            Op::Cast(_) if self.is_float(id) && !dtype.is_float() => Some(truncated(input(0)?).hull(ZERO)),
            Op::Where => Some(input(1)?.hull(input(2)?)),
            Op::Range => Some(input(0)?.hull(input(1)?)),
            Op::Size | Op::ShapeOf(_) => {
                // A tensor of TensorRT's has at most as many elements.
                Some(Interval::between(0.0, i32::MAX.into()))
            }
            Op::NonZero => Some(self.places(id, 0, None)),
            Op::NonMaxSuppression(_) => Some(self.places(id, 0, None).hull(self.places(id, 1, None))),
            Op::ArgReduce(op) => Some(self.places(id, 0, Some(op.axis))),
            Op::TopK(op) if slot == 1 => Some(self.places(id, 0, Some(op.axis))),
            Op::ConstantOfShape(op) => numbers(&op.value),
            Op::Reduce(op) => {
                let count = self.reduced(id, op);
                match op.kind {
                    ReduceKind::Sum => Some(input(0)?.ends(count, product)),
                    ReduceKind::Max | ReduceKind::Min | ReduceKind::Mean if count.min >= 1.0 => input(0),
                    _ => None,
                }
            }
            Op::Cumulative(op) if !op.product => {
                let total = self.count(id, |_| true);
                Some(input(0)?.ends(Interval::between(1.0, total.max), product).hull(ZERO))
            }
            Op::Cast(_)
            | Op::Reshape(_)
            | Op::Flatten(_)
            | Op::Squeeze(_)
            | Op::Unsqueeze(_)
            | Op::Transpose(_)
            | Op::Shuffle(_)
            | Op::Expand(_)
            | Op::Split(_)
            | Op::Slice(_)
            | Op::Roll(_)
            | Op::Tile(_)
            | Op::DepthToSpace(_)
            | Op::Gather(_)
            | Op::GatherElements(_)
            | Op::GatherNd(_)
            | Op::ReverseSequence(_)
            | Op::TopK(_) => input(0),
            Op::Trilu(_) => Some(input(0)?.hull(ZERO)),
            Op::Pad(_) => Some(input(0)?.hull(input(2).unwrap_or(ZERO))),
            Op::Concat(_) => all(),
            Op::ScatterElements(op) if op.reduction == ScatterReduction::None => Some(input(0)?.hull(input(2)?)),
            Op::ScatterNd(op) if op.reduction == ScatterReduction::None => Some(input(0)?.hull(input(2)?)),
            Op::OneHot(_) => input(2),
            _ => None,
        }
    }

    /// How many elements become one in a reduction.
    fn reduced(&self, id: NodeId, op: &Reduce) -> Interval {
        let one = Interval::between(1.0, 1.0);
        match op.axes.as_deref() {
            Some(axes) if !axes.is_empty() => {
                let rank = self.rank(id);
                self.count(id, |at| axes.iter().any(|axis| resolve_axis(*axis, rank).is_ok_and(|axis| axis == at)))
            }
            // Any of them.
            None if self.graph.input(id, 1).is_some() => self.count(id, |_| true).hull(one),
            _ if op.noop_if_empty => one,
            _ => self.count(id, |_| true),
        }
    }

    fn rank(&self, id: NodeId) -> usize {
        self.graph.input(id, 0).and_then(|x| self.graph.info(x)?.rank()).unwrap_or(0)
    }

    /// The first operand of `add(x, n)` in `where(less(x, 0), add(x, n), x)`, which is how an index that counts from the
    /// end is made to count from the front: no sum of another x is taken.
    fn taken_below_zero(&self, sum: NodeId) -> Option<Interval> {
        let (graph, x) = (self.graph, self.graph.input(sum, 0)?);
        let reader = graph.sole_consumer(sum.into()).filter(|reader| reader.slot == 1)?.node;
        let condition = graph.input(reader, 0)?;
        let is_guard = matches!(graph.op(sum)?, Op::Binary(BinaryOp::Add))
            && matches!(graph.op(reader)?, Op::Where)
            && matches!(graph.op(condition.node)?, Op::Binary(BinaryOp::Less))
            && graph.input(condition.node, 0) == Some(x)
            && graph.constant(graph.input(condition.node, 1)?)?.uniform_f64() == Some(0.0);
        let below = Interval::between(f64::NEG_INFINITY, -1.0);
        is_guard.then(|| self.known.get(&x).map(|x| x.within(below)))?
    }

    fn is_float(&self, cast: NodeId) -> bool {
        self.graph.input(cast, 0).is_some_and(|x| self.graph.dtype(x).is_float())
    }

    /// Places along an axis of an input, or along any.
    fn places(&self, id: NodeId, slot: usize, axis: Option<i64>) -> Interval {
        let shape = self.graph.input(id, slot).and_then(|x| self.graph.info(x)?.shape.clone()).unwrap_or_default();
        let dims = match axis.map(|axis| resolve_axis(axis, shape.len())) {
            Some(Ok(axis)) => shape.get(axis..=axis).unwrap_or_default(),
            _ => &shape[..],
        };
        let largest = dims.iter().map(|dim| self.size(dim).max).reduce(f64::max);
        Interval::between(0.0, (largest.unwrap_or(i32::MAX.into()) - 1.0).max(0.0))
    }

    /// How many elements of the first input lie along the axes that are wanted.
    fn count(&self, id: NodeId, is_along: impl Fn(usize) -> bool) -> Interval {
        let Some(shape) = self.graph.input(id, 0).and_then(|x| self.graph.info(x)?.shape.clone()) else {
            return Interval::between(0.0, i32::MAX.into());
        };
        let dims = shape.iter().enumerate().filter(|(at, _)| is_along(*at)).map(|(_, dim)| self.size(dim));
        dims.fold(Interval::between(1.0, 1.0), |count, dim| count.ends(dim, product))
    }

    fn size(&self, dim: &Dim) -> Interval {
        if let Some(value) = dim.value() {
            return Interval::between(value as f64, value as f64);
        }
        match dim.compute(&mut Sizes { symbols: self.symbols, bounds: self.bounds }) {
            Ok(interval) => interval,
            // Of sizes that are told only at run time nothing is asked but that they are some tensor's.
            Err(Unsized::Unknown) => Interval::between(0.0, i32::MAX.into()),
            Err(Unsized::Leaves) => Interval::ALL,
        }
    }
}

/// The least and the largest element; not of large weights, of which nothing is asked and which are not to be copied.
fn numbers(tensor: &Tensor) -> Option<Interval> {
    if tensor.numel() > MAX_KNOWN_ELEMENTS && tensor.dtype() != DType::I64 {
        return None;
    }
    let floats =
        tensor.to_f64s().or_else(|| Some(tensor.to_i64s()?.into_iter().map(|value| value as f64).collect()))?;
    floats.into_iter().map(|number| Interval::between(number, number)).reduce(Interval::hull)
}

fn product(a: f64, b: f64) -> f64 {
    if a == 0.0 || b == 0.0 { 0.0 } else { a * b }
}

/// What rounding to a type of floats makes of the ends at most.
fn rounded(interval: Interval, dtype: DType) -> Interval {
    let Some((absolute, largest)) = dtype.normal_range() else { return Interval::ALL };
    let relative = match dtype {
        DType::F16 => half::f16::EPSILON.into(),
        DType::BF16 => half::bf16::EPSILON.into(),
        // What is f64 to the model may be computed in f32.
        _ => f64::from(f32::EPSILON),
    };
    let outward = |end: f64, sign: f64| {
        let moved = end + sign * (end.abs() * relative + absolute);
        if moved.abs() > largest { moved.signum() * f64::INFINITY } else { moved }
    };
    // 0 is in every type.
    let min = if interval.min == 0.0 { 0.0 } else { outward(interval.min, -1.0) };
    let max = if interval.max == 0.0 { 0.0 } else { outward(interval.max, 1.0) };
    Interval { min, max }
}

/// The numbers of a type.
fn of_type(dtype: DType) -> Interval {
    match dtype {
        DType::Bool => Interval::between(0.0, 1.0),
        DType::I8 => Interval::between(i8::MIN.into(), i8::MAX.into()),
        DType::U8 => Interval::between(0.0, u8::MAX.into()),
        DType::I16 => Interval::between(i16::MIN.into(), i16::MAX.into()),
        DType::U16 => Interval::between(0.0, u16::MAX.into()),
        DType::I32 => Interval::I32,
        DType::U32 => Interval::between(0.0, u32::MAX.into()),
        _ => Interval::ALL,
    }
}

fn unary(op: UnaryOp, x: Interval) -> Option<Interval> {
    match op {
        UnaryOp::Identity => Some(x),
        UnaryOp::Neg => Some(x.each(|x| -x)),
        UnaryOp::Abs if x.min <= 0.0 && x.max >= 0.0 => Some(Interval::between(0.0, x.max.max(-x.min))),
        UnaryOp::Abs => Some(x.each(f64::abs)),
        UnaryOp::Floor => Some(x.each(f64::floor)),
        UnaryOp::Ceil => Some(x.each(f64::ceil)),
        UnaryOp::Round => Some(x.each(f64::round_ties_even)),
        UnaryOp::Sign | UnaryOp::Erf | UnaryOp::Sin | UnaryOp::Cos => Some(Interval::between(-1.0, 1.0)),
        _ => None,
    }
}

fn binary(op: BinaryOp, a: Interval, b: Interval) -> Option<Interval> {
    match op {
        BinaryOp::Add => Some(a.ends(b, |a, b| a + b)),
        BinaryOp::Sub => Some(a.ends(b, |a, b| a - b)),
        BinaryOp::Mul => Some(a.ends(b, product)),
        // The larger the divisor, the smaller the quotient. Integers are truncated afterwards.
        BinaryOp::Div if b.min >= 1.0 || b.max <= -1.0 => Some(a.ends(b, |a, b| a / b)),
        BinaryOp::Min => Some(a.ends(b, f64::min)),
        BinaryOp::Max => Some(a.ends(b, f64::max)),
        BinaryOp::Mod | BinaryOp::FMod if b.min > 0.0 => Some(Interval::between(-b.max, b.max)),
        BinaryOp::BitwiseAnd if a.min >= 0.0 => Some(Interval::between(0.0, a.max)),
        BinaryOp::BitwiseAnd if b.min >= 0.0 => Some(Interval::between(0.0, b.max)),
        _ => None,
    }
}

fn activation(op: &Activation, x: Interval) -> Option<Interval> {
    match op {
        Activation::Relu => Some(x.each(|x| x.max(0.0))),
        Activation::Clip(min, max) => Some(x.each(|x| x.max(min.0.into()).min(max.0.into()))),
        Activation::Sigmoid | Activation::HardSigmoid(..) => Some(Interval::between(0.0, 1.0)),
        Activation::Tanh | Activation::Softsign => Some(Interval::between(-1.0, 1.0)),
        _ => None,
    }
}

/// Why a dimension has no interval.
enum Unsized {
    /// A symbol is told only at run time.
    Unknown,
    /// A step leaves the bounds.
    Leaves,
}

/// Dimensions as intervals.
struct Sizes<'a> {
    symbols: &'a dyn Fn(&str) -> Option<(i64, i64)>,
    bounds: Interval,
}

impl DimAlgebra for Sizes<'_> {
    type Value = Interval;
    type Error = Unsized;

    fn number(&mut self, value: i64) -> Result<Interval, Unsized> {
        Ok(Interval::between(value as f64, value as f64))
    }

    fn symbol(&mut self, name: &Arc<str>) -> Result<Interval, Unsized> {
        let (min, max) = (self.symbols)(name).ok_or(Unsized::Unknown)?;
        Ok(Interval::between(min as f64, max as f64))
    }

    fn binary(&mut self, op: DimOp, a: Interval, b: Interval) -> Result<Interval, Unsized> {
        let found = match op {
            DimOp::Add => binary(BinaryOp::Add, a, b),
            DimOp::Mul => binary(BinaryOp::Mul, a, b),
            DimOp::FloorDiv => binary(BinaryOp::Div, a, b).map(|quotient| quotient.each(f64::floor)),
            DimOp::Mod => binary(BinaryOp::Mod, a, b),
            DimOp::Min => binary(BinaryOp::Min, a, b),
            DimOp::Max => binary(BinaryOp::Max, a, b),
        };
        found.filter(|found| self.bounds.holds(*found)).ok_or(Unsized::Leaves)
    }
}

#[cfg(test)]
mod tests;
