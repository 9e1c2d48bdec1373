//! Bounds of numbers: interval arithmetic over a graph (Moore, Interval Analysis, 1966).

use std::sync::Arc;

use rustc_hash::FxHashMap;

use crate::infer::resolve_axis;
use crate::op::{Activation, BinaryOp, ReduceKind, UnaryOp};
use crate::{DType, Dim, DimAlgebra, DimOp, Graph, Node, NodeId, Op, ValueRef};

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
        Self { min: self.min.clamp(other.min, other.max), max: self.max.clamp(other.min, other.max) }
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

/// The values of a type that may leave `bounds` although all that they are computed from keeps within, in the graph's
/// order. Inputs of the graph keep within, and within what `inputs` says of them by name; `symbols` are the least and largest
/// sizes. Linear in the graph.
///
/// ```
/// # use trt_fuse_ir::{DType, Graph, Interval, beyond};
/// let graph: Graph = "graph g(%x: i64[2], %y: i64[2]) -> (%a, %b) { %a = min(%x, %y) %b = add(%x, %y) }".parse()?;
/// let found = beyond(&graph, DType::I64, Interval::I32, &|_| None, &|_| None);
/// assert_eq!(found.iter().map(|value| &*graph.value(*value).unwrap().name).collect::<Vec<_>>(), ["b"]);
/// # Ok::<(), trt_fuse_ir::ParseError>(())
/// ```
pub fn beyond(
    graph: &Graph,
    dtype: DType,
    bounds: Interval,
    symbols: &dyn Fn(&str) -> Option<(i64, i64)>,
    inputs: &dyn Fn(&str) -> Option<(i64, i64)>,
) -> Vec<ValueRef> {
    let mut known = FxHashMap::default();
    let mut found = Vec::new();
    for id in graph.topo() {
        let Some(node) = graph.node(id) else { continue };
        for (slot, value) in node.outputs.iter().enumerate() {
            let reference = ValueRef { node: id, slot: slot as u32 };
            let stated = if matches!(node.op, Op::Input) { inputs(&value.name) } else { None };
            let mut interval = match stated {
                Some((min, max)) => Interval::between(min as f64, max as f64),
                None => Analysis { graph, known: &known, symbols }.of(id, node, slot),
            };
            if value.info.dtype == dtype && !bounds.holds(interval) {
                if !matches!(node.op, Op::Input) {
                    found.push(reference);
                }
                interval = interval.within(bounds);
            }
            known.insert(reference, interval);
        }
    }
    found
}

struct Analysis<'a> {
    graph: &'a Graph,
    known: &'a FxHashMap<ValueRef, Interval>,
    symbols: &'a dyn Fn(&str) -> Option<(i64, i64)>,
}

