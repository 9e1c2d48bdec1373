//! Writes reductions that the target has no layer for as reductions that it has.
//!
//! Axes known only at run time: each axis in turn is reduced and broadcast back, the result is taken where the axis is
//! named, and at the end one element of each named axis is kept.
//!
//! ```text
//! %y = reduce(%x, %axes) kind=sum keep_dims=true : f32[y.d0, y.d1]
//! ```
//! becomes, for x of two axes and one named,
//! ```text
//! %named = equal(%axes, [0, 1]) : bool[2]          after negative axes are counted from the front
//! %a = where(%named[0], broadcast of reduce(%x) axes=[0], %x)
//! %b = where(%named[1], broadcast of reduce(%a) axes=[1], %a)
//! %y = slice(%b, [0, 0], where(%named, 1, shape(%x)))
//! ```
//!
//! Fires on a reduction whose number of axes is known but not the axes, and on the extremum of booleans, which becomes
//! one of integers. A mean of integers, along whatever axes, is their sum in i64, divided once. A mean of planes
//! keeps its axes, and a squeeze drops them, where the target averages in the layout that the planes have. What comparisons of a
//! tensor with itself in another shape tell, cast to numbers, selects numbers instead, where the target reduces it wrongly
//! otherwise.
//!
//! Refuses nothing; an unknown rank or number of axes is no match.
//!
//! Order: any.
//!
//! Numerics: sums in another order; 1e-6 in f32.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, Expand, Reduce, ReduceKind, Reshape, Slice, Squeeze, UnaryOp};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::axes::{named_axes, unnamed_dims};
use crate::fold_constants::evaluate_one;
use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerReduce;

impl Rule for LowerReduce {
    fn name(&self) -> &'static str {
        "lower_reduce"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reduce]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Reduce(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let mut f = Formula::new(self.name(), graph, root);
        if f.info(0)?.dtype == DType::Bool {
            return boolean(f, op);
        }
        if let (false, Some(booleans)) = (context.capabilities.reduces_comparisons, booleans(graph, root)) {
            return selected(f, op, booleans);
        }
        let known = match &op.axes {
            Some(axes) => Some(axes.to_vec()),
            None if f.input(1).is_err() => Some(Vec::new()),
            None => f.info(1)?.known_ints(),
        };
        let is_mean = op.kind == ReduceKind::Mean && f.info(0)?.dtype.is_integer();
        match known {
            Some(axes) if is_mean && context.capabilities.dtypes.contains(&DType::I64) => {
                return integer_mean(f, op, &axes);
            }
            Some(axes) if context.capabilities.flattened_means => return flattened_mean(f, op, &axes),
            Some(_) => return Err(Miss::NoMatch),
            None => {}
        }
        let shape = f.shape(0)?;
        let count = f.info(1)?.fixed_dims().filter(|dims| dims.len() == 1).ok_or(Miss::NoMatch)?[0];
        let (rank, x, dtype) = (shape.len(), f.input(0)?, f.info(0)?.dtype);
        if count == 0 || count > rank {
            return Err(Miss::NoMatch);
        }
        let named = named_axes(&mut f, rank, count)?;
        let dims = f.dims(x);
        let one = f.number(DType::I64, 1.0)?;
        let kept = f.select(named, one, dims);
        let y = if shape.iter().any(|dim| dim.is(0)) {
            // Nothing to reduce: every element is the neutral one.
            let neutral = neutral(&mut f, op.kind)?;
            f.op(Expand { shape: None }, &[neutral, kept])
        } else {
            let starts = f.ints(&vec![0; rank]);
            let cut = Slice { axes: None, starts: None, ends: None, steps: None };
            if is_mean {
                // The sum may be beyond the type.
                let wide = if dtype == DType::I64 { x } else { f.cast(x, DType::I64) };
                let all = each_axis(&mut f, ReduceKind::Sum, wide, rank, named, dims);
                let sum = f.op(cut, &[all, starts, kept]);
                let mean = divided_by_count(&mut f, sum, named, dims)?;
                if dtype == DType::I64 { mean } else { f.cast(mean, dtype) }
            } else {
                let all = each_axis(&mut f, op.kind, x, rank, named, dims);
                f.op(cut, &[all, starts, kept])
            }
        };
        if op.keep_dims {
            return Ok(f.result(y));
        }
        let shape = unnamed_dims(&mut f, named, dims, rank, count)?;
        let y = f.op(Reshape { shape: None, allow_zero: true }, &[y, shape]);
        Ok(f.result(y))
    }
}

