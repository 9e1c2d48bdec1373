//! Finds the layer norm: `(x - mean) / sqrt(variance + epsilon) * scale + bias`.
//!
//! ```text
//! %1 = reduce(%x) kind=mean axes=[2] keep_dims=true
//! %2 = sub(%x, %1)
//! %3 = mul(%2, %2)
//! %4 = reduce(%3) kind=mean axes=[2] keep_dims=true
//! %5 = add(%4, 1e-5)
//! %6 = sqrt(%5)
//! %7 = div(%2, %6)
//! %8 = mul(%7, %scale)
//! %y = add(%8, %bias)
//! ```
//! becomes
//! ```text
//! %y = layer_norm(%x, %scale, %bias) axis=2 epsilon=1e-5
//! ```
//! (Ba, Kiros and Hinton, "Layer Normalization", 2016; ONNX `LayerNormalization`.)
//!
//! Fires with and without the bias, with the root as a divisor or inverted, and with data of a half type that is computed
//! in f32 between two conversions.
//!
//! Refuses when: a part of the formula has another reader. Parameters that are no constants of the normalised sizes, and
//! axes that are not the last ones, are no match.
//!
//! Order: after `canonicalize_arithmetic` and `merge_common`, as exporters may compute the difference twice; before
//! `fuse_rms_norm`.
//!
//! Numerics: the same formula.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{BinaryOp, LayerNorm};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch};

use crate::normal::{converted_normal, half_of, mean_of, with_parameter};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseLayerNorm;

impl Rule for FuseLayerNorm {
    fn name(&self) -> &'static str {
        "fuse_layer_norm"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        found(graph, root).ok_or(Miss::NoMatch)
    }
}

