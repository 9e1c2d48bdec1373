//! Finds the largest or smallest integers by counting, where the target's top-k takes none.
//!
//! ```text
//! %y, %i = topk(%x, %k) axis=0 largest=true : i64[k], i64[k]            %x : i64[n]
//! ```
//! becomes
//! ```text
//! %1 = greater(%x by columns, %x by rows)
//! %2 = or(%1, and(equal(%x by columns, %x by rows), less(columns, rows))) : bool[n, n]
//! %3 = reduce(cast(%2)) kind=sum axes=[1] : i64[n]                       how many come before each
//! %4 = equal(range(k) by rows, %3 by columns) : bool[k, n]
//! %i = reduce(where(%4, columns, 0)) kind=sum axes=[1] : i64[k]
//! %y = gather_elements(%x, %i) axis=0
//! ```
//!
//! Fires on integers for TensorRT before 10: lengths that are sorted, as in front of a recurrent layer. As f32 those beyond
//! 2^24 would be one number. Of equal elements the first comes first.
//!
//! Refuses when
//! - the axis is longer than [`LONGEST`]: the elements are compared two by two.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, GatherElements, Reduce, ReduceKind, Squeeze, TopK};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// Most elements along the axis.
const LONGEST: i64 = 1024;
const TOO_LONG: &str = "too many integers to be compared two by two";

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerTopK;

impl Rule for LowerTopK {
    fn name(&self) -> &'static str {
        "lower_top_k"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::TopK]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::TopK(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let f = Formula::new(self.name(), graph, root);
        if context.capabilities.top_k_integers || !f.info(0)?.dtype.is_integer() {
            return Err(Miss::NoMatch);
        }
        let shape = f.shape(0)?;
        let axis = resolve_axis(op.axis, shape.len()).map_err(|_| Miss::NoMatch)?;
        if shape.get(axis).and_then(Dim::value).is_some_and(|size| size > LONGEST) {
            return Err(Miss::Blocked { reason: TOO_LONG, at: root });
        }
        by_counting(f, op, axis)
    }
}