/// The mean of planes, its axes dropped by an operator of their own.
fn flattened_mean(mut f: Formula<'_>, op: &Reduce, axes: &[i64]) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let mut planes: Vec<usize> = axes.iter().filter_map(|axis| resolve_axis(*axis, rank).ok()).collect();
    planes.sort_unstable();
    let is_mean = op.kind == ReduceKind::Mean && !op.keep_dims && f.info(0)?.dtype.is_float();
    if !is_mean || rank != 4 || planes != [2, 3] {
        return Err(Miss::NoMatch);
    }
    let x = f.input(0)?;
    let planes = Some(Ints::from_slice(&[2, 3]));
    let mean = f.op(Reduce { keep_dims: true, axes: planes.clone(), ..op.clone() }, &[x]);
    let y = f.op(Squeeze { axes: planes }, &[mean]);
    Ok(f.result(y))
}

/// TensorRT reduces no booleans.
fn boolean(mut f: Formula<'_>, op: &Reduce) -> Result<Patch, Miss> {
    let x = f.input(0)?;
    let wide = f.cast(x, DType::I32);
    let inputs: Vec<ValueRef> = std::iter::once(wide).chain(f.input(1).ok()).collect();
    let y = f.op(op.clone(), &inputs);
    // Of nothing, the maximum is the least integer.
    let y = f.with_number(BinaryOp::Greater, y, DType::I32, 0.0)?;
    Ok(f.result(y))
}

/// The booleans that a node reads as numbers, if they come from a comparison of a tensor with itself in another shape.
fn booleans(graph: &Graph, root: NodeId) -> Option<ValueRef> {
    let numbers = graph.input(root, 0)?;
    let Op::Cast(_) = graph.op(numbers.node)? else { return None };
    let booleans = graph.input(numbers.node, 0)?;
    let mut left = vec![booleans];
    for _ in 0..MOST_LOGIC {
        let at = left.pop()?.node;
        let inputs: Vec<ValueRef> = graph.node_inputs(at).into_iter().flatten().collect();
        match graph.op(at)? {
            Op::Binary(op) if op.is_comparison() && is_of_itself(graph, &inputs) => return Some(booleans),
            Op::Binary(op) if op.is_comparison() => {}
            Op::Binary(_) | Op::Unary(UnaryOp::Not) => left.extend(inputs),
            _ => {}
        }
    }
    None
}

/// Whether both of two inputs are one value, in different shapes or orders.
fn is_of_itself(graph: &Graph, inputs: &[ValueRef]) -> bool {
    matches!(inputs, [a, b] if a != b && viewed(graph, *a) == viewed(graph, *b))
}

/// Most operators between a comparison and what reads it that are looked at.
const MOST_LOGIC: usize = 16;

/// The value that others show in another shape or order.
fn viewed(graph: &Graph, mut value: ValueRef) -> ValueRef {
    while let Some(
        Op::Reshape(_) | Op::Squeeze(_) | Op::Unsqueeze(_) | Op::Flatten(_) | Op::Transpose(_) | Op::Expand(_),
    ) = graph.op(value.node)
    {
        let Some(input) = graph.input(value.node, 0) else { break };
        value = input;
    }
    value
}

/// A reduction of the ones and zeros that booleans select.
fn selected(mut f: Formula<'_>, op: &Reduce, booleans: ValueRef) -> Result<Patch, Miss> {
    let dtype = f.info(0)?.dtype;
    let (one, zero) = (f.number(dtype, 1.0)?, f.number(dtype, 0.0)?);
    let numbers = f.select(booleans, one, zero);
    let inputs: Vec<ValueRef> = std::iter::once(numbers).chain(f.input(1).ok()).collect();
    let y = f.op(op.clone(), &inputs);
    Ok(f.result(y))
}

