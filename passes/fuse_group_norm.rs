//! Finds the group norm that exporters write as an instance norm of groups.
//!
//! ```text
//! %1 = reshape(%x) shape=[n, 32, -1] : f32[n, 32, k]
//! %2 = group_norm(%1, ones, zeros) groups=0 epsilon=1e-5
//! %3 = reshape(%2) shape=[n, 64, h, w]
//! %4 = mul(%3, %scale)
//! %y = add(%4, %bias)
//! ```
//! becomes
//! ```text
//! %y = group_norm(%x, %scale, %bias) groups=32 epsilon=1e-5
//! ```
//! (Wu and He, "Group Normalization", 2018; ONNX `GroupNormalization`.)
//!
//! Fires on scale and bias that are constants of the channels, in this order; on a scale of ones and a bias of zeros of
//! the groups.
//!
//! Refuses: "groups have a scale or bias of their own"; and a part of the formula with another reader. Reshapes that do
//! not leave the batch alone are no match.
//!
//! Order: after `fuse_instance_norm`; before `fuse_affine`, which takes scale and bias.
//!
//! Numerics: the same formula.

use trt_fuse_ir::op::{BinaryOp, GroupNorm, Reshape};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Shape};

use crate::normal::channel_parameter;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseGroupNorm;

impl Rule for FuseGroupNorm {
    fn name(&self) -> &'static str {
        "fuse_group_norm"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let found = found(graph, root).ok_or(Miss::NoMatch)?;
        let is = |slot, wanted| {
            let constant = graph.input(found.norm, slot).and_then(|value| graph.constant(value));
            constant.and_then(|constant| constant.uniform_f64()) == Some(wanted)
        };
        if !is(1, 1.0) || !is(2, 0.0) {
            return Err(Miss::Blocked { reason: "groups have a scale or bias of their own", at: found.norm });
        }
        Ok(found.patch)
    }
}

struct Found {
    norm: NodeId,
    patch: Patch,
}

