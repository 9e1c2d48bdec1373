//! Makes indices that count from the end of an axis count from its beginning.
//!
//! ```text
//! %y = scatter_elements(%x, %i, %u) axis=0 reduction=none : f32[5]
//! ```
//! becomes
//! ```text
//! %1 = less(%i, 0) : bool[2]
//! %2 = add(%i, 5) : i64[2]
//! %3 = where(%1, %2, %i) : i64[2]
//! %y = scatter_elements(%x, %3, %u) axis=0 reduction=none : f32[5]
//! ```
//!
//! Fires on the indices of `gather_elements`, `gather_nd`, `scatter_elements`, `scatter_nd` and `one_hot` that are not
//! known to be at least 0: TensorRT does not say that these layers count from the end. `gather` does along axes whose sizes
//! are known when it is built, so that it is taken along others alone. Indices that have their axis's size added where they
//! are below 0 are taken to be at least 0, as if it were added to no smaller ones than ONNX lets an index be. Constants are
//! folded afterwards.
//!
//! Refuses nothing; data of unknown rank are no match, nor is an axis longer than the type of its indices can count.
//!
//! Order: any; a scatter with a reduction is written out.
//!
//! Numerics: bit-exact.

use std::cell::Cell;

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, Reshape, ScatterReduction, ShapeOf, UnaryOp};
use trt_fuse_ir::{DType, Dim, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// How many nodes of the computation of indices are looked at.
const MOST_STEPS: usize = 64;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerIndices;

impl Rule for LowerIndices {
    fn name(&self) -> &'static str {
        "lower_indices"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[
            OpKind::Gather,
            OpKind::GatherElements,
            OpKind::GatherNd,
            OpKind::ScatterElements,
            OpKind::ScatterNd,
            OpKind::OneHot,
        ]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let mut f = Formula::new(self.name(), graph, root);
        let op = graph.op(root).ok_or(Miss::NoMatch)?;
        let slot = usize::from(!matches!(op, Op::OneHot(_)));
        let indices = f.input(slot)?;
        let sizes = f.shape(0).ok().and_then(|shape| axes_of(op, shape, f.shape(1).ok()));
        let most = if f.info(slot)?.dtype == DType::I32 { i64::from(i32::MAX) } else { i64::MAX };
        if sizes.is_some_and(|sizes| sizes.is_empty() || sizes.iter().filter_map(Dim::value).any(|size| size > most)) {
            return Err(Miss::NoMatch);
        }
        if is_counted(graph, indices, sizes.unwrap_or(&[])) {
            return Err(Miss::NoMatch);
        }
        let size = match op {
            Op::Gather(op) => {
                let (axis, shape) = (op.axis, f.shape(0)?);
                let at = resolve_axis(axis, shape.len()).map_err(|_| Miss::NoMatch)?;
                if shape.get(at).is_some_and(|dim| dim.value().is_some()) {
                    return Err(Miss::NoMatch);
                }
                size_of(&mut f, axis)?
            }
            Op::GatherElements(op) => size_of(&mut f, op.axis)?,
            Op::ScatterElements(op) if op.reduction == ScatterReduction::None => size_of(&mut f, op.axis)?,
            Op::GatherNd(op) => sizes_of(&mut f, op.batch_dims)?,
            Op::ScatterNd(op) if op.reduction == ScatterReduction::None => sizes_of(&mut f, 0)?,
            Op::OneHot(_) => depth(&mut f)?,
            _ => return Err(Miss::NoMatch),
        };
        let dtype = f.info(slot)?.dtype;
        let is_negative = f.with_number(BinaryOp::Less, indices, dtype, 0.0)?;
        let moved = f.binary(BinaryOp::Add, indices, size);
        let mut counted = f.select(is_negative, moved, indices);
        if matches!(op, Op::OneHot(_)) {
            // What is not in the range has no class, from whichever side.
            let is_below = f.with_number(BinaryOp::Less, counted, dtype, 0.0)?;
            let nowhere = f.with_number(BinaryOp::Max, size, dtype, 0.0)?;
            counted = f.select(is_below, nowhere, counted);
        }
        let mut inputs = graph.node_inputs(root);
        if let Some(input) = inputs.get_mut(slot) {
            *input = Some(counted);
        }
        let y = f.many(op.clone(), &inputs, 1);
        Ok(f.results(&y))
    }
}

