//! Gives a scalar an axis for the length of an elementwise operator of one input, where the target's layer wants one, and
//! of a softmax.
//!
//! ```text
//! %y = ceil(%x) : f32[]
//! ```
//! becomes
//! ```text
//! %1 = unsqueeze(%x) axes=[0] : f32[1]
//! %2 = ceil(%1) : f32[1]
//! %y = squeeze(%2) axes=[0] : f32[]
//! ```
//!
//! Fires on every such operator, and on a softmax for all targets.
//!
//! Refuses nothing.
//!
//! Order: none.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Squeeze;
use trt_fuse_ir::{Graph, Ints, NodeId, Op, OpKind, Patch};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerScalars;

impl Rule for LowerScalars {
    fn name(&self) -> &'static str {
        "lower_scalars"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Unary, OpKind::Softmax]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let op = graph.op(root).ok_or(Miss::NoMatch)?;
        if matches!(op, Op::Unary(_)) && context.capabilities.unary_scalars {
            return Err(Miss::NoMatch);
        }
        let mut f = Formula::new(self.name(), graph, root);
        if !f.shape(0)?.is_empty() {
            return Err(Miss::NoMatch);
        }
        let x = f.input(0)?;
        let x = f.unsqueeze(x, &[0]);
        let y = f.op(op.clone(), &[x]);
        let y = f.op(Squeeze { axes: Some(Ints::from_slice(&[0])) }, &[y]);
        Ok(f.result(y))
    }
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;
    use trt_fuse_ir::{Capabilities, Tensor};

    use super::*;
    use crate::testing::run_for;

    fn graph() -> Graph {
        "graph g(%x: f32[], %v: f32[2]) -> (%y, %w) { %y = ceil(%x) %w = ceil(%v) }".parse().unwrap()
    }

    #[test]
    fn fires_on_scalars_alone() {
        let target = Capabilities::tensorrt((8, 5, 3));
        let after = run_for(LowerScalars, &graph(), &target);
        insta::assert_snapshot!(after, @"
        graph g(%x: f32[], %v: f32[2]) -> (%y, %w) {
          %y.1 = unsqueeze(%x) axes=[0] : f32[1]
          %y.2 = ceil(%y.1) : f32[1]
          %y = squeeze(%y.2) axes=[0] : f32[]
          %w = ceil(%v) : f32[2]
        }
        ");
        let inputs = [Tensor::from_vec([], vec![1.5_f32]).unwrap(), Tensor::vector(vec![-0.5_f32, 2.0])];
        assert_eq!(eval_graph(&after, &inputs).unwrap(), eval_graph(&graph(), &inputs).unwrap());
        assert_eq!(run_for(LowerScalars, &after, &target).to_string(), after.to_string());
    }

    #[test]
    fn a_softmax_has_an_axis_on_every_target() {
        for op in ["softmax(%x) axis=-1", "softmax(%x) axis=0 log=true"] {
            let graph: Graph = format!("graph g(%x: f32[]) -> (%y) {{ %y = {op} }}").parse().unwrap();
            let after = run_for(LowerScalars, &graph, &Capabilities::default());
            let inputs = [Tensor::from_vec([], vec![3.5_f32]).unwrap()];
            let one = Tensor::from_vec([], vec![if op.contains("log") { 0.0_f32 } else { 1.0 }]).unwrap();
            for graph in [&graph, &after] {
                assert_eq!(eval_graph(graph, &inputs).unwrap(), std::slice::from_ref(&one));
            }
            let ranks = after.node_ids().filter(|id| after.kind(*id) == Some(OpKind::Softmax));
            assert_eq!(ranks.map(|id| after.info(id.into()).unwrap().rank()).collect::<Vec<_>>(), [Some(1)]);
        }
    }

    #[test]
    fn leaves_scalars_alone_where_layers_take_them() {
        assert_eq!(run_for(LowerScalars, &graph(), &Capabilities::default()).to_string(), graph().to_string());
    }
}