/// The sum in i64, which has a place for it, by the number of elements: rounded towards zero.
fn integer_mean(mut f: Formula<'_>, op: &Reduce, axes: &[i64]) -> Result<Patch, Miss> {
    let (shape, dtype, x) = (f.shape(0)?.clone(), f.info(0)?.dtype, f.input(0)?);
    if axes.is_empty() && op.noop_if_empty {
        return Err(Miss::NoMatch);
    }
    let axes: Option<Vec<usize>> = match axes {
        [] => Some((0..shape.len()).collect()),
        axes => axes.iter().map(|axis| resolve_axis(*axis, shape.len()).ok()).collect(),
    };
    let axes = axes.ok_or(Miss::NoMatch)?;
    let sizes: Option<Vec<&Dim>> = axes.iter().map(|axis| shape.get(*axis)).collect();
    let sizes = sizes.ok_or(Miss::NoMatch)?;
    // The mean of nothing is no quotient.
    if sizes.iter().any(|size| size.is(0)) {
        return Err(Miss::NoMatch);
    }
    let fixed: Option<i64> = sizes.iter().map(|size| size.value()).product();
    let count = match fixed {
        Some(count) => f.number(DType::I64, count as f64)?,
        None => {
            let dims = f.dims(x);
            let parts: Vec<ValueRef> = axes.iter().map(|axis| f.cut(dims, *axis as i64, *axis as i64 + 1)).collect();
            let sizes = f.concat(&parts, 0);
            let count = f.reduce(ReduceKind::Prod, sizes, &[0]);
            f.reshape(count, Shape::new())
        }
    };
    let wide = if dtype == DType::I64 { x } else { f.cast(x, DType::I64) };
    let axes: Ints = axes.iter().map(|axis| *axis as i64).collect();
    let sum = Reduce { kind: ReduceKind::Sum, axes: Some(axes), ..op.clone() };
    let sum = f.op(sum, &[wide]);
    let mean = f.binary(BinaryOp::Div, sum, count);
    let mean = if dtype == DType::I64 { mean } else { f.cast(mean, dtype) };
    Ok(f.result(mean))
}

/// One axis after another, each reduced where it is named, none changed in size.
fn each_axis(
    f: &mut Formula<'_>,
    kind: ReduceKind,
    x: ValueRef,
    rank: usize,
    named: ValueRef,
    dims: ValueRef,
) -> ValueRef {
    // What is done to each element once, before and after the reductions.
    let (mut y, step) = match kind {
        ReduceKind::L1 => (f.unary(UnaryOp::Abs, x), ReduceKind::Sum),
        ReduceKind::L2 | ReduceKind::SumSquare => (f.binary(BinaryOp::Mul, x, x), ReduceKind::Sum),
        ReduceKind::LogSum => (x, ReduceKind::Sum),
        kind => (x, kind),
    };
    for axis in 0..rank as i64 {
        let reduced = f.reduce(step, y, &[axis]);
        let spread = f.op(Expand { shape: None }, &[reduced, dims]);
        let is_named = f.cut(named, axis, axis + 1);
        y = f.select(is_named, spread, y);
    }
    match kind {
        ReduceKind::L2 => f.unary(UnaryOp::Sqrt, y),
        ReduceKind::LogSum => f.unary(UnaryOp::Log, y),
        _ => y,
    }
}

/// A sum in i64 of integers as their mean: it is rounded once, not along each axis.
fn divided_by_count(f: &mut Formula<'_>, sum: ValueRef, named: ValueRef, dims: ValueRef) -> Result<ValueRef, Miss> {
    let one = f.number(DType::I64, 1.0)?;
    let sizes = f.select(named, dims, one);
    let count = f.reduce(ReduceKind::Prod, sizes, &[0]);
    let count = f.reshape(count, Shape::new());
    Ok(f.binary(BinaryOp::Div, sum, count))
}

