//! Makes one BatchNorm of a chain of normalizations, products and sums with constants, one a channel.
//!
//! ```text
//! %n = batch_norm(%x, %scale, %bias, %mean, %var) epsilon=0.00001
//! %p = mul(%n, %s)
//! %y = add(%p, %t)
//! ```
//! becomes
//! ```text
//! %y = batch_norm(%x, %f, %g, %0, %1) epsilon=0.0
//! ```
//! with mean 0 and variance 1: the form of `x * f + g`, for which TensorRT has one layer (scale, per channel).
//!
//! Fires on two or more of them in a row, at least one of them with a constant for each channel, on f32 of four axes or
//! more, the number of channels known. Below four axes, and of other types, TensorRT's scale layer does not apply.
//!
//! Refuses when: normalization parameters are not constant; normalization parameters give factors that are not finite;
//! folded constants leave the range of their type. A chain ends at a value with another reader.
//!
//! Order: after `fuse_conv_bn`, `fuse_conv_scale` and `fuse_conv_bias`, which take such a chain in altogether; after
//! the passes that look for sums and products inside activations.
//!
//! Numerics: factors in f64, each new constant rounded once; outputs within 1e-5 of the largest in f32.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{BatchNorm, BinaryOp};
use trt_fuse_ir::{DType, Epilogue, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::channels::{Affine, per_channel, vector};
use crate::pass::{Miss, Rule, RuleContext};
use crate::pattern::{constant_operand, same_shape};

/// The fewest axes that TensorRT's scale layer takes.
const LEAST_RANK: usize = 4;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseAffine;

impl Rule for FuseAffine {
    fn name(&self) -> &'static str {
        "fuse_affine"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::BatchNorm, OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let shape = graph.info(root.into()).and_then(|info| info.shape.as_ref()).ok_or(Miss::NoMatch)?;
        let channels = shape.get(1).and_then(|dim| usize::try_from(dim.value()?).ok()).ok_or(Miss::NoMatch)?;
        // Of other dtypes the map is emitted as arithmetic, which is no fewer layers.
        if shape.len() < LEAST_RANK || graph.dtype(root.into()) != DType::F32 {
            return Err(Miss::NoMatch);
        }
        let channels = (shape.len(), 1, channels);
        let Link { mut x, mut affine, mut has_channels } = link(graph, root, channels)?;
        let mut chain = vec![root];
        while graph.sole_consumer(x).is_some()
            && let Ok(next) = link(graph, x.node, channels)
        {
            chain.push(x.node);
            x = next.x;
            affine = next.affine.then(affine);
            has_channels |= next.has_channels;
        }
        if chain.len() < 2 || !has_channels {
            return Err(Miss::NoMatch);
        }
        self.patch(graph, root, x, affine, channels.2, chain)
    }
}

impl FuseAffine {
    fn patch(
        &self,
        graph: &Graph,
        root: NodeId,
        x: ValueRef,
        affine: Affine,
        channels: usize,
        chain: Vec<NodeId>,
    ) -> Result<Patch, Miss> {
        let mut patch = Patch::new(self.name(), root);
        let dtype = graph.dtype(root.into());
        let mut parameter = |values: Option<Vec<f64>>, default: f64| {
            let values = values.unwrap_or_else(|| vec![default; channels]);
            vector(dtype, values, root).map(|values| Some(patch.constant(values)))
        };
        let inputs = [
            Some(x),
            parameter(affine.scale, 1.0)?,
            parameter(affine.shift, 0.0)?,
            parameter(None, 0.0)?,
            parameter(None, 1.0)?,
        ];
        let fused = patch.add(BatchNorm { epsilon: F32(0.0), epilogue: Epilogue::default() }, &inputs);
        patch.replace(root.into(), fused).absorb(chain);
        Ok(patch)
    }
}