fn by_counting(mut f: Formula<'_>, op: &TopK, axis: usize) -> Result<Patch, Miss> {
    let (x, rank) = (f.input(0)?, f.shape(0)?.len());
    let [row, column] = [axis as i64, axis as i64 + 1];
    let behind: Vec<i64> = (2..(rank - axis + 1) as i64).collect();
    let shown = |f: &mut Formula<'_>, vector: ValueRef, first: i64| {
        let axes: Vec<i64> = std::iter::once(first).chain(behind.iter().copied()).collect();
        f.unsqueeze(vector, &axes)
    };
    let places = f.positions(0, axis)?;
    let (rows, columns) = (shown(&mut f, places, 1), shown(&mut f, places, 0));

    let (each, other) = (f.unsqueeze(x, &[column]), f.unsqueeze(x, &[row]));
    let better = f.binary(if op.largest { BinaryOp::Greater } else { BinaryOp::Less }, other, each);
    let equal = f.binary(BinaryOp::Equal, other, each);
    let earlier = f.binary(BinaryOp::Less, columns, rows);
    let earlier = f.binary(BinaryOp::And, equal, earlier);
    let before = f.binary(BinaryOp::Or, better, earlier);
    let before = f.cast(before, DType::I64);
    let sum = Reduce {
        kind: ReduceKind::Sum,
        axes: Some(Ints::from_slice(&[column])),
        keep_dims: false,
        noop_if_empty: true,
    };
    let before = f.op(sum.clone(), &[before]);

    let wanted = match f.info(1)?.known_ints().as_deref() {
        Some([k]) => f.ints(&(0..*k).collect::<Vec<_>>()),
        _ => {
            let k = f.input(1)?;
            let k = f.op(Squeeze { axes: Some(Ints::from_slice(&[0])) }, &[k]);
            f.count_up(k)?
        }
    };
    let wanted = shown(&mut f, wanted, 1);
    let before = f.unsqueeze(before, &[row]);
    let is_there = f.binary(BinaryOp::Equal, wanted, before);
    let none = f.number(DType::I64, 0.0)?;
    let index = f.select(is_there, columns, none);
    let indices = f.op(sum, &[index]);
    let values = f.op(GatherElements { axis: row }, &[x, indices]);
    Ok(f.results(&[values, indices]))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::run_for;

    fn lowered(text: &str, version: (u32, u32, u32)) -> (Graph, Graph) {
        let before: Graph = text.parse().unwrap();
        let after = run_for(LowerTopK, &before, &Capabilities::tensorrt(version));
        (before, after)
    }

    #[test]
    fn fires_on_lengths() {
        let text =
            "graph g(%x: i64[n], %k: i64[1]) -> (%y, %i) { %y, %i = topk(%x, %k) axis=0 largest=true sorted=true }";
        let (_, after) = lowered(text, (8, 6, 1));
        insta::assert_snapshot!(after, @"
        graph g(%x: i64[n], %k: i64[1]) -> (%y, %i) {
          %y.lower_top_k.2 = constant() value=i64[] {0}
          %y.15 = squeeze(%k) axes=[0] : i64[]
          %y.lower_top_k.3 = constant() value=i64[] {1}
          %y.16 = range(%y.lower_top_k.2, %y.15, %y.lower_top_k.3) : i64[y.16.length]
          %y.17 = unsqueeze(%y.16) axes=[1] : i64[y.16.length, 1]
          %y.7 = unsqueeze(%x) axes=[0] : i64[1, n]
          %y.6 = unsqueeze(%x) axes=[1] : i64[n, 1]
          %y.8 = greater(%y.7, %y.6) : bool[n, n]
          %y.9 = equal(%y.7, %y.6) : bool[n, n]
          %y.lower_top_k = constant() value=i64[] {0}
          %y.1 = shape(%x) start=0 end=1 : i64[1]
          %y.2 = squeeze(%y.1) axes=[0] : i64[]
          %y.lower_top_k.1 = constant() value=i64[] {1}
          %y.3 = range(%y.lower_top_k, %y.2, %y.lower_top_k.1) : i64[n]
          %y.5 = unsqueeze(%y.3) axes=[0] : i64[1, n]
          %y.4 = unsqueeze(%y.3) axes=[1] : i64[n, 1]
          %y.10 = less(%y.5, %y.4) : bool[n, n]
          %y.11 = and(%y.9, %y.10) : bool[n, n]
          %y.12 = or(%y.8, %y.11) : bool[n, n]
          %y.13 = cast(%y.12) to=i64 saturate=true : i64[n, n]
          %y.14 = reduce(%y.13) kind=sum axes=[1] noop_if_empty=true : i64[n]
          %y.18 = unsqueeze(%y.14) axes=[0] : i64[1, n]
          %y.19 = equal(%y.17, %y.18) : bool[y.16.length, n]
          %y.lower_top_k.4 = constant() value=i64[] {0}
          %y.20 = where(%y.19, %y.5, %y.lower_top_k.4) : i64[y.16.length, n]
          %i = reduce(%y.20) kind=sum axes=[1] noop_if_empty=true : i64[y.16.length]
          %y = gather_elements(%x, %i) axis=0 : i64[y.16.length]
        }
        ");
        let inputs = [Tensor::vector(vec![3_i64, 1 << 40, 3, -7, (1 << 40) + 1]), Tensor::vector(vec![4_i64])];
        let expected = [Tensor::vector(vec![(1_i64 << 40) + 1, 1 << 40, 3, 3]), Tensor::vector(vec![4_i64, 1, 0, 2])];
        assert_eq!(eval_graph(&after, &inputs).unwrap(), expected);
        assert_eq!(run_for(LowerTopK, &after, &Capabilities::tensorrt((8, 6, 1))).to_string(), after.to_string());
    }

    #[test]
    fn fires_along_every_axis_both_ways() {
        for (axis, largest, k) in [(0, true, 2), (1, false, 3), (-1, true, 1), (-2, false, 1), (2, true, 4)] {
            let text = format!(
                "graph g(%x: i32[2, 3, 4]) -> (%y, %i) {{ %k = constant() value=i64[1] {{{k}}}
                %y, %i = topk(%x, %k) axis={axis} largest={largest} sorted=true }}"
            );
            let (before, after) = lowered(&text, (8, 5, 3));
            assert!(!after.to_string().contains("topk("), "{after}");
            let numbers = (0..24).map(|at| (at * 7 + 3) % 5 - 2).collect();
            let x = Tensor::from_vec([2, 3, 4], numbers).unwrap();
            let [expected, found] = [&before, &after].map(|graph| eval_graph(graph, std::slice::from_ref(&x)).unwrap());
            assert_eq!(expected, found, "{text}");
        }
    }

    #[test]
    fn refuses_long_axes() {
        let text = "graph g(%x: i64[1025]) -> (%y, %i) { %k = constant() value=i64[1] {2}
            %y, %i = topk(%x, %k) axis=0 largest=true sorted=true }";
        let graph: Graph = text.parse().unwrap();
        let context = Capabilities::tensorrt((8, 6, 1));
        let (after, report) =
            crate::Pipeline::new(vec![Box::new(crate::Rules::one(LowerTopK))], &context).run(graph).unwrap();
        assert!(after.to_string().contains("topk("), "{after}");
        assert_eq!(report.remarks.iter().map(|remark| &*remark.reason).collect::<Vec<_>>(), [TOO_LONG]);
    }

    #[test]
    fn leaves_floats_and_targets_that_take_integers_alone() {
        for (dtype, version) in [("f32", (8, 6, 1)), ("i64", (10, 0, 0))] {
            let text = format!(
                "graph g(%x: {dtype}[5]) -> (%y, %i) {{ %k = constant() value=i64[1] {{2}}
                %y, %i = topk(%x, %k) axis=0 largest=true sorted=true }}"
            );
            let (before, after) = lowered(&text, version);
            assert_eq!(before.to_string(), after.to_string());
        }
    }
}
