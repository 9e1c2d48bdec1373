//! Writes a scatter with a reduction as a reduction over all updates, each where its index says.
//!
//! ```text
//! %y = scatter_elements(%x, %i, %u) axis=0 reduction=add : f32[5]
//! ```
//! becomes, for 3 updates,
//! ```text
//! %1 = equal(unsqueeze(%i), [[0, 1, 2, 3, 4]]) : bool[3, 5]
//! %2 = where(%1, unsqueeze(%u), 0) : f32[3, 5]
//! %3 = reduce(%2) kind=sum axes=[0] : f32[5]
//! %y = add(%x, %3) : f32[5]
//! ```
//!
//! Fires on every reduction when the shapes are numbers: TensorRT's scatter keeps the last update of an element alone.
//!
//! Refuses when the updates times the elements that they may fall on are more than a million. Shapes that are no numbers
//! are no match.
//!
//! Order: any.
//!
//! Numerics: sums in another order; 1e-6 in f32.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, ReduceKind, ScatterReduction};
use trt_fuse_ir::{DType, Dim, Dims, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// Most elements of the table of updates by targets.
const MOST_ELEMENTS: usize = 1 << 20;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerScatter;

impl Rule for LowerScatter {
    fn name(&self) -> &'static str {
        "lower_scatter"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::ScatterElements, OpKind::ScatterNd]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let mut f = Formula::new(self.name(), graph, root);
        let (reduction, axis) = match graph.op(root) {
            Some(Op::ScatterElements(op)) => (op.reduction, Some(op.axis)),
            Some(Op::ScatterNd(op)) => (op.reduction, None),
            _ => return Err(Miss::NoMatch),
        };
        let (join, kind) = match reduction {
            ScatterReduction::Add => (BinaryOp::Add, ReduceKind::Sum),
            ScatterReduction::Mul => (BinaryOp::Mul, ReduceKind::Prod),
            ScatterReduction::Max => (BinaryOp::Max, ReduceKind::Max),
            ScatterReduction::Min => (BinaryOp::Min, ReduceKind::Min),
            _ => return Err(Miss::NoMatch),
        };
        let fixed = |slot: usize| f.info(slot).ok().and_then(|info| info.fixed_dims()).ok_or(Miss::NoMatch);
        let (data, indices) = (fixed(0)?, fixed(1)?);
        let table = match axis {
            Some(axis) => by_element(&mut f, &data, &indices, axis)?,
            None => by_tuple(&mut f, &data, &indices)?,
        };
        // An update that does not fall on an element leaves it as it is: so does the element itself in its place for an
        // extremum.
        let x = f.input(0)?;
        let dtype = f.info(0)?.dtype;
        let shape: Shape = data.iter().map(|size| Dim::from(*size)).collect();
        let elsewhere = match kind {
            ReduceKind::Sum => f.number(dtype, 0.0)?,
            ReduceKind::Prod => f.number(dtype, 1.0)?,
            _ => f.reshape(x, table.as_one_update),
        };
        let chosen = f.select(table.falls, table.updates, elsewhere);
        let joined = f.reduce(kind, chosen, &[table.axis]);
        let joined = f.reshape(joined, shape);
        let y = f.binary(join, x, joined);
        Ok(f.result(y))
    }
}

/// Updates along one axis, the elements that they may fall on along the others.
struct Table {
    /// The axis of updates.
    axis: i64,
    /// Whether an update falls on an element.
    falls: ValueRef,
    /// The updates.
    updates: ValueRef,
    /// The data in the shape of one update.
    as_one_update: Shape,
}

fn sizes(dims: &[usize]) -> Shape {
    dims.iter().map(|size| Dim::from(*size)).collect()
}

fn product(dims: &[usize]) -> usize {
    dims.iter().fold(1, |product, size| product.saturating_mul(*size))
}

/// Refuses a table that is too large. The elements are numbered even where there are none, or no updates.
fn check_size(f: &Formula<'_>, data: &Dims, updates: usize) -> Result<(), Miss> {
    let sizes = data.iter().chain([&updates]);
    if sizes.fold(1_usize, |product, size| product.saturating_mul((*size).max(1))) > MOST_ELEMENTS {
        let reason = "the updates times the elements that they may fall on are more than a million";
        return Err(Miss::Blocked { reason, at: f.root() });
    }
    Ok(())
}

/// Numbers from 0 as a tensor of these sizes.
fn numbers(f: &mut Formula<'_>, dims: &[usize]) -> Result<ValueRef, Miss> {
    let numbers = Tensor::from_vec(dims, (0..product(dims) as i64).collect());
    Ok(f.constant(numbers.map_err(|_| Miss::NoMatch)?))
}