/// One operation of a chain.
struct Link {
    x: ValueRef,
    affine: Affine,
    /// Whether it has a constant for each channel, not one for all.
    has_channels: bool,
}

fn link(graph: &Graph, id: NodeId, channels: (usize, usize, usize)) -> Result<Link, Miss> {
    let map: fn(Vec<f64>) -> Affine = match graph.op(id) {
        Some(Op::BatchNorm(_)) => {
            let x = graph.input(id, 0).ok_or(Miss::NoMatch)?;
            return Ok(Link { x, affine: Affine::of_batch_norm(graph, id, channels.2)?, has_channels: true });
        }
        Some(Op::Binary(BinaryOp::Mul)) => Affine::scale,
        Some(Op::Binary(BinaryOp::Add)) => Affine::shift,
        _ => return Err(Miss::NoMatch),
    };
    let (x, constant) = constant_operand(graph, id).ok_or(Miss::NoMatch)?;
    // Both ends of the chain must have the channels that the middle has.
    if !same_shape(graph.info(x), graph.info(id.into())) {
        return Err(Miss::NoMatch);
    }
    // A product or sum along another axis is nothing remarkable.
    let values = per_channel(constant, channels, id).map_err(|_| Miss::NoMatch)?;
    Ok(Link { x, affine: map(values), has_channels: constant.numel() > 1 })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::run_rule;

    const NORM: &str = "
        %s = constant() value=f32[2] {1, 2}
        %o = constant() value=f32[2] {0.5, -0.5}
        %m = constant() value=f32[2] {1, -1}
        %v = constant() value=f32[2] {4, 0.25}
        %n = batch_norm(%x, %s, %o, %m, %v) epsilon=0
    ";

    #[test]
    fn fires_on_a_normalization_and_a_scale() {
        let run = run_rule(
            FuseAffine,
            &format!(
                "graph g(%x: f32[batch, 2, 3, 3]) -> (%y) {{
                    {NORM}
                    %f = constant() value=f32[2, 1, 1] {{10, 100}}
                    %g = constant() value=f32[1, 2, 1, 1] {{1, 2}}
                    %p = mul(%n, %f)
                    %y = add(%g, %p)
                }}"
            ),
        );
        // Factors 0.5 * 10 and 4 * 100; summands (0.5 - 1 * 0.5) * 10 + 1 and (-0.5 + 1 * 4) * 100 + 2.
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[batch, 2, 3, 3]) -> (%y) {
          %y.fuse_affine = constant() value=f32[2] {5.0, 400.0}
          %y.fuse_affine.1 = constant() value=f32[2] {1.0, 352.0}
          %y.fuse_affine.2 = constant() value=f32[2] {0.0, 0.0}
          %y.fuse_affine.3 = constant() value=f32[2] {1.0, 1.0}
          %y = batch_norm(%x, %y.fuse_affine, %y.fuse_affine.1, %y.fuse_affine.2, %y.fuse_affine.3) epsilon=0.0 : f32[batch, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn fires_on_a_product_and_a_sum() {
        let run = run_rule(
            FuseAffine,
            "graph g(%x: f32[1, 2, 3, 3]) -> (%y) {
                %f = constant() value=f32[2, 1, 1] {10, 100}
                %g = constant() value=f32[] {1}
                %p = mul(%x, %f)
                %y = add(%p, %g)
            }",
        );
        insta::assert_snapshot!(run.equal_within(1e-6, 1).after, @"
        graph g(%x: f32[1, 2, 3, 3]) -> (%y) {
          %y.fuse_affine = constant() value=f32[2] {10.0, 100.0}
          %y.fuse_affine.1 = constant() value=f32[2] {1.0, 1.0}
          %y.fuse_affine.2 = constant() value=f32[2] {0.0, 0.0}
          %y.fuse_affine.3 = constant() value=f32[2] {1.0, 1.0}
          %y = batch_norm(%x, %y.fuse_affine, %y.fuse_affine.1, %y.fuse_affine.2, %y.fuse_affine.3) epsilon=0.0 : f32[1, 2, 3, 3]
        }
        ");
    }

    #[test]
    fn a_chain_ends_at_a_value_with_another_reader() {
        let run = run_rule(
            FuseAffine,
            &format!(
                "graph g(%x: f32[1, 2, 3, 3]) -> (%y, %n) {{
                    {NORM}
                    %f = constant() value=f32[2, 1, 1] {{10, 100}}
                    %p = mul(%n, %f)
                    %y = add(%p, %f)
                }}"
            ),
        );
        assert_eq!(run.equal_within(1e-6, 1).after.operation_count(), 2);
    }

    #[test]
    fn leaves_what_needs_no_channels_alone() {
        let run = run_rule(
            FuseAffine,
            "graph g(%x: f32[1, 2, 3, 3], %z: f32[1, 2, 3]) -> (%y, %q, %r) {
                %two = constant() value=f32[] {2}
                %p = mul(%x, %two)
                %y = add(%p, %two)
                %f = constant() value=f32[2, 1] {1, 2}
                %a = mul(%z, %f)
                %q = add(%a, %f)
                %g = constant() value=f32[3] {1, 2, 3}
                %b = mul(%x, %g)
                %r = add(%b, %g)
            }",
        );
        assert_eq!((run.rewrites, run.reasons()), (0, vec![]));
    }

    #[test]
    fn leaves_a_chain_that_makes_channels_alone() {
        for (channels, rewrites) in [(1, 0), (2, 1)] {
            let text = format!(
                "graph g(%x: f32[1, {channels}, 3, 3]) -> (%y) {{
                %f = constant() value=f32[2, 1, 1] {{10, 100}} %p = mul(%x, %f) %y = add(%p, %f) }}"
            );
            let run = run_rule(FuseAffine, &text);
            assert_eq!((run.rewrites, run.reasons()), (rewrites, vec![]), "{channels}");
        }
    }

    #[test]
    fn leaves_other_types_alone() {
        let text = "graph g(%x: f16[1, 2, 3, 3]) -> (%y) {
            %f = constant() value=f16[2, 1, 1] {10, 100} %p = mul(%x, %f) %y = add(%p, %f) }";
        for (dtype, rewrites) in [("f16", 0), ("f32", 1)] {
            let run = run_rule(FuseAffine, &text.replace("f16", dtype));
            assert_eq!((run.rewrites, run.reasons()), (rewrites, vec![]), "{dtype}");
        }
    }

    /// The reasons for leaving a normalization and a product as they are.
    fn refuses(norm: &str, factor: &str) -> Vec<String> {
        let run = run_rule(
            FuseAffine,
            &format!(
                "graph g(%x: f32[1, 2, 3, 3], %i: f32[2]) -> (%y) {{
                    %f = constant() value={factor}
                    %p = mul(%x, %f)
                    {}
                    %y = identity(%n)
                }}",
                norm.replace("batch_norm(%x", "batch_norm(%p")
            ),
        );
        assert_eq!(run.rewrites, 0);
        run.reasons().into_iter().map(String::from).collect()
    }

    #[test]
    fn refuses_parameters_that_are_not_constant() {
        let norm = NORM.replace("%m = constant() value=f32[2] {1, -1}", "%m = identity(%i)");
        assert_eq!(refuses(&norm, "f32[] {2}"), ["normalization parameters are not constant"]);
    }

    #[test]
    fn refuses_factors_that_are_not_finite() {
        let norm = NORM.replace("{4, 0.25}", "{-4, 0.25}");
        assert_eq!(refuses(&norm, "f32[] {2}"), ["normalization parameters give factors that are not finite"]);
    }

    #[test]
    fn refuses_constants_out_of_range() {
        assert_eq!(refuses(NORM, "f32[] {3e38}"), ["folded constants leave the range of their type"]);
    }
}
