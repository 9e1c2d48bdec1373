//! Finds the RMS norm: `x / sqrt(mean(x^2) + epsilon) * scale`.
//!
//! ```text
//! %1 = mul(%x, %x)
//! %2 = reduce(%1) kind=mean axes=[2] keep_dims=true
//! %3 = add(%2, 1e-5)
//! %4 = sqrt(%3)
//! %5 = div(%x, %4)
//! %y = mul(%5, %scale)
//! ```
//! becomes
//! ```text
//! %y = rms_norm(%x, %scale) axis=2 epsilon=1e-5
//! ```
//! (Zhang and Sennrich, "Root Mean Square Layer Normalization", 2019; ONNX `RMSNormalization`.)
//!
//! Fires with the root as a divisor, its reciprocal, 1 divided by it or a power of -1/2, and with data of a half type that
//! is computed in f32 between two conversions.
//!
//! Refuses when: a part of the formula has another reader. A scale that is no constant of the normalised sizes, and axes
//! that are not the last ones, are no match.
//!
//! Order: after `canonicalize_arithmetic`; after `fuse_layer_norm`, whose formula has this one inside.
//!
//! Numerics: the same formula.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{BinaryOp, RmsNorm};
use trt_fuse_ir::{Graph, NodeId, OpKind, Patch};

use crate::normal::{converted_normal, half_of, with_parameter};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseRmsNorm;

impl Rule for FuseRmsNorm {
    fn name(&self) -> &'static str {
        "fuse_rms_norm"
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
    // The scale tells how many axes there are.
    let (axis, (scaled, scale)) =
        (0..rank).rev().find_map(|axis| Some((axis, with_parameter(graph, root, BinaryOp::Mul, axis)?)))?;
    let (normal, half) = converted_normal(graph, scaled).filter(|(normal, _)| normal.axis == axis)?;
    let data = half_of(graph, normal.data, half)?;
    let mut patch = Patch::new("fuse_rms_norm", root);
    let op = RmsNorm { axis: axis as i64, epsilon: F32(normal.epsilon as f32) };
    let fused = patch.add(op, &[Some(data), Some(scale)]);
    patch.replace(root.into(), fused).absorb([root]).absorb(normal.nodes);
    Some(patch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%e = constant() value=f32[] {1e-5} %s = constant() value=f32[4] {1.0, 2.0, 0.5, -1.0}
            %one = constant() value=f32[] {1.0} %p = constant() value=f32[] {-0.5}
            %wide = constant() value=f32[3, 4] {1.0, 2.0, 0.5, -1.0, 1.0, 2.0, 0.5, -1.0, 1.0, 2.0, 0.5, -1.0}
            %two = constant() value=f32[] {2.0} %three = constant() value=f32[] {3.0}";
        run_rule(FuseRmsNorm, &format!("graph g(%x: f32[n, 3, 4]) -> ({outputs}) {{ {constants} {body} }}"))
    }

    const MEAN: &str = "%1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)";

    #[test]
    fn fires_on_a_quotient() {
        let run = run(&format!("{MEAN} %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 4]) -> (%y) {
          %s = constant() value=f32[4] {1.0, 2.0, 0.5, -1.0}
          %y = rms_norm(%x, %s) axis=2 epsilon=1e-5 : f32[n, 3, 4]
        }
        ");
    }

    #[test]
    fn fires_on_every_inverse_root() {
        for root in ["%4 = sqrt(%3) %r = reciprocal(%4)", "%4 = sqrt(%3) %r = div(%one, %4)", "%r = pow(%3, %p)"] {
            let body = format!("{MEAN} {root} %5 = mul(%r, %x) %y = mul(%s, %5)");
            assert_eq!(run(&body, "%y").equal_within(1e-6, 2).rewrites, 1, "{body}");
        }
    }

    #[test]
    fn fires_over_several_axes() {
        let body = "%1 = pow(%x, %two) %2 = reduce(%1) kind=mean axes=[1, -1] keep_dims=true %3 = add(%e, %2)
            %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %wide)";
        assert_eq!(run(body, "%y").equal_within(1e-6, 2).rewrites, 1);
    }