/// What a reduction of nothing gives, in one element.
fn neutral(f: &mut Formula<'_>, kind: ReduceKind) -> Result<ValueRef, Miss> {
    let dtype = f.info(0)?.dtype;
    let nothing = Tensor::number(dtype, 0.0).and_then(|zero| {
        let nothing = Tensor::new(dtype, [0], zero.bytes().slice(..0)).ok()?;
        let reduce = Reduce { kind, axes: Some(Ints::from_slice(&[0])), keep_dims: false, noop_if_empty: false };
        evaluate_one(&reduce.into(), &[Some(&nothing)])
    });
    Ok(f.constant(nothing.ok_or(Miss::NoMatch)?))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Capabilities;
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{random_inputs, run_for, run_rule};

    /// Compares with the reduction over the axes as a constant.
    fn check(kind: &str, axes: &[i64], keep_dims: bool) {
        let count = axes.len();
        let reduce = format!("reduce(%x, %a) kind={kind} keep_dims={keep_dims}");
        let run =
            run_rule(LowerReduce, &format!("graph g(%x: f32[2, 3, 4], %a: i64[{count}]) -> (%y) {{ %y = {reduce} }}"));
        assert_eq!(run.rewrites, 1);
        let mut inputs = random_inputs(&run.before, 1, 7);
        inputs[1] = Tensor::vector(axes.to_vec());
        let expected = eval_graph(&run.before, &inputs).unwrap();
        let found = eval_graph(&run.after, &inputs).unwrap();
        assert!(crate::testing::difference(&expected[0], &found[0]) < 1e-5, "{kind} over {axes:?}\n{}", run.after);
    }

    #[test]
    fn fires_on_axes_of_run_time() {
        for kind in ["sum", "mean", "max", "min", "prod", "l1", "l2", "sum_square", "log_sum_exp"] {
            check(kind, &[1], true);
            check(kind, &[2, -3], false);
            check(kind, &[0, 1, 2], false);
        }
    }

    #[test]
    fn reductions_of_nothing_are_neutral() {
        let text = "graph g(%x: f32[2, 0, 4], %a: i64[1]) -> (%y) { %y = reduce(%x, %a) kind=prod keep_dims=true }";
        let run = run_rule(LowerReduce, text);
        let inputs = [Tensor::from_vec([2, 0, 4], Vec::<f32>::new()).unwrap(), Tensor::vector(vec![1_i64])];
        let found = eval_graph(&run.after, &inputs).unwrap();
        assert_eq!(found[0], Tensor::full([2, 1, 4], 1_f32).unwrap());
    }

    #[test]
    fn fires_on_booleans() {
        let text = "graph g(%x: bool[2, n]) -> (%y) { %y = reduce(%x) kind=max axes=[1] keep_dims=true }";
        let run = run_rule(LowerReduce, text);
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: bool[2, n]) -> (%y) {
          %y.1 = cast(%x) to=i32 saturate=true : i32[2, n]
          %y.2 = reduce(%y.1) kind=max axes=[1] keep_dims=true : i32[2, 1]
          %y.lower_reduce = constant() value=i32[] {0}
          %y = greater(%y.2, %y.lower_reduce) : bool[2, 1]
        }
        ");
    }

    #[test]
    fn the_maximum_of_no_booleans_is_false() {
        for (kind, expected) in [("max", false), ("min", true)] {
            let text =
                format!("graph g(%x: bool[2, 0]) -> (%y) {{ %y = reduce(%x) kind={kind} axes=[1] keep_dims=false }}");
            let run = run_rule(LowerReduce, &text);
            let nothing = Tensor::from_vec([2, 0], Vec::<bool>::new()).unwrap();
            assert_eq!(eval_graph(&run.after, &[nothing]).unwrap(), [Tensor::vector(vec![expected; 2])], "{kind}");
        }
    }

    #[test]
    fn means_of_integers_are_rounded_once() {
        let text = "graph g(%x: i32[2, 2], %a: i64[2]) -> (%y) { %y = reduce(%x, %a) kind=mean keep_dims=false }";
        let run = run_rule(LowerReduce, text);
        for (numbers, mean) in [([1, 2, 0, 1], 1), ([-1, -2, 0, -4], -1), ([i32::MAX; 4], i32::MAX)] {
            let inputs = [Tensor::from_vec([2, 2], numbers.to_vec()).unwrap(), Tensor::vector(vec![0_i64, 1])];
            assert_eq!(eval_graph(&run.after, &inputs).unwrap(), [Tensor::from_vec([], vec![mean]).unwrap()]);
        }
    }

    #[test]
    fn fires_on_means_of_integers() {
        let text = "graph g(%x: i32[n, 3]) -> (%y) { %y = reduce(%x) kind=mean axes=[1, 0] keep_dims=true }";
        let run = run_rule(LowerReduce, text);
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: i32[n, 3]) -> (%y) {
          %y.7 = cast(%x) to=i64 saturate=true : i64[n, 3]
          %y.8 = reduce(%y.7) kind=sum axes=[1, 0] keep_dims=true : i64[1, 1]
          %y.1 = shape(%x) start=0 : i64[2]
          %y.2 = slice(%y.1) axes=[0] starts=[1] ends=[2] steps=[1] : i64[1]
          %y.3 = slice(%y.1) axes=[0] starts=[0] ends=[1] steps=[1] : i64[1]
          %y.4 = concat(%y.2, %y.3) axis=0 : i64[2]
          %y.5 = reduce(%y.4) kind=prod axes=[0] keep_dims=true noop_if_empty=true : i64[1]
          %y.6 = reshape(%y.5) shape=[] allow_zero=true : i64[]
          %y.9 = div(%y.8, %y.6) : i64[1, 1]
          %y = cast(%y.9) to=i32 saturate=true : i32[1, 1]
        }
        ");
        let most = Tensor::full([2, 3], i32::MAX).unwrap();
        assert_eq!(eval_graph(&run.after, &[most]).unwrap(), [Tensor::full([1, 1], i32::MAX).unwrap()]);
        let text = "graph g(%x: i32[2, 2]) -> (%y) { %y = reduce(%x) kind=mean keep_dims=false }";
        let run = run_rule(LowerReduce, text);
        let x = Tensor::from_vec([2, 2], vec![-1_i32, -2, 0, -4]).unwrap();
        assert_eq!(eval_graph(&run.after, &[x]).unwrap(), [Tensor::from_vec([], vec![-1_i32]).unwrap()]);
    }

    #[test]
    fn means_of_planes_keep_their_axes_for_tensorrt_8() {
        let text = "graph g(%x: f32[n, 3, 4, 3]) -> (%y) { %y = reduce(%x) kind=mean axes=[2, -1] keep_dims=false }";
        let before: Graph = text.parse().unwrap();
        let target = Capabilities::tensorrt((8, 5, 3));
        let after = run_for(LowerReduce, &before, &target);
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[n, 3, 4, 3]) -> (%y) {
          %y.1 = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, 3, 1, 1]
          %y = squeeze(%y.1) axes=[2, 3] : f32[n, 3]
        }
        ");
        let inputs = random_inputs(&before, 2, 7);
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
        assert_eq!(run_for(LowerReduce, &after, &target).to_string(), after.to_string());
        assert_eq!(run_for(LowerReduce, &before, &Capabilities::default()).to_string(), before.to_string());
        // The axes as an input.
        let given = text.replace("reduce(%x)", "reduce(%x, %k)").replace("axes=[2, -1] ", "");
        let given = given.replace("%y =", "%k = constant() value=i64[2] {-1, 2} %y =");
        let given: Graph = given.parse().unwrap();
        let kept = run_for(LowerReduce, &given, &target);
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&kept, &inputs).unwrap());
        assert_eq!(kept.live_of(&[OpKind::Squeeze]).len(), 1);
        // Other axes, another kind, another type.
        for (from, to) in [("[2, -1]", "[1, 2]"), ("kind=mean", "kind=max"), ("f32[n", "i32[n")] {
            let before: Graph = text.replace(from, to).replace("[n,", "[2,").parse().unwrap();
            assert_eq!(run_for(LowerReduce, &before, &target).to_string(), before.to_string(), "{to}");
        }
    }

    #[test]
    fn booleans_that_tensorrt_8_reduces_select_numbers() {
        let text = "graph g(%x: f32[3, n]) -> (%y, %z) {
            %each = unsqueeze(%x) axes=[1]
            %other = unsqueeze(%x) axes=[0]
            %same = equal(%each, %other)
            %odd = not(%same)
            %number = cast(%odd) to=f32 saturate=true
            %y = reduce(%number) kind=sum axes=[2] keep_dims=false
            %z = reduce(%same) kind=min axes=[0] keep_dims=true }";
        let before: Graph = text.parse().unwrap();
        let target = Capabilities::tensorrt((8, 5, 3));
        let after = run_for(LowerReduce, &before, &target);
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[3, n]) -> (%y, %z) {
          %each = unsqueeze(%x) axes=[1] : f32[3, 1, n]
          %other = unsqueeze(%x) axes=[0] : f32[1, 3, n]
          %same = equal(%each, %other) : bool[3, 3, n]
          %odd = not(%same) : bool[3, 3, n]
          %y.lower_reduce = constant() value=f32[] {1.0}
          %y.lower_reduce.1 = constant() value=f32[] {0.0}
          %y.1 = where(%odd, %y.lower_reduce, %y.lower_reduce.1) : f32[3, 3, n]
          %y = reduce(%y.1) kind=sum axes=[2] : f32[3, 3]
          %z.2.lower_reduce = constant() value=i32[] {1}
          %z.2.lower_reduce.1 = constant() value=i32[] {0}
          %z.2.1 = where(%same, %z.2.lower_reduce, %z.2.lower_reduce.1) : i32[3, 3, n]
          %z.2 = reduce(%z.2.1) kind=min axes=[0] keep_dims=true : i32[1, 3, n]
          %z.lower_reduce = constant() value=i32[] {0}
          %z = greater(%z.2, %z.lower_reduce) : bool[1, 3, n]
        }
        ");
        let inputs = [Tensor::from_vec([3, 2], vec![1.0_f32, 2.0, 1.0, 0.0, 1.0, 2.0]).unwrap()];
        assert_eq!(eval_graph(&before, &inputs).unwrap(), eval_graph(&after, &inputs).unwrap());
        assert_eq!(run_for(LowerReduce, &after, &target).to_string(), after.to_string());
        // What is no comparison of two shapes of one tensor, and another target.
        let alone = text.replace(", %z)", ")");
        for (from, to) in [("equal(%each, %other)", "equal(%each, %each)"), ("cast(%odd)", "cast(%x)")] {
            let before: Graph = alone.replace(from, to).replace("axes=[2]", "axes=[1]").parse().unwrap();
            assert_eq!(run_for(LowerReduce, &before, &target).to_string(), before.to_string(), "{to}");
        }
        let before: Graph = alone.parse().unwrap();
        assert_eq!(run_for(LowerReduce, &before, &Capabilities::default()).to_string(), before.to_string());
    }

    #[test]
    fn leaves_known_axes_alone() {
        for text in [
            "graph g(%x: f32[2, 3]) -> (%y) { %y = reduce(%x) kind=sum axes=[1] keep_dims=true }",
            "graph g(%x: f32[2, 3], %a: i64[k]) -> (%y) { %y = reduce(%x, %a) kind=sum keep_dims=true }",
            "graph g(%x: f32[..], %a: i64[1]) -> (%y) { %y = reduce(%x, %a) kind=sum keep_dims=true }",
        ] {
            assert_eq!(run_rule(LowerReduce, text).rewrites, 0);
        }
    }
}