fn found(graph: &Graph, root: NodeId) -> Option<Found> {
    let (product, bias) = channel_parameter(graph, root, BinaryOp::Add)?;
    let (apart, scale) = channel_parameter(graph, product.node, BinaryOp::Mul)?;
    let input_of_reshape = |id: NodeId| graph.input(id, 0).filter(|_| matches!(graph.op(id), Some(Op::Reshape(_))));
    let norm = input_of_reshape(apart.node)?;
    let Op::GroupNorm(GroupNorm { groups: 0, epsilon }) = graph.op(norm.node)? else { return None };
    let together = graph.input(norm.node, 0)?;
    let x = input_of_reshape(together.node)?;
    let shape = |value| graph.info(value)?.shape.as_ref();
    let ([batch, groups, ..], [whole, channels, ..]) = (shape(together)?.as_slice(), shape(x)?.as_slice()) else {
        return None;
    };
    let (groups, count) = (groups.value()?, channels.value()?);
    if batch != whole || shape(apart)? != shape(x)? || groups < 1 || count % groups != 0 {
        return None;
    }
    let of_channels = Shape::from_iter([channels.clone()]);
    let mut patch = Patch::new("fuse_group_norm", root);
    let [scale, bias] = [scale, bias]
        .map(|value| patch.add(Reshape { shape: Some(of_channels.clone()), allow_zero: false }, &[Some(value)]));
    let y = patch.add(GroupNorm { groups, epsilon: *epsilon }, &[Some(x), Some(scale), Some(bias)]);
    let nodes = [root, product.node, apart.node, norm.node, together.node];
    patch.replace(root.into(), y).absorb(nodes);
    Some(Found { norm: norm.node, patch })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const NORM: &str = "%1 = reshape(%x) shape=[n, 2, (6*h)] %2 = group_norm(%1, %one, %zero) groups=0 epsilon=1e-5
        %3 = reshape(%2) shape=[n, 4, h, 3]";

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%one = constant() value=f32[2] {1, 1} %zero = constant() value=f32[2] {0, 0}
            %other = constant() value=f32[2] {1, 2} %s = constant() value=f32[4, 1, 1] {1, 2, -1, 0.5}
            %b = constant() value=f32[1, 4, 1, 1] {0.5, 0.25, 0, 1} %row = constant() value=f32[3] {1, 2, 3}";
        let inputs = "%x: f32[n, 4, h, 3], %z: f32[n, 4, 1, 1]";
        run_rule(FuseGroupNorm, &format!("graph g({inputs}) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_on_the_exporters_form() {
        let run = run(&format!("{NORM} %4 = mul(%3, %s) %y = add(%4, %b)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 4, h, 3], %z: f32[n, 4, 1, 1]) -> (%y) {
          %s = constant() value=f32[4, 1, 1] {1.0, 2.0, -1.0, 0.5}
          %y.1 = reshape(%s) shape=[4] : f32[4]
          %b = constant() value=f32[1, 4, 1, 1] {0.5, 0.25, 0.0, 1.0}
          %y.2 = reshape(%b) shape=[4] : f32[4]
          %y = group_norm(%x, %y.1, %y.2) groups=2 epsilon=1e-5 : f32[n, 4, h, 3]
        }
        ");
    }

    #[test]
    fn refuses_groups_with_a_scale_or_bias_of_their_own() {
        for own in ["%one", "%zero"] {
            let run = run(&format!("{NORM} %4 = mul(%3, %s) %y = add(%4, %b)").replace(own, "%other"), "%y");
            assert_eq!((run.rewrites, run.reasons()), (0, vec!["groups have a scale or bias of their own"]), "{own}");
        }
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{NORM} %4 = mul(%3, %s) %y = add(%4, %b)"), "%y, %3");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `3` also read by `an output of the graph`"]));
    }

    #[test]
    fn leaves_groups_that_cut_a_channel_alone() {
        for (channels, rewrites) in [(3, 0), (4, 1)] {
            let text = format!(
                "graph g(%x: f32[n, {channels}, 4]) -> (%y) {{
                %one = constant() value=f32[2] splat 1 %zero = constant() value=f32[2] splat 0
                %s = constant() value=f32[{channels}, 1] splat 2 %1 = reshape(%x) shape=[n, 2, {}]
                %2 = group_norm(%1, %one, %zero) groups=0 epsilon=1e-5 %3 = reshape(%2) shape=[n, {channels}, 4]
                %4 = mul(%3, %s) %y = add(%4, %s) }}",
                2 * channels
            );
            assert_eq!(run_rule(FuseGroupNorm, &text).equal_within(1e-5, 2).rewrites, rewrites, "{channels}");
        }
    }

    #[test]
    fn leaves_what_is_no_reshape_alone() {
        for (before, after) in
            [("relu(%x)", "reshape(%2) shape=[n, 4, 3]"), ("reshape(%x) shape=[n, 4, 3]", "relu(%2)")]
        {
            let text = format!(
                "graph g(%x: f32[n, 4, 3]) -> (%y) {{
                %one = constant() value=f32[4] splat 1 %zero = constant() value=f32[4] splat 0
                %s = constant() value=f32[4, 1] splat 2 %1 = {before}
                %2 = group_norm(%1, %one, %zero) groups=0 epsilon=1e-5 %3 = {after} %4 = mul(%3, %s) %y = add(%4, %s) }}"
            );
            assert_eq!(run_rule(FuseGroupNorm, &text).rewrites, 0, "{text}");
        }
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // A scale of the last axis, one that is computed, no scale, groups across the batch, another shape after.
            format!("{NORM} %4 = mul(%3, %row) %y = add(%4, %b)"),
            format!("{NORM} %4 = mul(%3, %z) %y = add(%4, %b)"),
            format!("{NORM} %y = add(%3, %b)"),
            format!("{NORM} %4 = mul(%3, %s) %y = add(%4, %b)").replace("[n, 2, (6*h)]", "[(2*n), 2, (3*h)]"),
            format!("{NORM} %4 = mul(%3, %s) %y = add(%4, %b)").replace("shape=[n, 4, h, 3]", "shape=[n, 4, 3, h]"),
        ] {
            assert_eq!(run(&body, "%y").rewrites, 0, "{body}");
        }
    }
}