impl Analysis<'_> {
    fn of(&self, id: NodeId, node: &Node, slot: usize) -> Interval {
        let Some(output) = node.outputs.get(slot) else { return Interval::ALL };
        let own = of_type(output.info.dtype);
        if let Some(elements) = output.info.known_elements() {
            let hull = elements.iter().map(|dim| self.size(dim)).reduce(Interval::hull);
            return hull.unwrap_or(Interval::between(0.0, 0.0));
        }
        if node.op.epilogue().is_some_and(|epilogue| !epilogue.0.is_empty()) {
            return own;
        }
        self.computed(id, &node.op, slot).unwrap_or(own)
    }

    /// Bounds by the operator, where they say more than the type.
    fn computed(&self, id: NodeId, op: &Op, slot: usize) -> Option<Interval> {
        let input = |slot| self.known.get(&self.graph.input(id, slot)?).copied();
        let all = || {
            let inputs = self.graph.node_inputs(id).into_iter().flatten();
            inputs.map(|value| self.known.get(&value).copied()).reduce(|a, b| Some(a?.hull(b?))).flatten()
        };
        match op {
            Op::Constant(constant) => {
                let numbers = constant.value.to_f64s()?;
                numbers.into_iter().map(|number| Interval::between(number, number)).reduce(Interval::hull)
            }
            Op::Unary(op) => unary(*op, input(0)?),
            Op::Binary(op) => binary(*op, self.taken_below_zero(id).or(input(0))?, input(1)?),
            Op::Activation(op) => activation(op, input(0)?),
            Op::Cast(_) if self.is_float(id) => Some(input(0)?.each(f64::trunc)),
            Op::Where => Some(input(1)?.hull(input(2)?)),
            Op::Range => Some(input(0)?.hull(input(1)?)),
            Op::Size | Op::ShapeOf(_) => {
                // A tensor of TensorRT's has at most as many elements.
                Some(Interval::between(0.0, i32::MAX.into()))
            }
            Op::NonZero | Op::NonMaxSuppression(_) => Some(self.places(id, None)),
            Op::ArgReduce(op) => Some(self.places(id, Some(op.axis))),
            Op::TopK(op) if slot == 1 => Some(self.places(id, Some(op.axis))),
            Op::ConstantOfShape(op) => op.value.to_f64s()?.first().map(|number| Interval::between(*number, *number)),
            Op::Reduce(op) => match op.kind {
                ReduceKind::Max | ReduceKind::Min | ReduceKind::Mean => input(0),
                ReduceKind::Sum => Some(input(0)?.ends(self.count(id, op.axes.as_deref()), |x, n| x * n)),
                _ => None,
            },
            Op::Cumulative(op) if !op.product => {
                let zero = Interval::between(0.0, 0.0);
                Some(input(0)?.ends(self.count(id, None), |x, n| x * n).hull(zero))
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
            Op::Trilu(_) => Some(input(0)?.hull(Interval::between(0.0, 0.0))),
            Op::Pad(_) => Some(input(0)?.hull(input(2).unwrap_or(Interval::between(0.0, 0.0)))),
            Op::Concat(_) => all(),
            _ => None,
        }
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

    /// Places along an axis of the first input, or along any.
    fn places(&self, id: NodeId, axis: Option<i64>) -> Interval {
        let shape = self.graph.input(id, 0).and_then(|x| self.graph.info(x)?.shape.clone()).unwrap_or_default();
        let dims = match axis.map(|axis| resolve_axis(axis, shape.len())) {
            Some(Ok(axis)) => shape.get(axis..=axis).unwrap_or_default(),
            _ => &shape[..],
        };
        let largest = dims.iter().map(|dim| self.size(dim).max).reduce(f64::max);
        Interval::between(0.0, (largest.unwrap_or(i32::MAX.into()) - 1.0).max(0.0))
    }

    /// How many elements of the first input lie along axes, or in all.
    fn count(&self, id: NodeId, axes: Option<&[i64]>) -> Interval {
        let Some(shape) = self.graph.input(id, 0).and_then(|x| self.graph.info(x)?.shape.clone()) else {
            return Interval::between(0.0, i32::MAX.into());
        };
        let is_along = |at: usize| match axes {
            Some(axes) => axes.iter().any(|axis| resolve_axis(*axis, shape.len()).is_ok_and(|axis| axis == at)),
            None => true,
        };
        let dims = shape.iter().enumerate().filter(|(at, _)| is_along(*at)).map(|(_, dim)| self.size(dim));
        dims.fold(Interval::between(1.0, 1.0), |count, dim| count.ends(dim, |a, b| a * b))
    }

    fn size(&self, dim: &Dim) -> Interval {
        dim.compute(&mut Sizes(self.symbols)).unwrap_or(Interval::ALL)
    }
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
        UnaryOp::Round => Some(x.each(f64::round)),
        UnaryOp::Sign | UnaryOp::Erf | UnaryOp::Sin | UnaryOp::Cos => Some(Interval::between(-1.0, 1.0)),
        _ => None,
    }
}

