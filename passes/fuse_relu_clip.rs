//! Merges activations that limit a range, and turns `min` and `max` with a constant into them.
//!
//! ```text
//! %a = max(%x, 0)
//! %y = min(%a, 6)
//! ```
//! becomes
//! ```text
//! %y = clip(%x) p=[0.0, 6.0]
//! ```
//!
//! Fires on `relu` and `clip` after each other in any order, and on `min` and `max` of a float and one constant for all
//! elements, on either side. `clip` from 0 without an upper limit becomes `relu`. If the first of two limits no more
//! than both do, the second vanishes, whatever else reads the first.
//!
//! Refuses when: the inner activation's output has another reader. A constant that no f32 holds is no match.
//!
//! Order: before `fuse_hard_sigmoid` and `fuse_hard_swish`, which look for `clip`.
//!
//! Numerics: bit-exact but for NaN, which `min` and `max` keep and which activations need not.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::with_scalar;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseReluClip;

impl Rule for FuseReluClip {
    fn name(&self) -> &'static str {
        "fuse_relu_clip"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Activation, OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let (x, outer) = limited(graph, root).ok_or(Miss::NoMatch)?;
        let dtype = graph.dtype(x);
        let mut patch = Patch::new(self.name(), root);
        let mut replace = |x: ValueRef, range: Range| {
            let fused = patch.add(Op::Activation(range.activation(dtype)), &[Some(x)]);
            patch.replace(root.into(), fused).absorb([root]);
        };
        match limited(graph, x.node) {
            Some((inner_x, inner)) => {
                let both = inner.then(outer);
                if both == inner {
                    patch.replace(root.into(), x).absorb([root]);
                } else {
                    replace(inner_x, both);
                    patch.absorb([x.node]);
                }
            }
            None if graph.op(root) == Some(&Op::Activation(outer.activation(dtype))) => return Err(Miss::NoEffect),
            None => replace(x, outer),
        }
        Ok(patch)
    }
}

/// `min(max(x, low), high)`
#[derive(Debug, Clone, Copy, PartialEq)]
struct Range {
    low: f32,
    high: f32,
}

impl Range {
    /// This range and then another. A limit is the other's image of it, as both are monotone.
    fn then(self, next: Self) -> Self {
        let limit = |x: f32| x.max(next.low).min(next.high);
        Self { low: limit(self.low.min(self.high)), high: limit(self.high) }
    }

    fn activation(self, dtype: DType) -> Activation {
        // Exporters write the largest float for "no limit".
        let largest = if dtype == DType::F64 { f32::INFINITY } else { f32::MAX };
        if self.low == 0.0 && self.high >= largest {
            Activation::Relu
        } else {
            Activation::Clip(F32(self.low), F32(self.high))
        }
    }
}

/// The constant of a `min` or `max`, where an f32 holds it: a limit has no more digits.
fn limit(graph: &Graph, id: NodeId, op: BinaryOp) -> Option<(ValueRef, f32)> {
    let (x, limit) = with_scalar(graph, id, op)?;
    (f64::from(limit as f32) == limit).then_some((x, limit as f32))
}