/// The sizes of the data's axes that indices go along: one, or one for each number of a tuple, of which the shape of the
/// indices tells.
fn axes_of<'s>(op: &Op, data: &'s [Dim], indices: Option<&Shape>) -> Option<&'s [Dim]> {
    let one = |axis| data.get(resolve_axis(axis, data.len()).ok()?).map(std::slice::from_ref);
    let tuple = |start: usize| {
        let depth = usize::try_from(indices?.last()?.value()?).ok()?;
        data.get(start..start.checked_add(depth)?)
    };
    match op {
        Op::Gather(op) => one(op.axis),
        Op::GatherElements(op) => one(op.axis),
        Op::ScatterElements(op) => one(op.axis),
        Op::GatherNd(op) => tuple(usize::try_from(op.batch_dims).ok()?),
        Op::ScatterNd(_) => tuple(0),
        _ => None,
    }
}

/// The size of an axis of the data, in the type of the indices.
fn size_of(f: &mut Formula<'_>, axis: i64) -> Result<ValueRef, Miss> {
    let axis = resolve_axis(axis, f.shape(0)?.len()).map_err(|_| Miss::NoMatch)?;
    let size = sizes(f, axis, axis + 1)?;
    Ok(f.reshape(size, Shape::new()))
}

/// The sizes of the axes that the tuples of indices go along.
fn sizes_of(f: &mut Formula<'_>, batch_dims: i64) -> Result<ValueRef, Miss> {
    let depth = f.shape(1)?.last().and_then(Dim::value).ok_or(Miss::NoMatch)?;
    let start = usize::try_from(batch_dims).map_err(|_| Miss::NoMatch)?;
    let depth = usize::try_from(depth).map_err(|_| Miss::NoMatch)?;
    sizes(f, start, start.saturating_add(depth))
}

/// A range of the data's sizes as a vector, in the type of the indices.
fn sizes(f: &mut Formula<'_>, start: usize, end: usize) -> Result<ValueRef, Miss> {
    let dims = f.shape(0)?.get(start..end).ok_or(Miss::NoMatch)?;
    let fixed: Option<Vec<i64>> = dims.iter().map(Dim::value).collect();
    let sizes = match fixed {
        Some(sizes) => f.ints(&sizes),
        None => {
            let x = f.input(0)?;
            f.op(ShapeOf { start: start as i64, end: Some(end as i64) }, &[x])
        }
    };
    let dtype = f.info(1)?.dtype;
    Ok(if dtype == DType::I64 { sizes } else { f.cast(sizes, dtype) })
}

/// The number of classes, in the type of the indices.
fn depth(f: &mut Formula<'_>) -> Result<ValueRef, Miss> {
    let (x, dtype) = (f.input(1)?, f.info(0)?.dtype);
    let x = if f.info(1)?.dtype == DType::I64 { x } else { f.cast(x, DType::I64) };
    let x = f.op(Reshape { shape: Some(Shape::new()), allow_zero: true }, &[x]);
    Ok(if dtype == DType::I64 { x } else { f.cast(x, dtype) })
}

/// The size of a value's last axis.
fn width(graph: &Graph, value: ValueRef) -> Option<usize> {
    usize::try_from(graph.info(value)?.shape.as_ref()?.last()?.value()?).ok()
}