    #[test]
    fn fires_between_conversions() {
        let text = "graph g(%h: f16[2, 4]) -> (%y) {
            %e = constant() value=f32[] {1e-5} %s = constant() value=f16[4] {1.0, 2.0, 0.5, -1.0}
            %x = cast(%h) to=f32 saturate=true %1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[1] keep_dims=true
            %3 = add(%2, %e) %4 = sqrt(%3) %5 = div(%x, %4) %6 = cast(%5) to=f16 saturate=true %y = mul(%6, %s) }";
        let run = run_rule(FuseRmsNorm, text);
        insta::assert_snapshot!(run.equal_within(2e-3, 1).after, @"
        graph g(%h: f16[2, 4]) -> (%y) {
          %s = constant() value=f16[4] {1.0, 2.0, 0.5, -1.0}
          %y = rms_norm(%h, %s) axis=1 epsilon=1e-5 : f16[2, 4]
        }
        ");
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{MEAN} %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)"), "%y, %4");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `4` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // Another divisor's data, other axes, a maximum, a scale of other sizes.
            "%n = neg(%x) %1 = mul(%n, %n) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[1] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = mul(%x, %x) %2 = reduce(%1) kind=max axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %wide)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
        for body in [
            // The product of two values, a power of another number, another power, less than the mean, another function than the root.
            "%n = neg(%x) %1 = mul(%x, %n) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = pow(%two, %x) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = pow(%x, %three) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = sub(%2, %e)
                %4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
            "%1 = mul(%x, %x) %2 = reduce(%1) kind=mean axes=[2] keep_dims=true %3 = add(%2, %e)
                %4 = exp(%3) %5 = div(%x, %4) %y = mul(%5, %s)",
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
        for tail in [
            // Two divided by the root, the mean to another power, a scale of no axis.
            "%4 = sqrt(%3) %r = div(%two, %4) %5 = mul(%x, %r) %y = mul(%5, %s)",
            "%r = pow(%3, %two) %5 = mul(%x, %r) %y = mul(%5, %s)",
            "%4 = sqrt(%3) %5 = div(%x, %4) %y = mul(%5, %two)",
        ] {
            assert_eq!(run(&format!("{MEAN} {tail}"), "%y").rewrites, 0, "{tail}");
        }
    }

    /// In a square, what is left of a row without its axis divides the columns.
    #[test]
    fn leaves_a_mean_that_loses_its_axis_alone() {
        let text = |keep: bool| {
            format!(
                "graph g(%x: f32[2, 2]) -> (%y) {{ %e = constant() value=f32[] {{1e-5}}
                %s = constant() value=f32[2] {{1, 2}} %1 = mul(%x, %x)
                %2 = reduce(%1) kind=mean axes=[1] keep_dims={keep} %3 = add(%2, %e) %4 = sqrt(%3) %5 = div(%x, %4)
                %y = mul(%5, %s) }}"
            )
        };
        assert_eq!([false, true].map(|keep| run_rule(FuseRmsNorm, &text(keep)).rewrites), [0, 1]);
    }

    #[test]
    fn leaves_other_conversions_alone() {
        let text = |from: &str, to: &str| {
            format!(
                "graph g(%h: {from}[2, 4]) -> (%y) {{
                %e = constant() value=f32[] {{1e-5}} %s = constant() value={to}[4] {{1.0, 2.0, 0.5, -1.0}}
                %x = cast(%h) to=f32 saturate=true %1 = mul(%x, %x)
                %2 = reduce(%1) kind=mean axes=[1] keep_dims=true %3 = add(%2, %e) %4 = sqrt(%3) %5 = div(%x, %4)
                %6 = cast(%5) to={to} saturate=true %y = mul(%6, %s) }}"
            )
        };
        for (from, to, rewrites) in [("f64", "f64", 0), ("bf16", "f16", 0), ("bf16", "bf16", 1)] {
            assert_eq!(run_rule(FuseRmsNorm, &text(from, to)).rewrites, rewrites, "{from} {to}");
        }
    }
}
