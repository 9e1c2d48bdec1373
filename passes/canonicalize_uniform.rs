//! Writes what picks and arranges elements of a constant whose elements are all equal as one element, expanded.
//!
//! ```text
//! %c = constant() value=i64[1, 512] splat 0                     %1 = constant() value=i64[] {0}
//! %y = slice(%c) axes=[1] starts=[0] ends=[n] : i64[1, n]       %y = expand(%1) shape=[1, n] : i64[1, n]
//! ```
//!
//! Fires on Slice, Gather, GatherElements, GatherND, Reshape, Transpose, Tile and Expand of such a constant, or of one that is
//! expanded. Exporters cut tables of zeros to the sizes of an input this way.
//!
//! Refuses nothing; a shape that the inputs' shapes do not tell, and a constant of one element that is expanded, are no match.
//!
//! Order: after `fold_constants`, which folds what has a fixed shape, and `canonicalize_attributes`; before `drop_expand`.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::Expand;
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::pattern::expanded;
use crate::{Miss, Rule, RuleContext};

/// Writes what picks and arranges elements of a constant whose elements are all equal as one element, expanded.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeUniform;

impl Rule for CanonicalizeUniform {
    fn name(&self) -> &'static str {
        "canonicalize_uniform"
    }

    fn roots(&self) -> &'static [OpKind] {
        use OpKind::*;
        &[Slice, Gather, GatherElements, GatherNd, Reshape, Transpose, Tile, Expand]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let data = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let expanded = expanded(graph, data);
        let constant = graph.constant(expanded.unwrap_or(data)).ok_or(Miss::NoMatch)?;
        if matches!(graph.op(root), Some(Op::Expand(_))) && constant.numel() == 1 && expanded.is_none() {
            return Err(Miss::NoMatch);
        }
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone());
        let shape = shape.filter(|shape| context.symbols.tell(shape)).ok_or(Miss::NoMatch)?;
        let element = constant.repeated().ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let element = patch.constant(element);
        let y = patch.add(Expand { shape: Some(shape) }, &[Some(element)]);
        patch.replace(root.into(), y).absorb([root]);
        Ok(patch)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(lines: &str) -> Run {
        run_rule(CanonicalizeUniform, &format!("graph g(%x: f32[n, 4], %i: i64[n, 1]) -> (%y) {{ {lines} }}"))
    }

    #[test]
    fn fires_on_a_slice() {
        let run =
            run("%c = constant() value=i64[1, 512] splat 0 %y = slice(%c) axes=[1] starts=[0] ends=[n] steps=[1]");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @r"
        graph g(%x: f32[n, 4], %i: i64[n, 1]) -> (%y) {
          %y.canonicalize_uniform = constant() value=i64[] {0}
          %y = expand(%y.canonicalize_uniform) shape=[1, (min(512, n))] : i64[1, min(512, n)]
        }
        ");
    }

    #[test]
    fn fires_on_each_operator() {
        for line in [
            "%c = constant() value=f32[1, 2] {3, 3} %y = expand(%c) shape=[n, 2]",
            "%c = constant() value=f32[9, 2] splat 3 %y = gather_elements(%c, %z) axis=1",
            "%c = constant() value=f32[2, 2] splat 3 %y = gather(%c, %z) axis=1",
            "%c = constant() value=f32[2, 2] splat 3 %y = gather_nd(%c, %z) batch_dims=0",
            "%c = constant() value=f32[7, 2] splat 3 %e = expand(%c) shape=[n, 7, 2] %y = transpose(%c) perm=[1, 0]",
            "%c = constant() value=f32[1, 2] splat 3 %y = reshape(%c) shape=[2]",
        ] {
            let run = run(&format!("%z = sub(%i, %i) {line}"));
            assert!(run.equal_within(0.0, 3).rewrites > 0, "{line}");
        }
    }

    #[test]
    fn fires_on_an_expansion() {
        for line in [
            "%y = reshape(%e) shape=[n, 1, 2]",
            "%y = expand(%e) shape=[3, n, 2]",
            "%y = slice(%e) axes=[0] starts=[0] ends=[1] steps=[1]",
        ] {
            let run = run(&format!("%c = constant() value=bool[] {{1}} %e = expand(%c) shape=[n, 2] {line}"));
            assert_eq!(run.equal_within(0.0, 3).rewrites, 1, "{line}");
        }
        assert_eq!(run("%r = relu(%x) %e = expand(%r) shape=[2, n, 4] %y = transpose(%e) perm=[1, 0, 2]").rewrites, 0);
    }

    #[test]
    fn elements_that_differ_stay() {
        assert_eq!(run("%c = constant() value=f32[2] {3, 4} %y = expand(%c) shape=[n, 2]").rewrites, 0);
        // Equal as numbers, and another bit pattern.
        assert_eq!(run("%c = constant() value=f32[2] {0, -0} %y = expand(%c) shape=[n, 2]").rewrites, 0);
    }

    #[test]
    fn one_element_expanded_and_what_is_no_constant_stay() {
        assert_eq!(run("%c = constant() value=f32[1] {3} %y = expand(%c) shape=[n, 2]").rewrites, 0);
        assert_eq!(run("%y = slice(%x) axes=[1] starts=[0] ends=[2] steps=[1]").rewrites, 0);
    }

    #[test]
    fn a_shape_that_the_data_tell_stays() {
        let text =
            "graph g(%i: i64[k], %s: i64[2]) -> (%y) { %c = constant() value=f32[2, 1] splat 3 %y = tile(%c, %s) }";
        assert_eq!(run_rule(CanonicalizeUniform, text).rewrites, 0);
    }
}