fn found(graph: &Graph, root: NodeId) -> Option<Patch> {
    let rank = graph.info(root.into())?.rank()?;
    let parameter = |root: NodeId, op: BinaryOp| {
        (0..rank).rev().find_map(|axis| Some((axis, with_parameter(graph, root, op, axis)?)))
    };
    let mut nodes = vec![root];
    // The bias, where there is one, and then the scale, which tells how many axes there are.
    let bias = parameter(root, BinaryOp::Add);
    let product = match &bias {
        Some((_, (product, _))) => {
            nodes.push(product.node);
            product.node
        }
        None => root,
    };
    let (axis, (scaled, scale)) = parameter(product, BinaryOp::Mul)?;
    if bias.as_ref().is_some_and(|bias| bias.0 != axis) {
        return None;
    }
    let (normal, half) = converted_normal(graph, scaled).filter(|(normal, _)| normal.axis == axis)?;
    let centred = normal.data;
    if graph.op(centred.node)? != &Op::Binary(BinaryOp::Sub) {
        return None;
    }
    let (data, mean) = (graph.input(centred.node, 0)?, graph.input(centred.node, 1)?);
    if mean_of(graph, mean)? != (data, axis) {
        return None;
    }
    nodes.extend([centred.node, mean.node]);
    let data = half_of(graph, data, half)?;
    let mut patch = Patch::new("fuse_layer_norm", root);
    let op = LayerNorm { axis: axis as i64, epsilon: F32(normal.epsilon as f32) };
    let inputs = [Some(data), Some(scale), bias.map(|(_, (_, bias))| bias)];
    let fused = patch.add(op, if inputs[2].is_some() { &inputs } else { &inputs[..2] });
    patch.replace(root.into(), fused).absorb(nodes).absorb(normal.nodes);
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%e = constant() value=f32[] {1e-5} %s = constant() value=f32[4] {1.0, 2.0, 0.5, -1.0}
            %b = constant() value=f32[4] {0.1, 0.2, 0.3, 0.4} %two = constant() value=f32[] {2.0}
            %row = constant() value=f32[3, 1] {0.1, 0.2, 0.3} %wide = constant() value=f32[3, 4] splat 0.5";
        run_rule(FuseLayerNorm, &format!("graph g(%x: f32[n, 3, 4]) -> ({outputs}) {{ {constants} {body} }}"))
    }

    const CORE: &str = "%1 = reduce(%x) kind=mean axes=[-1] keep_dims=true %2 = sub(%x, %1) %3 = mul(%2, %2)
        %4 = reduce(%3) kind=mean axes=[2] keep_dims=true %5 = add(%4, %e) %6 = sqrt(%5) %7 = div(%2, %6)";

    #[test]
    fn fires_with_a_bias() {
        let run = run(&format!("{CORE} %8 = mul(%7, %s) %y = add(%8, %b)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 3, 4]) -> (%y) {
          %s = constant() value=f32[4] {1.0, 2.0, 0.5, -1.0}
          %b = constant() value=f32[4] {0.1, 0.2, 0.3, 0.4}
          %y = layer_norm(%x, %s, %b) axis=2 epsilon=1e-5 : f32[n, 3, 4]
        }
        ");
    }

    #[test]
    fn fires_without_a_bias_and_in_other_orders() {
        for body in [
            format!("{CORE} %y = mul(%s, %7)"),
            format!("{} %y = mul(%7, %s)", CORE.replace("mul(%2, %2)", "pow(%2, %two)")),
            format!("{} %y = mul(%7, %s)", CORE.replace("%7 = div(%2, %6)", "%r = reciprocal(%6) %7 = mul(%2, %r)")),
        ] {
            let run = run(&body, "%y");
            assert_eq!(run.equal_within(1e-5, 2).rewrites, 1, "{body}");
        }
    }

    #[test]
    fn fires_between_conversions() {
        let text = "graph g(%h: f16[2, 4]) -> (%y) {
            %e = constant() value=f32[] {1e-5} %s = constant() value=f16[4] {1.0, 2.0, 0.5, -1.0}
            %x = cast(%h) to=f32 saturate=true %1 = reduce(%x) kind=mean axes=[1] keep_dims=true %2 = sub(%x, %1)
            %3 = mul(%2, %2) %4 = reduce(%3) kind=mean axes=[1] keep_dims=true %5 = add(%4, %e) %6 = sqrt(%5)
            %7 = div(%2, %6) %8 = cast(%7) to=f16 saturate=true %y = mul(%8, %s) }";
        let run = run_rule(FuseLayerNorm, text);
        assert_eq!(run.equal_within(2e-3, 1).rewrites, 1);
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{CORE} %y = mul(%7, %s)"), "%y, %2");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `2` also read by `an output of the graph`"]));
    }

    /// One number that a scale of two widens: the normalized sizes are not the scale's.
    #[test]
    fn leaves_a_norm_that_its_scale_widens_alone() {
        let text = |size: usize| {
            format!(
                "graph g(%x: f32[1, {size}]) -> (%y) {{ %e = constant() value=f32[] {{1e-5}}
                %s = constant() value=f32[2] {{3, 5}} %b = constant() value=f32[2] {{0.5, -0.25}}
                {} %8 = mul(%7, %s) %y = add(%8, %b) }}",
                CORE.replace("axes=[2]", "axes=[1]")
            )
        };
        let narrow = run_rule(FuseLayerNorm, &text(1));
        assert_eq!((narrow.rewrites, narrow.reasons()), (0, vec![]));
        assert_eq!(run_rule(FuseLayerNorm, &text(2)).equal_within(1e-5, 1).rewrites, 1);
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // The mean of other data, a mean over another axis or more, a scale of other sizes, a sum with the mean.
            format!("%n = neg(%x) {} %y = mul(%7, %s)", CORE.replace("reduce(%x)", "reduce(%n)")),
            format!("{} %y = mul(%7, %s)", CORE.replace("axes=[-1]", "axes=[1]")),
            format!("{} %y = mul(%7, %s)", CORE.replace("axes=[2]", "axes=[1, 2]")),
            format!("{CORE} %y = mul(%7, %row)"),
            format!("{} %y = mul(%7, %s)", CORE.replace("sub(%x, %1)", "add(%x, %1)")),
        ] {
            assert_eq!(run(&body, "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn a_bias_of_other_sizes_stays_behind() {
        let run = run(&format!("{CORE} %8 = mul(%7, %s) %y = add(%8, %wide)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 3, 4]) -> (%y) {
          %s = constant() value=f32[4] {1.0, 2.0, 0.5, -1.0}
          %8 = layer_norm(%x, %s) axis=2 epsilon=1e-5 : f32[n, 3, 4]
          %wide = constant() value=f32[3, 4] splat 0.5
          %y = add(%8, %wide) : f32[n, 3, 4]
        }
        ");
    }
}
