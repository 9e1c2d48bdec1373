//! Writes a roll as two parts and their join, where the target has no kernel for slices that wrap around.
//!
//! ```text
//! %y = roll(%x) axes=[1] shifts=[3] : f32[2, 8]
//! ```
//! becomes
//! ```text
//! %1 = slice(%x) axes=[1] starts=[3] ends=[8] steps=[1] : f32[2, 5]
//! %2 = slice(%x) axes=[1] starts=[0] ends=[3] steps=[1] : f32[2, 3]
//! %y = concat(%1, %2) axis=1 : f32[2, 8]
//! ```
//!
//! Fires on each axis of a roll in turn.
//!
//! Refuses nothing.
//!
//! Order: none.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerRoll;

impl Rule for LowerRoll {
    fn name(&self) -> &'static str {
        "lower_roll"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Roll]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Roll(op)) = graph.op(root).filter(|_| !context.capabilities.wrapping_slices) else {
            return Err(Miss::NoMatch);
        };
        let mut f = Formula::new(self.name(), graph, root);
        let mut y = f.input(0)?;
        for (axis, shift) in op.axes.iter().zip(&op.shifts).filter(|(_, shift)| **shift != 0) {
            let end = usize::try_from(*axis).ok().and_then(|at| f.shape(0).ok()?.get(at)).cloned();
            let end = end.ok_or(Miss::NoMatch)?;
            let back = f.slice(y, *axis, (*shift, end), 1);
            let front = f.slice(y, *axis, (0, Dim::fixed(*shift)), 1);
            y = f.concat(&[back, front], *axis);
        }
        Ok(f.result(y))
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Capabilities;

    use super::*;
    use crate::testing::run_for;
    use trt_fuse_ir::Tensor;
    use trt_fuse_ir::eval::eval_graph;

    fn graph() -> Graph {
        "graph g(%x: i32[2, 4, n]) -> (%y) { %y = roll(%x) axes=[1, 0] shifts=[3, 1] }".parse().unwrap()
    }

    #[test]
    fn fires_on_every_axis() {
        let after = run_for(LowerRoll, &graph(), &Capabilities::tensorrt((8, 5, 3)));
        let x = Tensor::from_vec([2, 4, 1], (0..8).collect::<Vec<i32>>()).unwrap();
        let rolled = Tensor::from_vec([2, 4, 1], vec![7, 4, 5, 6, 3, 0, 1, 2]).unwrap();
        assert_eq!(eval_graph(&after, &[x]).unwrap(), [rolled]);
        insta::assert_snapshot!(after, @"
        graph g(%x: i32[2, 4, n]) -> (%y) {
          %y.1 = slice(%x) axes=[1] starts=[3] ends=[4] steps=[1] : i32[2, 1, n]
          %y.2 = slice(%x) axes=[1] starts=[0] ends=[3] steps=[1] : i32[2, 3, n]
          %y.3 = concat(%y.1, %y.2) axis=1 : i32[2, 4, n]
          %y.4 = slice(%y.3) axes=[0] starts=[1] ends=[2] steps=[1] : i32[1, 4, n]
          %y.5 = slice(%y.3) axes=[0] starts=[0] ends=[1] steps=[1] : i32[1, 4, n]
          %y = concat(%y.4, %y.5) axis=0 : i32[2, 4, n]
        }
        ");
    }

    #[test]
    fn leaves_rolls_alone_where_slices_wrap_around() {
        for target in [Capabilities::default(), Capabilities::tensorrt((10, 0, 0))] {
            assert_eq!(run_for(LowerRoll, &graph(), &target).to_string(), graph().to_string());
        }
    }
}