/// Whether indices along axes of such sizes are known to be at least 0.
fn is_counted(graph: &Graph, indices: ValueRef, sizes: &[Dim]) -> bool {
    let left = &Cell::new(MOST_STEPS);
    if sizes.len() < 2 {
        return is_non_negative(graph, indices, sizes.first(), left);
    }
    // Each number of a tuple has a size of its own. Only whole tuples, and columns as they are put together, tell which:
    // what moves numbers may exchange them.
    let is_known = match graph.op(indices.node) {
        Some(Op::Where) => counts_from_front(graph, indices.node, sizes, left),
        Some(Op::Concat(_)) => {
            let columns = graph.node_inputs(indices.node);
            let counted = |(column, size): (&Option<ValueRef>, &Dim)| {
                column.is_some_and(|column| {
                    width(graph, column) == Some(1) && is_non_negative(graph, column, Some(size), left)
                })
            };
            columns.len() == sizes.len() && columns.iter().zip(sizes).all(counted)
        }
        _ => false,
    };
    is_known || is_non_negative(graph, indices, None, left)
}

/// Whether the way in which numbers are computed tells that they are at least 0, if they are indices along an axis of a
/// size. `left` is how many more nodes are looked at.
fn is_non_negative(graph: &Graph, value: ValueRef, size: Option<&Dim>, left: &Cell<usize>) -> bool {
    if let Some(constant) = graph.constant(value) {
        return is_at_least_zero(constant);
    }
    if let Some(known) = graph.info(value).and_then(|info| info.known_ints()) {
        return known.iter().all(|number| *number >= 0);
    }
    let (Some(op), Some(fewer)) = (graph.op(value.node), left.get().checked_sub(1)) else { return false };
    left.set(fewer);
    let input = |slot| graph.input(value.node, slot);
    let holds = |slot| input(slot).is_some_and(|input| is_non_negative(graph, input, size, left));
    match op {
        Op::ShapeOf(_) | Op::Size | Op::NonZero | Op::ArgReduce(_) => true,
        Op::TopK(_) => value.slot == 1,
        Op::Cast(_) => input(0).is_some_and(|x| graph.dtype(x) == DType::Bool) || holds(0),
        Op::Reshape(_)
        | Op::Unsqueeze(_)
        | Op::Squeeze(_)
        | Op::Transpose(_)
        | Op::Slice(_)
        | Op::Expand(_)
        | Op::Gather(_)
        | Op::Unary(UnaryOp::Identity | UnaryOp::Floor | UnaryOp::Ceil | UnaryOp::Round) => holds(0),
        Op::Unary(UnaryOp::Abs | UnaryOp::Sqrt | UnaryOp::Exp) => true,
        Op::Concat(_) => (0..graph.node_inputs(value.node).len()).all(holds),
        Op::Binary(BinaryOp::Max) => holds(0) || holds(1),
        Op::Binary(BinaryOp::Add | BinaryOp::Mul | BinaryOp::Min | BinaryOp::Div) => holds(0) && holds(1),
        // The remainder has the sign of the divisor.
        Op::Binary(BinaryOp::Mod) => holds(1),
        Op::Where => {
            let sizes = size.map_or(&[][..], std::slice::from_ref);
            // First what this rule writes: what is in front of it may take all there is left.
            counts_from_front(graph, value.node, sizes, left) || (holds(1) && holds(2))
        }
        _ => false,
    }
}

fn is_at_least_zero(constant: &Tensor) -> bool {
    let element = constant.repeated();
    let constant = element.as_ref().unwrap_or(constant);
    match (constant.to_i64s(), constant.to_f64s()) {
        (Some(numbers), _) => numbers.iter().all(|number| *number >= 0),
        (None, Some(numbers)) => numbers.iter().all(|number| *number >= 0.0),
        (None, None) => false,
    }
}

/// Whether a `where` is what this rule writes: `where(i < 0, i + size, i)`, or a number that is not negative in the place
/// of `i + size`.
fn counts_from_front(graph: &Graph, node: NodeId, sizes: &[Dim], left: &Cell<usize>) -> bool {
    let part = |slot: usize| graph.input(node, slot);
    let (Some(condition), Some(moved), Some(index)) = (part(0), part(1), part(2)) else { return false };
    let reads = |value: ValueRef, op: BinaryOp| {
        matches!(graph.op(value.node), Some(Op::Binary(found)) if *found == op)
            && graph.input(value.node, 0) == Some(index)
    };
    let zero = graph.input(condition.node, 1).and_then(|zero| graph.constant(zero));
    let is_zero =
        |zero: &Tensor| Tensor::number(zero.dtype(), 0.0).is_some_and(|number| number.bytes() == zero.bytes());
    let is_size = || graph.input(moved.node, 1).is_some_and(|by| reaches(graph, by, sizes));
    let is_moved = (reads(moved, BinaryOp::Add) && is_size()) || is_non_negative(graph, moved, None, left);
    reads(condition, BinaryOp::Less) && is_moved && zero.is_some_and(is_zero)
}

