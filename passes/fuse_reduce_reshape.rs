//! Lets a reduction keep or drop its axes itself, in place of the reshape after it.
//!
//! ```text
//! %r = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, 512, 1, 1]
//! %y = reshape(%r) shape=[n, 512]
//! ```
//! becomes
//! ```text
//! %y = reduce(%x) kind=mean axes=[2, 3] : f32[n, 512]
//! ```
//!
//! Fires on `reshape`, `flatten`, `squeeze` and `unsqueeze` whose output has exactly the shape, by symbols too, that the
//! reduction would have the other way.
//!
//! Refuses when: the reduction has another reader.
//!
//! Order: after `fuse_global_pool` and `merge_reduces`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Reduce;
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseReduceReshape;

impl Rule for FuseReduceReshape {
    fn name(&self) -> &'static str {
        "fuse_reduce_reshape"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Reshape, OpKind::Flatten, OpKind::Squeeze, OpKind::Unsqueeze]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let middle = graph.input(root, 0).ok_or(Miss::NoMatch)?.node;
        let Some(Op::Reduce(op)) = graph.op(middle) else { return Err(Miss::NoMatch) };
        let other = Reduce { keep_dims: !op.keep_dims, ..op.clone() };
        let x = graph.input(middle, 0).ok_or(Miss::NoMatch)?;
        let shape = graph.info(x).and_then(|info| reduced_shape(&other, info.shape.as_ref()?)).ok_or(Miss::NoMatch)?;
        if graph.info(root.into()).and_then(|info| info.shape.as_ref()) != Some(&shape) {
            return Err(Miss::NoMatch);
        }
        let mut patch = Patch::new(self.name(), middle);
        let fused = patch.add(other, &[Some(x)]);
        patch.replace(root.into(), fused).absorb([root, middle]);
        Ok(patch)
    }
}

/// The shape of a reduction over axes that are attributes.
fn reduced_shape(op: &Reduce, shape: &Shape) -> Option<Shape> {
    let rank = i64::try_from(shape.len()).ok()?;
    let axes = op.axes.as_ref().filter(|axes| !axes.is_empty())?;
    let is_reduced = |at: i64| axes.contains(&at) || axes.contains(&(at - rank));
    let dims = (0_i64..).zip(shape);
    Some(if op.keep_dims {
        dims.map(|(at, dim)| if is_reduced(at) { Dim::fixed(1) } else { dim.clone() }).collect()
    } else {
        dims.filter(|(at, _)| !is_reduced(*at)).map(|(_, dim)| dim.clone()).collect()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        run_rule(FuseReduceReshape, &format!("graph g(%x: f32[n, 2, 3, 4]) -> ({outputs}) {{ {body} }}"))
    }

    const KEPT: &str = "%r = reduce(%x) kind=mean axes=[2, 3] keep_dims=true";

    #[test]
    fn fires_on_reshape() {
        let run = run(&format!("{KEPT} %y = reshape(%r) shape=[n, 2]"), "%y");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = reduce(%x) kind=mean axes=[2, 3] : f32[n, 2]
        }
        ");
    }

    #[test]
    fn fires_on_flatten_and_squeeze() {
        for reshape in ["flatten(%r) axis=1", "squeeze(%r) axes=[-1, -2]"] {
            let run = run(&format!("{KEPT} %y = {reshape}"), "%y");
            let text = run.equal_within(0.0, 2).after.to_string();
            assert!(text.contains("%y = reduce(%x) kind=mean axes=[2, 3] : f32[n, 2]"), "{text}");
        }
    }

    #[test]
    fn fires_on_axes_that_come_back() {
        let run = run("%r = reduce(%x) kind=max axes=[-1] %y = unsqueeze(%r) axes=[3]", "%y");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 2, 3, 4]) -> (%y) {
          %y = reduce(%x) kind=max axes=[-1] keep_dims=true : f32[n, 2, 3, 1]
        }
        ");
    }

    #[test]
    fn refuses_a_reduction_with_another_reader() {
        let run = run(&format!("{KEPT} %y = flatten(%r) axis=1"), "%y, %r");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `r` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_other_shapes_alone() {
        for body in [
            format!("{KEPT} %y = squeeze(%r) axes=[3]"),
            format!("{KEPT} %y = flatten(%r) axis=2"),
            "%r = reduce(%x) kind=max axes=[3] %y = unsqueeze(%r) axes=[1]".to_string(),
        ] {
            let run = run(&body, "%y");
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{body}");
        }
    }
}