fn binary(op: BinaryOp, a: Interval, b: Interval) -> Option<Interval> {
    match op {
        BinaryOp::Add => Some(a.ends(b, |a, b| a + b)),
        BinaryOp::Sub => Some(a.ends(b, |a, b| a - b)),
        BinaryOp::Mul => Some(a.ends(b, |a, b| if a == 0.0 || b == 0.0 { 0.0 } else { a * b })),
        // The larger the divisor, the smaller the quotient: integers have none between -1 and 1.
        BinaryOp::Div if b.min >= 1.0 || b.max <= -1.0 => Some(a.ends(b, |a, b| a / b)),
        BinaryOp::Min => Some(a.ends(b, f64::min)),
        BinaryOp::Max => Some(a.ends(b, f64::max)),
        BinaryOp::Mod | BinaryOp::FMod if b.min > 0.0 => Some(Interval::between(-b.max, b.max)),
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

/// Dimensions as intervals.
struct Sizes<'a>(&'a dyn Fn(&str) -> Option<(i64, i64)>);

impl DimAlgebra for Sizes<'_> {
    type Value = Interval;
    type Error = std::convert::Infallible;

    fn number(&mut self, value: i64) -> Result<Interval, Self::Error> {
        Ok(Interval::between(value as f64, value as f64))
    }

    fn symbol(&mut self, name: &Arc<str>) -> Result<Interval, Self::Error> {
        // A size that is told only at run time is still one of a tensor.
        Ok((self.0)(name)
            .map_or(Interval::between(0.0, i32::MAX.into()), |(min, max)| Interval::between(min as f64, max as f64)))
    }

    fn binary(&mut self, op: DimOp, a: Interval, b: Interval) -> Result<Interval, Self::Error> {
        let found = match op {
            DimOp::Add => binary(BinaryOp::Add, a, b),
            DimOp::Mul => binary(BinaryOp::Mul, a, b),
            DimOp::FloorDiv => binary(BinaryOp::Div, a, b).map(|quotient| quotient.each(f64::floor)),
            DimOp::Mod => binary(BinaryOp::Mod, a, b),
            DimOp::Min => binary(BinaryOp::Min, a, b),
            DimOp::Max => binary(BinaryOp::Max, a, b),
        };
        Ok(found.unwrap_or(Interval::ALL))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The values that may leave `i32`, with `n` from 1 to 4096.
    fn found(nodes: &str, outputs: &str) -> Vec<String> {
        let text = format!(
            "graph g(%x: i64[n], %y: i64[n], %z: i64[n], %b: bool[n], %f: f32[n]) -> ({outputs}) {{ {nodes} }}"
        );
        let graph: Graph = text.parse().unwrap();
        let values =
            beyond(&graph, DType::I64, Interval::I32, &|_| Some((1, 4096)), &|name| (name == "z").then_some((0, 1)));
        values.iter().map(|value| graph.value(*value).unwrap().name.to_string()).collect()
    }

    #[test]
    fn arithmetic_on_inputs_may_leave() {
        for op in ["add", "sub", "mul"] {
            assert_eq!(found(&format!("%a = {op}(%x, %y)"), "%a"), ["a"], "{op}");
        }
        assert_eq!(found("%a = neg(%x)", "%a"), ["a"]);
        assert_eq!(found("%k = constant() value=i64[] {0} %a = cumulative(%x, %k)", "%a"), ["a"]);
        assert_eq!(found("%a = cast(%f) to=i64", "%a"), ["a"]);
        assert_eq!(found("%a = reduce(%x) kind=sum axes=[0]", "%a"), ["a"]);
    }

    #[test]
    fn only_the_first_that_leaves_is_told() {
        assert_eq!(found("%a = add(%x, %y) %c = neg(%a) %d = min(%c, %x)", "%d"), ["a", "c"]);
        assert_eq!(found("%a = mul(%x, %y) %c = reshape(%a) shape=[1, n]", "%c"), ["a"]);
    }

    #[test]
    fn what_is_small_stays() {
        for nodes in [
            "%a = min(%x, %y)",
            "%m = cast(%b) to=i64 %k = constant() value=i64[] {0} %s = cumulative(%m, %k) %a = mul(%s, %s)",
            "%s = shape(%x) start=0 end=1 %t = mul(%s, %s) %a = reduce(%t) kind=sum axes=[0]",
            "%k = constant() value=i64[] {7} %m = mod(%x, %k) %a = mul(%m, %m)",
            "%k = constant() value=i64[] {2} %a = div(%x, %k)",
            "%c = clip(%f) p=[0.0, 100.0] %a = cast(%c) to=i64",
            "%s = reduce(%z) kind=sum axes=[0] %t = mul(%s, %s) %a = add(%t, %z)",
            "%o = constant() value=i64[] {0} %l = less(%x, %o) %d = constant() value=i64[] {7} %s = add(%x, %d)
                %a = where(%l, %s, %x)",
            "%k = arg_reduce(%f) axis=0 %a = add(%k, %k)",
            "%m = cast(%b) to=i64 %s = reduce(%m) kind=sum axes=[0] %t = mul(%s, %s) %a = sub(%t, %s)",
        ] {
            assert_eq!(found(nodes, "%a"), Vec::<String>::new(), "{nodes}");
        }
    }

    #[test]
    fn an_unlike_guard_tells_nothing() {
        for (condition, readers) in
            [("less(%y, %o)", ""), ("less(%o, %x)", ""), ("less(%x, %d)", ""), ("less(%x, %o)", "%r = neg(%s)")]
        {
            let rest = format!("%a = where(%l, %s, %x) {readers}");
            let nodes = format!(
                "%o = constant() value=i64[] {{0}} %d = constant() value=i64[] {{7}} %l = {condition} %s = add(%x, %d) {rest}"
            );
            let outputs = if readers.is_empty() { "%a" } else { "%a, %r" };
            assert_eq!(found(&nodes, outputs).first().map(String::as_str), Some("s"), "{nodes}");
        }
    }

    #[test]
    fn a_divisor_that_may_be_nothing_tells_nothing() {
        assert_eq!(found("%m = cast(%b) to=i64 %a = div(%x, %m)", "%a"), ["a"]);
    }
}