/// What a node limits, and to what.
fn limited(graph: &Graph, id: NodeId) -> Option<(ValueRef, Range)> {
    let range = match graph.op(id)? {
        Op::Activation(Activation::Relu) => Range { low: 0.0, high: f32::INFINITY },
        Op::Activation(Activation::Clip(low, high)) => Range { low: low.0, high: high.0 },
        Op::Binary(BinaryOp::Max) => {
            let (x, low) = limit(graph, id, BinaryOp::Max)?;
            return Some((x, Range { low, high: f32::INFINITY }));
        }
        Op::Binary(BinaryOp::Min) => {
            let (x, high) = limit(graph, id, BinaryOp::Min)?;
            return Some((x, Range { low: f32::NEG_INFINITY, high }));
        }
        _ => return None,
    };
    Some((graph.input(id, 0)?, range))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;

    use super::*;
    use crate::testing::{run_rule, run_rule_on};

    /// The graph's operations after the pass, from a function of `%x` in text form.
    fn after(body: &str) -> String {
        let run = run_rule(FuseReluClip, &format!("graph g(%x: f32[2, 3]) -> (%y) {{ {body} }}"));
        run.equal_within(0.0, 1);
        let text = run.after.to_string();
        text.lines().filter(|line| line.starts_with("  ")).map(|line| line.trim().to_string() + "\n").collect()
    }

    #[test]
    fn relu_and_clip_in_any_order() {
        insta::assert_snapshot!(after("%a = relu(%x) %y = relu(%a)"), @"%a = relu(%x) : f32[2, 3]");
        insta::assert_snapshot!(after("%a = relu(%x) %y = clip(%a) p=[-1, 1]"), @"%y = clip(%x) p=[0.0, 1.0] : f32[2, 3]");
        insta::assert_snapshot!(after("%a = clip(%x) p=[-1, 1] %y = relu(%a)"), @"%y = clip(%x) p=[0.0, 1.0] : f32[2, 3]");
        insta::assert_snapshot!(after("%a = clip(%x) p=[-1, 1] %y = clip(%a) p=[-0.5, 2]"), @"%y = clip(%x) p=[-0.5, 1.0] : f32[2, 3]");
    }

    #[test]
    fn ranges_that_do_not_meet() {
        insta::assert_snapshot!(after("%a = clip(%x) p=[-1, 0] %y = clip(%a) p=[1, 2]"), @"%y = clip(%x) p=[1.0, 1.0] : f32[2, 3]");
        insta::assert_snapshot!(after("%a = clip(%x) p=[1, -1] %y = clip(%a) p=[-2, 2]"), @"%y = clip(%x) p=[-1.0, -1.0] : f32[2, 3]");
    }

    #[test]
    fn min_and_max_with_a_constant() {
        let zero = "%z = constant() value=f32[] {0}";
        let one = "%o = constant() value=f32[1, 3] splat 1";
        insta::assert_snapshot!(after(&format!("{zero} %y = max(%x, %z)")), @"%y = relu(%x) : f32[2, 3]");
        insta::assert_snapshot!(after(&format!("{one} %y = min(%o, %x)")), @"%y = clip(%x) p=[-inf, 1.0] : f32[2, 3]");
        insta::assert_snapshot!(after(&format!("{zero} {one} %a = min(%x, %o) %y = max(%z, %a)")), @"%y = clip(%x) p=[0.0, 1.0] : f32[2, 3]");
    }

    #[test]
    fn no_upper_limit() {
        insta::assert_snapshot!(after("%y = clip(%x) p=[0, 3.4028235e38]"), @"%y = relu(%x) : f32[2, 3]");
    }

    #[test]
    fn an_idle_second_one_vanishes_whatever_reads_the_first() {
        let run = run_rule(
            FuseReluClip,
            "graph g(%x: f32[2, 3]) -> (%a, %z) {
                %a = clip(%x) p=[0, 6]
                %y = relu(%a)
                %z = neg(%y)
            }",
        );
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[2, 3]) -> (%a, %z) {
          %a = clip(%x) p=[0.0, 6.0] : f32[2, 3]
          %z = neg(%a) : f32[2, 3]
        }
        ");
    }

    #[test]
    fn refuses_an_inner_value_with_another_reader() {
        let run = run_rule(
            FuseReluClip,
            "graph g(%x: f32[2, 3]) -> (%a, %y) {
                %a = relu(%x)
                %y = clip(%a) p=[0, 6]
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `a` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_other_constants_alone() {
        let run = run_rule(
            FuseReluClip,
            "graph g(%x: f32[3], %i: i32[3]) -> (%y, %z, %j) {
                %k = constant() value=f32[3] {0, 1, 2}
                %l = constant() value=f32[2, 1] splat 0
                %n = constant() value=i32[] {0}
                %y = max(%x, %k)
                %z = max(%x, %l)
                %j = max(%i, %n)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn leaves_limits_that_no_f32_holds_alone() {
        for (limit, rewrites) in [("0.1", 0), ("1e300", 0), ("nan", 0), ("0.5", 1)] {
            let text =
                format!("graph g(%x: f64[3]) -> (%y) {{ %k = constant() value=f64[] {{{limit}}} %y = max(%x, %k) }}");
            assert_eq!(run_rule(FuseReluClip, &text).equal_within(0.0, 1).rewrites, rewrites, "{limit}");
        }
    }

    #[test]
    fn the_largest_f32_limits_f64() {
        let text = "graph g(%x: f64[2]) -> (%y) { %a = constant() value=f64[] {0}
            %b = constant() value=f64[] {340282346638528859811704183484516925440} %p = max(%x, %a) %y = min(%p, %b) }";
        run_rule_on(FuseReluClip, text, &[Tensor::vector(vec![1e39, -1e39])]);
    }
}