/// Indices in i64, negative ones counted from the end.
fn counted(f: &mut Formula<'_>, indices: ValueRef, own: DType, size: usize) -> Result<ValueRef, Miss> {
    let indices = if own == DType::I64 { indices } else { f.cast(indices, DType::I64) };
    f.with_number(BinaryOp::Mod, indices, DType::I64, size as f64)
}

/// Updates of the data's rank, each moved along one axis: `[before.., updates, elements of the axis, after..]`. Off the
/// axis the updates' sizes may be smaller than the data's: the missing ones fall nowhere.
fn by_element(f: &mut Formula<'_>, data: &Dims, indices: &Dims, axis: i64) -> Result<Table, Miss> {
    let rank = data.len();
    let axis = resolve_axis(axis, rank).map_err(|_| Miss::NoMatch)?;
    let size = *data.get(axis).ok_or(Miss::NoMatch)?;
    check_size(f, data, indices.get(axis).copied().unwrap_or(1))?;
    let own = f.info(1)?.dtype;
    let (mut index, mut updates) = (f.input(1)?, f.input(2)?);
    index = counted(f, index, own, size)?;
    let mut pads = trt_fuse_ir::Ints::from_elem(0, 2 * rank);
    for (at, (whole, part)) in data.iter().zip(indices).enumerate().filter(|(at, _)| *at != axis) {
        pads[rank + at] = whole.saturating_sub(*part) as i64;
    }
    if pads.iter().any(|pad| *pad > 0) {
        let pad = || trt_fuse_ir::op::Pad { mode: trt_fuse_ir::op::PadMode::Constant, pads: Some(pads.clone()) };
        let nowhere = f.number(DType::I64, -1.0)?;
        index = f.pad(pad(), index, nowhere);
        let zero = f.number(f.info(2)?.dtype, 0.0)?;
        updates = f.pad(pad(), updates, zero);
    }
    let at = axis as i64 + 1;
    let (index, updates) = (f.unsqueeze(index, &[at]), f.unsqueeze(updates, &[at]));
    let mut row = vec![1; rank + 1];
    row[axis + 1] = size;
    let targets = numbers(f, &row)?;
    let falls = f.binary(BinaryOp::Equal, index, targets);
    let mut one = data.to_vec();
    one.insert(axis, 1);
    Ok(Table { axis: axis as i64, falls, updates, as_one_update: sizes(&one) })
}