/// Whether a summand is at least the size of each axis, so that no index along it stays negative.
fn reaches(graph: &Graph, summand: ValueRef, sizes: &[Dim]) -> bool {
    let Some(info) = graph.info(summand) else { return false };
    let Some(elements) = info.known_elements() else { return false };
    let is_enough = |(element, size): (&Dim, &Dim)| (element - size).at_least(0);
    match elements.as_slice() {
        _ if sizes.is_empty() => false,
        [element] => sizes.iter().all(|size| is_enough((element, size))),
        elements => {
            let is_tuple = width(graph, summand) == Some(sizes.len());
            (sizes.len() == 1 || is_tuple) && elements.iter().zip(sizes.iter().cycle()).all(is_enough)
        }
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{Run, random_inputs, run_rule};

    /// Input 1 (or 0, of `one_hot`) holds the indices; checks that none that is read is negative.
    fn check(text: &str, slot: usize, indices: Tensor) -> Run {
        let run = run_rule(LowerIndices, text);
        assert_eq!(run.rewrites, 1, "{text}");
        let mut inputs = random_inputs(&run.before, 5, 3);
        inputs[slot] = indices;
        assert_eq!(
            eval_graph(&run.before, &inputs).unwrap(),
            eval_graph(&run.after, &inputs).unwrap(),
            "{text}\n{}",
            run.after
        );
        run
    }

    #[test]
    fn fires_on_elements() {
        let text = "graph g(%x: f32[5], %i: i64[2], %u: f32[2]) -> (%y) {
            %y = scatter_elements(%x, %i, %u) axis=0 reduction=none }";
        insta::assert_snapshot!(check(text, 1, Tensor::vector(vec![-1_i64, 0])).after, @"
        graph g(%x: f32[5], %i: i64[2], %u: f32[2]) -> (%y) {
          %y.lower_indices.1 = constant() value=i64[] {0}
          %y.2 = less(%i, %y.lower_indices.1) : bool[2]
          %y.lower_indices = constant() value=i64[1] {5}
          %y.1 = reshape(%y.lower_indices) shape=[] allow_zero=true : i64[]
          %y.3 = add(%i, %y.1) : i64[2]
          %y.4 = where(%y.2, %y.3, %i) : i64[2]
          %y = scatter_elements(%x, %y.4, %u) axis=0 reduction=none : f32[5]
        }
        ");
        let text = "graph g(%x: f32[n, 3], %i: i32[2, 3]) -> (%y) { %y = gather_elements(%x, %i) axis=-2 }";
        insta::assert_snapshot!(check(text, 1, Tensor::from_vec([2, 3], vec![-1_i32, 0, 1, -5, 4, -4]).unwrap()).after, @"
        graph g(%x: f32[n, 3], %i: i32[2, 3]) -> (%y) {
          %y.lower_indices = constant() value=i32[] {0}
          %y.4 = less(%i, %y.lower_indices) : bool[2, 3]
          %y.1 = shape(%x) start=0 end=1 : i64[1]
          %y.2 = cast(%y.1) to=i32 saturate=true : i32[1]
          %y.3 = reshape(%y.2) shape=[] allow_zero=true : i32[]
          %y.5 = add(%i, %y.3) : i32[2, 3]
          %y.6 = where(%y.4, %y.5, %i) : i32[2, 3]
          %y = gather_elements(%x, %y.6) axis=-2 : f32[2, 3]
        }
        ");
    }

    #[test]
    fn fires_on_tuples() {
        let text = "graph g(%x: f32[n, 4, 2], %i: i64[2, 2]) -> (%y) { %y = gather_nd(%x, %i) batch_dims=0 }";
        let tuples = Tensor::from_vec([2, 2], vec![-1_i64, 0, 2, -4]).unwrap();
        insta::assert_snapshot!(check(text, 1, tuples.clone()).after, @"
        graph g(%x: f32[n, 4, 2], %i: i64[2, 2]) -> (%y) {
          %y.lower_indices = constant() value=i64[] {0}
          %y.2 = less(%i, %y.lower_indices) : bool[2, 2]
          %y.1 = shape(%x) start=0 end=2 : i64[2]
          %y.3 = add(%i, %y.1) : i64[2, 2]
          %y.4 = where(%y.2, %y.3, %i) : i64[2, 2]
          %y = gather_nd(%x, %y.4) batch_dims=0 : f32[2, 2]
        }
        ");
        let text = "graph g(%x: f32[3, 4], %i: i64[2, 2], %u: f32[2]) -> (%y) {
            %y = scatter_nd(%x, %i, %u) reduction=none }";
        check(text, 1, tuples);
        let text = "graph g(%x: f32[2, 4], %i: i64[2, 1]) -> (%y) { %y = gather_nd(%x, %i) batch_dims=1 }";
        check(text, 1, Tensor::from_vec([2, 1], vec![-1_i64, 3]).unwrap());
    }

    #[test]
    fn fires_on_classes() {
        for (dtype, depth) in [("i64", "i64[] {5}"), ("i32", "f32[1] {5.0}")] {
            let text = format!(
                "graph g(%i: {dtype}[4]) -> (%y) {{ %d = constant() value={depth}
                    %v = constant() value=f32[2] {{0.0, 1.0}} %y = one_hot(%i, %d, %v) axis=-1 }}"
            );
            let indices = Tensor::vector(vec![-1_i64, 3, 7, -9]);
            check(&text, 0, trt_fuse_ir::eval::convert(&indices, dtype.parse().unwrap()).unwrap());
        }
    }

    #[test]
    fn fires_on_gathers_along_sizes_of_run_time() {
        let text = "graph g(%x: f32[n], %i: i64[2]) -> (%y) { %y = gather(%x, %i) axis=0 }";
        check(text, 1, Tensor::vector(vec![-1_i64, 4]));
    }

    /// Of 5 elements, -3 plus 1 is still counted from the end, and -3 plus 5 is not.
    #[test]
    fn fires_on_what_another_number_than_the_size_moves() {
        let text = |by: &str, index: &str| {
            format!(
                "graph g(%x: f32[5], %i: i64[2]) -> (%y) {{ %zero = constant() value=i64[] {{0}}
                %by = constant() value=i64{by} %less = less(%i, %zero) %moved = add(%i, %by)
                %w = where(%less, %moved, %i) %y = {index} }}"
            )
        };
        let elements = "gather_elements(%x, %w) axis=0";
        check(&text("[] {1}", elements), 1, Tensor::vector(vec![-3_i64, 4]));
        assert_eq!(run_rule(LowerIndices, &text("[] {5}", elements)).rewrites, 0);
        assert_eq!(run_rule(LowerIndices, &text("[2] {5, 4}", elements)).rewrites, 1);
        // Two axes are two sizes.
        let pairs = "gather_nd(%z, %w) batch_dims=0";
        let columns = "concat(%j, %k) axis=0 %y = gather_nd(%z, %c) batch_dims=0";
        for (sizes, rewrites) in [([2, 7], 0), ([7, 2], 1)] {
            let [j, k] = sizes.map(|size| format!("constant() value=i64[1] {{{size}}}"));
            let text = format!(
                "graph g(%z: f32[2, 7], %a: i64[1], %b: i64[1]) -> (%y) {{ %zero = constant() value=i64[] {{0}}
                %sj = {j} %sk = {k} %la = less(%a, %zero) %ma = add(%a, %sj) %j = where(%la, %ma, %a)
                %lb = less(%b, %zero) %mb = add(%b, %sk) %k = where(%lb, %mb, %b) %c = {columns} }}"
            );
            assert_eq!(run_rule(LowerIndices, &text).rewrites, rewrites, "{sizes:?}");
        }
        for (by, rewrites) in [("[2] {2, 7}", 0), ("[2] {7, 2}", 1), ("[] {7}", 0), ("[] {2}", 1)] {
            let text = text(by, pairs).replace("graph g(", "graph g(%z: f32[2, 7], ");
            assert_eq!(run_rule(LowerIndices, &text).rewrites, rewrites, "{by}");
        }
    }

    #[test]
    fn fires_on_what_may_still_be_negative() {
        for (indices, rewrites) in [
            ("%l = less(%i, %zero) %m = add(%i, %size) %w = where(%l, %m, %i)", 0),
            // Another number to compare with, another comparison, another operator, another index.
            ("%l = less(%i, %below) %m = add(%i, %size) %w = where(%l, %m, %i)", 1),
            ("%l = greater(%i, %zero) %m = add(%i, %size) %w = where(%l, %m, %i)", 1),
            ("%l = less(%i, %zero) %m = sub(%i, %size) %w = where(%l, %m, %i)", 1),
            ("%l = less(%i, %zero) %m = add(%j, %size) %w = where(%l, %m, %i)", 1),
            ("%l = less(%j, %zero) %m = add(%i, %size) %w = where(%l, %m, %i)", 1),
            // One operand of two.
            ("%a = abs(%i) %w = min(%a, %j)", 1),
            ("%a = abs(%i) %w = max(%a, %j)", 0),
            ("%a = abs(%i) %w = mod(%a, %j)", 1),
            ("%a = abs(%i) %w = mod(%j, %a)", 0),
            // What is largest, not where.
            ("%k = constant() value=i64[1] {1} %w, %a = topk(%i, %k) axis=0 largest=true sorted=true", 1),
            ("%a = abs(%i) %l = less(%i, %j) %w = where(%l, %a, %j)", 1),
            ("%a = abs(%i) %l = less(%i, %j) %w = where(%l, %j, %a)", 1),
        ] {
            let text = format!(
                "graph g(%x: f32[5], %i: i64[2], %j: i64[2]) -> (%y) {{ %zero = constant() value=i64[] {{0}}
                %below = constant() value=i64[] {{-1}} %size = constant() value=i64[] {{5}} {indices}
                %y = gather_elements(%x, %w) axis=0 }}"
            );
            assert_eq!(run_rule(LowerIndices, &text).rewrites, rewrites, "{indices}");
        }
    }

    #[test]
    fn each_number_of_a_tuple_has_an_axis_of_its_own() {
        for (shape, body, rewrites) in [
            // Tuples one below another, each moved along one axis alone; numbers of the rows, not of the columns.
            (
                "[1, 2]",
                "%l = less(%i, %zero) %m = add(%i, %five) %a = where(%l, %m, %i) %k = less(%j, %zero)
                 %n = add(%j, %seven) %b = where(%k, %n, %j) %w = concat(%a, %b) axis=0 %y = gather_nd(%x, %w) batch_dims=0",
                1,
            ),
            (
                "[2, 2]",
                "%l = less(%i, %zero) %m = add(%i, %rows) %w = where(%l, %m, %i) %y = gather_nd(%x, %w) batch_dims=0",
                1,
            ),
            // The axes behind those of the batch.
            (
                "[5, 1]",
                "%l = less(%i, %zero) %m = add(%i, %five) %w = where(%l, %m, %i) %y = gather_nd(%x, %w) batch_dims=1",
                1,
            ),
            (
                "[5, 1]",
                "%l = less(%i, %zero) %m = add(%i, %seven) %w = where(%l, %m, %i) %y = gather_nd(%x, %w) batch_dims=1",
                0,
            ),
            // Numbers that are not negative for any axis.
            ("[2, 2]", "%w = abs(%i) %y = gather_nd(%x, %w) batch_dims=0", 0),
        ] {
            let text = format!(
                "graph g(%x: f32[5, 7], %i: i64{shape}, %j: i64{shape}) -> (%y) {{ %zero = constant() value=i64[] {{0}}
                %five = constant() value=i64[] {{5}} %seven = constant() value=i64[] {{7}}
                %rows = constant() value=i64[2, 1] {{5, 7}} {body} }}"
            );
            assert_eq!(run_rule(LowerIndices, &text).rewrites, rewrites, "{body}");
        }
    }

    #[test]
    fn comes_to_an_end_where_little_is_known() {
        for (inputs, op, rewrites) in [
            ("%x: f32[n], %i: i64[..]", "gather(%x, %i) axis=0", 1),
            ("%x: f32[5], %i: i64[..]", "gather_elements(%x, %i) axis=0", 1),
            ("%x: f32[5], %i: i64[..]", "scatter_elements(%x, %i, %x) axis=0 reduction=none", 1),
            ("%x: f32[n, m], %i: i32[2, m]", "gather_elements(%x, %i) axis=0", 1),
            ("%x: f32[n, m], %i: i32[3, 2]", "gather_nd(%x, %i) batch_dims=0", 1),
            // No axis is gone along, and one that 32 bits cannot count.
            ("%x: f32[3], %i: i64[2, 0]", "gather_nd(%x, %i) batch_dims=0", 0),
            ("%x: f32[3000000000], %i: i32[2]", "gather_elements(%x, %i) axis=0", 0),
        ] {
            // Runs a second time, which must change nothing.
            let run = run_rule(LowerIndices, &format!("graph g({inputs}) -> (%y) {{ %y = {op} }}"));
            assert_eq!(run.rewrites, rewrites, "{inputs}: {op}");
        }
    }

    #[test]
    fn looks_at_a_bounded_number_of_nodes() {
        let levels: Vec<String> = (1..=11)
            .map(|at| format!("%c{at} = concat({}) axis=0", vec![format!("%c{}", at - 1); 12].join(", ")))
            .collect();
        let text = format!(
            "graph g(%x: f32[n], %i: i64[0]) -> (%y) {{ %c0 = abs(%i) {} %y = gather(%x, %c11) axis=0 }}",
            levels.join(" ")
        );
        assert_eq!(run_rule(LowerIndices, &text).rewrites, 1);
    }

    #[test]
    fn leaves_what_counts_from_the_front_alone() {
        for text in [
            "graph g(%x: f32[5], %i: i64[2]) -> (%y) { %y = gather(%x, %i) axis=0 }",
            "graph g(%x: f32[..], %i: i64[2]) -> (%y) { %y = gather(%x, %i) axis=0 }",
            "graph g(%x: f32[n]) -> (%y) { %i = constant() value=i64[2] {0, 1} %y = gather_elements(%x, %i) axis=0 }",
            "graph g(%x: f32[n], %z: f32[2]) -> (%y) {
                %i = arg_reduce(%z) axis=0 keep_dims=true largest=true select_last=false
                %y = gather_elements(%x, %i) axis=0 }",
            "graph g(%x: f32[n, 3], %p: f32[n, 2, 1]) -> (%y) {
                %c = constant() value=f32[] {0.0} %1 = max(%p, %c) %i = cast(%1) to=i64
                %y = gather_nd(%x, %i) batch_dims=1 }",
            "graph g(%x: f32[5], %i: i64[2], %u: f32[2]) -> (%y) {
                %y = scatter_elements(%x, %i, %u) axis=0 reduction=add }",
            "graph g(%x: f32[5], %i: i64[2, 1], %u: f32[2]) -> (%y) { %y = scatter_nd(%x, %i, %u) reduction=add }",
            "graph g(%x: f32[9], %z: f32[5]) -> (%y) { %k = constant() value=i64[1] {2}
                %v, %i = topk(%z, %k) axis=0 largest=true sorted=true %y = gather_elements(%x, %i) axis=0 }",
        ] {
            assert_eq!(run_rule(LowerIndices, text).rewrites, 0, "{text}");
        }
    }
}
