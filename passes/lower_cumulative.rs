//! Writes running products, and running sums where the target has no layer, as logarithmically many steps.
//!
//! ```text
//! %y = cumulative(%x, 0) product=true : f32[4]
//! ```
//! becomes
//! ```text
//! %1 = pad(%x) pads=[1, 0] with 1, cut back to 4 : f32[4]
//! %2 = mul(%x, %1) : f32[4]
//! %3 = pad(%2) pads=[2, 0] with 1, cut back to 4 : f32[4]
//! %y = mul(%2, %3) : f32[4]
//! ```
//! (Hillis and Steele, "Data parallel algorithms", 1986.)
//!
//! With an axis known only at run time, it is done along each axis and the one named is taken.
//!
//! Fires on a constant axis of a size that is a number, and on an axis known only at run time.
//!
//! Refuses: "the size of its axis is known only at run time"
//!
//! Order: any.
//!
//! Numerics: sums and products in another order.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, Cumulative, Pad, PadMode, Slice};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerCumulative;

impl Rule for LowerCumulative {
    fn name(&self) -> &'static str {
        "lower_cumulative"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Cumulative]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Cumulative(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let mut f = Formula::new(self.name(), graph, root);
        let (shape, dtype) = (f.shape(0)?, f.info(0)?.dtype);
        let Some(axis) = f.info(1)?.known_ints().and_then(|axis| axis.first().copied()) else {
            return along_each(f, op);
        };
        if !op.product && context.capabilities.cumulative {
            return Err(Miss::NoMatch);
        }
        let axis = resolve_axis(axis, shape.len()).map_err(|_| Miss::NoMatch)?;
        let unknown = Miss::Blocked { reason: "the size of its axis is known only at run time", at: root };
        let size = shape.get(axis).and_then(Dim::value).ok_or(unknown)?;
        let (join, neutral) = if op.product { (BinaryOp::Mul, 1.0) } else { (BinaryOp::Add, 0.0) };
        let fill = f.number(dtype, neutral)?;
        let move_by = Shift { axis, rank: shape.len(), size, reverse: op.reverse, fill };
        let mut y = f.input(0)?;
        if op.exclusive {
            y = move_by.elements(&mut f, y, 1.min(size));
        }
        let mut step = 1;
        while step < size {
            let moved = move_by.elements(&mut f, y, step);
            y = f.binary(join, y, moved);
            step *= 2;
        }
        if y == f.input(0)? {
            y = f.binary(join, y, fill);
        }
        Ok(f.result(y))
    }
}

/// Along each axis, and then the one that is named.
fn along_each(mut f: Formula<'_>, op: &Cumulative) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let (x, axis) = (f.input(0)?, f.input(1)?);
    let own = f.info(1)?.dtype;
    let axis = if own == DType::I64 { axis } else { f.cast(axis, DType::I64) };
    let axis = f.reshape(axis, Shape::new());
    let axis = f.with_number(BinaryOp::Mod, axis, DType::I64, rank as f64)?;
    let mut y = x;
    for at in 0..rank {
        let number = f.number(DType::I64, at as f64)?;
        let along = f.op(op.clone(), &[x, number]);
        let is_named = f.binary(BinaryOp::Equal, axis, number);
        y = f.select(is_named, along, y);
    }
    Ok(f.result(y))
}

/// Elements moved along an axis, the neutral one in their place.
struct Shift {
    axis: usize,
    rank: usize,
    size: i64,
    reverse: bool,
    fill: ValueRef,
}

impl Shift {
    fn elements(&self, f: &mut Formula<'_>, x: ValueRef, by: i64) -> ValueRef {
        let mut pads = Ints::from_elem(0, 2 * self.rank);
        pads[if self.reverse { self.rank + self.axis } else { self.axis }] = by;
        let padded = f.pad(Pad { mode: PadMode::Constant, pads: Some(pads) }, x, self.fill);
        let (start, end) = if self.reverse { (by, self.size + by) } else { (0, self.size) };
        let bound = |value: i64| Some(Shape::from_iter([Dim::fixed(value)]));
        let axes = Some(Ints::from_slice(&[self.axis as i64]));
        let slice = Slice { axes, starts: bound(start), ends: bound(end), steps: Some(Ints::from_slice(&[1])) };
        f.op(slice, &[padded])
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(shape: &str, op: &str) -> Run {
        run_rule(
            LowerCumulative,
            &format!(
                "graph g(%x: f32{shape}) -> (%y) {{ %a = constant() value=i64[] {{-1}} %y = cumulative(%x, %a) {op} }}"
            ),
        )
    }

    #[test]
    fn fires_on_a_product() {
        let run = run("[3]", "product=true");
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[3]) -> (%y) {
          %y.lower_cumulative = constant() value=f32[] {1.0}
          %y.1 = pad(%x, _, %y.lower_cumulative) mode=constant pads=[1, 0] : f32[4]
          %y.2 = slice(%y.1) axes=[0] starts=[0] ends=[3] steps=[1] : f32[3]
          %y.3 = mul(%x, %y.2) : f32[3]
          %y.4 = pad(%y.3, _, %y.lower_cumulative) mode=constant pads=[2, 0] : f32[5]
          %y.5 = slice(%y.4) axes=[0] starts=[0] ends=[3] steps=[1] : f32[3]
          %y = mul(%y.3, %y.5) : f32[3]
        }
        ");
    }

    #[test]
    fn fires_in_every_direction() {
        for op in ["exclusive=true", "reverse=true", "exclusive=true reverse=true"] {
            for shape in ["[n, 5]", "[2, 1]", "[2, 8]"] {
                assert_eq!(run(shape, &format!("product=true {op}")).equal_within(1e-6, 2).rewrites, 1);
            }
        }
    }

    #[test]
    fn fires_on_an_axis_of_run_time() {
        for axis in [0_i64, 1, -1] {
            let text = "graph g(%x: f32[2, 3], %a: i64[]) -> (%y) { %y = cumulative(%x, %a) product=false }";
            let run = run_rule(LowerCumulative, text);
            let mut inputs = crate::testing::random_inputs(&run.before, 1, 3);
            inputs[1] = Tensor::scalar(axis);
            let eval = |graph| trt_fuse_ir::eval::eval_graph(graph, &inputs).unwrap();
            assert_eq!(eval(&run.before), eval(&run.after));
        }
    }

    #[test]
    fn fires_on_sums_where_the_target_has_none() {
        let before: Graph = "graph g(%x: f32[n, 5]) -> (%y) {
            %a = constant() value=i64[] {1} %y = cumulative(%x, %a) product=false exclusive=true }"
            .parse()
            .unwrap();
        let after = crate::testing::run_for(LowerCumulative, &before, &Capabilities::tensorrt((8, 5, 3)));
        assert!(!after.to_string().contains("cumulative("), "{after}");
        let x = Tensor::from_vec([1, 5], vec![1.0_f32, 2.0, 4.0, 8.0, 16.0]).unwrap();
        let sums = Tensor::from_vec([1, 5], vec![0.0_f32, 1.0, 3.0, 7.0, 15.0]).unwrap();
        assert_eq!(trt_fuse_ir::eval::eval_graph(&after, &[x]).unwrap(), [sums]);
    }

    #[test]
    fn leaves_sums_alone() {
        assert_eq!(run("[2, 5]", "product=false").rewrites, 0);
    }

    #[test]
    fn refuses_a_product_of_unknown_length() {
        let run = run("[2, n]", "product=true");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the size of its axis is known only at run time"]));
    }
}