/// Updates of whole slices: `[updates, slices, elements of a slice]`.
fn by_tuple(f: &mut Formula<'_>, data: &Dims, indices: &Dims) -> Result<Table, Miss> {
    let (depth, tuples) = indices.split_last().ok_or(Miss::NoMatch)?;
    let (outer, inner) = data.split_at_checked(*depth).ok_or(Miss::NoMatch)?;
    let (count, slices, slice) = (product(tuples), product(outer), product(inner));
    check_size(f, data, count)?;
    let own = f.info(1)?.dtype;
    let index = f.input(1)?;
    let index = f.reshape(index, sizes(&[count, *depth]));
    let index = if own == DType::I64 { index } else { f.cast(index, DType::I64) };
    let extents = f.ints(&outer.iter().map(|size| *size as i64).collect::<Vec<_>>());
    let index = f.binary(BinaryOp::Mod, index, extents);
    let strides: Vec<i64> = (0..*depth).map(|at| product(&outer[at + 1..]) as i64).collect();
    let strides = f.ints(&strides);
    let flat = f.binary(BinaryOp::Mul, index, strides);
    let flat = f.reduce(ReduceKind::Sum, flat, &[1]);
    let flat = f.reshape(flat, sizes(&[count, 1, 1]));
    let targets = numbers(f, &[1, slices, 1])?;
    let falls = f.binary(BinaryOp::Equal, flat, targets);
    let updates = f.input(2)?;
    let updates = f.reshape(updates, sizes(&[count, 1, slice]));
    Ok(Table { axis: 0, falls, updates, as_one_update: sizes(&[1, slices, slice]) })
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{random_inputs, run_rule};

    /// Random data and updates, given indices.
    fn check(text: &str, indices: Tensor) {
        for reduction in ["add", "mul", "max", "min"] {
            let run = run_rule(LowerScatter, &text.replace("R", reduction));
            assert_eq!(run.rewrites, 1);
            let mut inputs = random_inputs(&run.before, 1, 5);
            inputs[1] = indices.clone();
            let (a, b) = (eval_graph(&run.before, &inputs).unwrap(), eval_graph(&run.after, &inputs).unwrap());
            assert!(crate::testing::difference(&a[0], &b[0]) < 1e-6, "{reduction}\n{}", run.after);
        }
    }

    #[test]
    fn fires_on_elements() {
        check(
            "graph g(%x: f32[5], %i: i64[4], %u: f32[4]) -> (%y) { %y = scatter_elements(%x, %i, %u) axis=0 reduction=R }",
            Tensor::vector(vec![1_i64, 1, -1, 0]),
        );
        check(
            "graph g(%x: f32[3, 4, 2], %i: i32[2, 3, 1], %u: f32[2, 3, 1]) -> (%y) {
                %y = scatter_elements(%x, %i, %u) axis=1 reduction=R }",
            Tensor::from_vec([2, 3, 1], vec![0_i32, 3, 0, -1, -1, 2]).unwrap(),
        );
    }

    #[test]
    fn fires_on_slices() {
        check(
            "graph g(%x: f32[4, 3], %i: i64[3, 1], %u: f32[3, 3]) -> (%y) { %y = scatter_nd(%x, %i, %u) reduction=R }",
            Tensor::from_vec([3, 1], vec![1_i64, 1, -1]).unwrap(),
        );
        check(
            "graph g(%x: f32[2, 3, 4], %i: i64[2, 2, 2], %u: f32[2, 2, 4]) -> (%y) {
                %y = scatter_nd(%x, %i, %u) reduction=R }",
            Tensor::from_vec([2, 2, 2], vec![0_i64, 1, 1, 2, 0, 1, -1, -1]).unwrap(),
        );
    }

    #[test]
    fn becomes_a_reduction_over_the_updates() {
        let text = "graph g(%x: f32[5], %i: i64[3], %u: f32[3]) -> (%y) {
            %y = scatter_elements(%x, %i, %u) axis=0 reduction=add }";
        insta::assert_snapshot!(run_rule(LowerScatter, text).after, @"
        graph g(%x: f32[5], %i: i64[3], %u: f32[3]) -> (%y) {
          %y.lower_scatter = constant() value=i64[] {5}
          %y.1 = mod(%i, %y.lower_scatter) : i64[3]
          %y.2 = unsqueeze(%y.1) axes=[1] : i64[3, 1]
          %y.lower_scatter.1 = constant() value=i64[1, 5] {0, 1, 2, 3, 4}
          %y.4 = equal(%y.2, %y.lower_scatter.1) : bool[3, 5]
          %y.3 = unsqueeze(%u) axes=[1] : f32[3, 1]
          %y.lower_scatter.2 = constant() value=f32[] {0.0}
          %y.5 = where(%y.4, %y.3, %y.lower_scatter.2) : f32[3, 5]
          %y.6 = reduce(%y.5) kind=sum axes=[0] keep_dims=true noop_if_empty=true : f32[1, 5]
          %y.7 = reshape(%y.6) shape=[5] allow_zero=true : f32[5]
          %y = add(%x, %y.7) : f32[5]
        }
        ");
    }

    #[test]
    fn refuses_large_tables() {
        for text in [
            "graph g(%x: f32[2000], %i: i64[1000], %u: f32[1000]) -> (%y) {
                %y = scatter_elements(%x, %i, %u) axis=0 reduction=add }",
            // More elements than that by themselves, one update.
            "graph g(%x: f32[2000000], %i: i64[1], %u: f32[1]) -> (%y) {
                %y = scatter_elements(%x, %i, %u) axis=0 reduction=add }",
            "graph g(%x: f32[2000000], %i: i64[1, 1], %u: f32[1]) -> (%y) { %y = scatter_nd(%x, %i, %u) reduction=add }",
            // An axis as long where another one is empty.
            "graph g(%x: f32[0, 2000000], %i: i64[0, 1], %u: f32[0, 1]) -> (%y) {
                %y = scatter_elements(%x, %i, %u) axis=1 reduction=add }",
        ] {
            let run = run_rule(LowerScatter, text);
            let reason = "the updates times the elements that they may fall on are more than a million";
            assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]), "{text}");
        }
    }

    #[test]
    fn leaves_shapes_that_are_no_numbers_alone() {
        let text = "graph g(%x: f32[n], %i: i64[4], %u: f32[4]) -> (%y) {
            %y = scatter_elements(%x, %i, %u) axis=0 reduction=add }";
        let run = run_rule(LowerScatter, text);
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn leaves_plain_scatters_alone() {
        let text = "graph g(%x: f32[5], %i: i64[4], %u: f32[4]) -> (%y) {
            %y = scatter_elements(%x, %i, %u) axis=0 reduction=none }";
        assert_eq!(run_rule(LowerScatter, text).rewrites, 0);
    }
}
