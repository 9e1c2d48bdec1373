//! Finds the instance norm, `(x - mean) / sqrt(variance + epsilon) * scale + bias` of each channel, in its parts.
//!
//! ```text
//! %1 = reduce(%x) kind=mean axes=[2, 3] keep_dims=true : f32[n, c, 1, 1]
//! %2 = sub(%x, %1)
//! %3 = mul(%2, %2)
//! %4 = reduce(%3) kind=mean axes=[2, 3] keep_dims=true
//! %5 = add(%4, 1e-5)
//! %6 = sqrt(%5)
//! %7 = div(%2, %6)
//! %8 = mul(%7, %scale)
//! %y = add(%8, %bias)
//! ```
//! becomes
//! ```text
//! %y = group_norm(%x, %scale, %bias) groups=0 epsilon=1e-5
//! ```
//! (Ulyanov, Vedaldi and Lempitsky, "Instance Normalization", 2016; ONNX `InstanceNormalization`.)
//!
//! Fires on data of four axes and more, and on three that are four in groups; with scale and bias that are constants of
//! the channels, or neither.
//!
//! Refuses when: a part of the formula has another reader. Channels of unknown number, and other axes than all from the
//! third on, are no match.
//!
//! Order: before `fuse_group_norm`, which looks for it; before `fuse_affine`, which takes scale and bias.
//!
//! Numerics: the same formula.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{BinaryOp, Constant, GroupNorm, Reshape};
use trt_fuse_ir::{DType, Dim, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::normal::{channel_parameter, converted_normal, mean_of};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseInstanceNorm;

impl Rule for FuseInstanceNorm {
    fn name(&self) -> &'static str {
        "fuse_instance_norm"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        with_parameters(graph, root).or_else(|| plain(graph, root)).ok_or(Miss::NoMatch)
    }
}

fn with_parameters(graph: &Graph, root: NodeId) -> Option<Patch> {
    let (product, bias) = channel_parameter(graph, root, BinaryOp::Add)?;
    let (normal, scale) = channel_parameter(graph, product.node, BinaryOp::Mul)?;
    let (data, epsilon, nodes) = normal_of_channels(graph, normal)?;
    let channels = Shape::from_iter([channels_of(graph, data)?]);
    let mut patch = Patch::new("fuse_instance_norm", root);
    let [scale, bias] = [scale, bias]
        .map(|value| patch.add(Reshape { shape: Some(channels.clone()), allow_zero: false }, &[Some(value)]));
    let y = patch.add(GroupNorm { groups: 0, epsilon }, &[Some(data), Some(scale), Some(bias)]);
    patch.replace(root.into(), y).absorb([root, product.node]).absorb(nodes);
    Some(patch)
}

/// Without scale and bias. Of three axes, the last may be a layer norm's: a reshape must put them together.
fn plain(graph: &Graph, root: NodeId) -> Option<Patch> {
    let (data, epsilon, nodes) = normal_of_channels(graph, root.into())?;
    let is_grouped = || {
        let reader = graph.sole_consumer(root.into());
        reader.is_some_and(|reader| matches!(graph.op(reader.node), Some(Op::Reshape(_))))
            && matches!(graph.op(data.node), Some(Op::Reshape(_)))
    };
    if graph.info(data)?.rank()? == 3 && !is_grouped() {
        return None;
    }
    let channels = usize::try_from(channels_of(graph, data)?.value()?).ok()?;
    let mut patch = Patch::new("fuse_instance_norm", root);
    let [scale, bias] =
        [1.0, 0.0].map(|value| Some(patch.add(Constant { value: Tensor::full([channels], value as f32).ok()? }, &[])));
    let y = patch.add(GroupNorm { groups: 0, epsilon }, &[Some(data), scale, bias]);
    patch.replace(root.into(), y).absorb(nodes);
    Some(patch)
}

fn channels_of(graph: &Graph, data: ValueRef) -> Option<Dim> {
    graph.info(data)?.shape.as_ref()?.get(1).filter(|dim| dim.value().is_some()).cloned()
}

/// The data, epsilon and nodes of a norm over all axes from the third on, in f32.
fn normal_of_channels(graph: &Graph, value: ValueRef) -> Option<(ValueRef, F32, Vec<NodeId>)> {
    let (normal, half) = converted_normal(graph, value)?;
    let centred = normal.data;
    if half.is_some() || normal.axis != 2 || graph.op(centred.node)? != &Op::Binary(BinaryOp::Sub) {
        return None;
    }
    let (data, mean) = (graph.input(centred.node, 0)?, graph.input(centred.node, 1)?);
    let fits = mean_of(graph, mean)? == (data, 2) && graph.dtype(data) == DType::F32;
    let nodes = [normal.nodes, vec![centred.node, mean.node]].concat();
    fits.then_some((data, F32(normal.epsilon as f32), nodes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const NORMAL: &str = "%m = reduce(%x) kind=mean axes=[2, 3] keep_dims=true %d = sub(%x, %m) %q = mul(%d, %d)
        %v = reduce(%q) kind=mean axes=[2, 3] keep_dims=true %a = add(%v, %e) %r = sqrt(%a) %n = div(%d, %r)";

    fn run(body: &str, outputs: &str) -> Run {
        let constants = "%e = constant() value=f32[] {1e-5} %s = constant() value=f32[2, 1, 1] {1.0, -2.0}
            %b = constant() value=f32[1, 2, 1, 1] {0.5, 0.25} %row = constant() value=f32[3] {1.0, 2.0, 3.0}
            %table = constant() value=f32[2, 1, 3] {1, 2, 3, 4, 5, 6} %deep = constant() value=f32[1, 1, 2, 1, 1] {1, 2}
            %one = constant() value=f32[] {1.0} %wide = constant() value=f32[1, 1, 1, 1, 1] {1.0}";
        let inputs = "%x: f32[n, 2, h, 3], %rows: f32[n, 2, 12]";
        run_rule(FuseInstanceNorm, &format!("graph g({inputs}) -> ({outputs}) {{ {constants} {body} }}"))
    }

    #[test]
    fn fires_with_scale_and_bias() {
        let run = run(&format!("{NORMAL} %p = mul(%s, %n) %y = add(%p, %b)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 2, h, 3], %rows: f32[n, 2, 12]) -> (%y) {
          %s = constant() value=f32[2, 1, 1] {1.0, -2.0}
          %y.1 = reshape(%s) shape=[2] : f32[2]
          %b = constant() value=f32[1, 2, 1, 1] {0.5, 0.25}
          %y.2 = reshape(%b) shape=[2] : f32[2]
          %y = group_norm(%x, %y.1, %y.2) groups=0 epsilon=1e-5 : f32[n, 2, h, 3]
        }
        ");
    }

    #[test]
    fn fires_without_scale_and_bias() {
        insta::assert_snapshot!(run(NORMAL, "%n").equal_within(1e-5, 2).after, @"
        graph g(%x: f32[n, 2, h, 3], %rows: f32[n, 2, 12]) -> (%n) {
          %n.fuse_instance_norm = constant() value=f32[2] splat 1.0
          %n.fuse_instance_norm.1 = constant() value=f32[2] splat 0.0
          %n = group_norm(%x, %n.fuse_instance_norm, %n.fuse_instance_norm.1) groups=0 epsilon=1e-5 : f32[n, 2, h, 3]
        }
        ");
    }

    const ROWS: &str = "%m = reduce(%r) kind=mean axes=[2] keep_dims=true %d = sub(%r, %m) %q = mul(%d, %d)
        %v = reduce(%q) kind=mean axes=[2] keep_dims=true %a = add(%v, %e) %t = sqrt(%a) %n = div(%d, %t)";

    #[test]
    fn fires_on_groups() {
        let body = format!("%r = reshape(%rows) shape=[n, 4, 6] {ROWS} %y = reshape(%n) shape=[n, 2, 12]");
        assert_eq!(run(&body, "%y").equal_within(1e-5, 2).rewrites, 1);
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("{NORMAL} %p = mul(%n, %s) %y = add(%p, %b)"), "%y, %d");
        // With scale and bias, and without.
        let reason = "output of `d` also read by `an output of the graph`";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason; 2]));
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for (body, output) in [
            // A layer norm without parameters, its last axis alone, another mean, a maximum.
            (ROWS.replace("%r)", "%rows)").replace("(%r,", "(%rows,"), "%n"),
            (NORMAL.replace("[2, 3]", "[3]"), "%n"),
            (NORMAL.replacen("[2, 3]", "[1, 2, 3]", 1), "%n"),
            (NORMAL.replacen("kind=mean", "kind=max", 1), "%n"),
            // The second mean of fewer axes, a sum with the mean, a group that is not taken apart or not put together.
            (NORMAL.replace("reduce(%q) kind=mean axes=[2, 3]", "reduce(%q) kind=mean axes=[3]"), "%n"),
            (NORMAL.replace("sub(%x, %m)", "add(%x, %m)"), "%n"),
            (format!("%r = relu(%rows) {ROWS} %y = reshape(%n) shape=[n, 4, 6]"), "%y"),
            (format!("%r = reshape(%rows) shape=[n, 4, 6] {ROWS} %y = relu(%n)"), "%y"),
        ] {
            assert_eq!(run(&body, output).rewrites, 0, "{body}");
        }
        // A root whose inverse has an axis more than the data.
        let inverse = NORMAL.replace("%n = div(%d, %r)", "%i = div(%wide, %r) %n = mul(%d, %i)");
        assert_eq!(run(&inverse, "%n").rewrites, 0);
        assert_eq!(run(&inverse.replace("%wide", "%one"), "%n").equal_within(1e-5, 2).rewrites, 1);
    }

    #[test]
    fn what_is_not_of_the_channels_stays_behind() {
        for parameters in [
            "%p = mul(%n, %row) %y = add(%p, %b)",
            "%p = mul(%n, %table) %y = add(%p, %b)",
            "%p = div(%n, %s) %y = add(%p, %b)",
            "%p = mul(%n, %s) %y = sub(%p, %b)",
            "%p = mul(%n, %s) %y = add(%p, %deep)",
        ] {
            let run = run(&format!("{NORMAL} {parameters}"), "%y");
            let after = run.equal_within(1e-5, 3).after.to_string();
            assert!(run.rewrites == 1 && after.contains("splat 1.0"), "{after}");
        }
    }

    #[test]
    fn leaves_other_types_alone() {
        let text = |dtype: &str| {
            format!("graph g(%x: {dtype}[1, 2, 3, 3]) -> (%n) {{ %e = constant() value={dtype}[] {{1e-5}} {NORMAL} }}")
        };
        for (dtype, rewrites) in [("f16", 0), ("f64", 0), ("f32", 1)] {
            assert_eq!(run_rule(FuseInstanceNorm, &text(dtype)).rewrites, rewrites, "{dtype}");
        }
        // Computed in f32 between conversions.
        let half = NORMAL.replace("%n = div(%d, %r)", "%o = div(%d, %r) %n = cast(%o) to=f16 saturate=true");
        let text = format!(
            "graph g(%h: f16[1, 2, 3, 3]) -> (%y) {{ %e = constant() value=f32[] {{1e-5}}
            %s = constant() value=f16[2, 1, 1] {{1, 2}} %b = constant() value=f16[2, 1, 1] {{1, 2}}
            %x = cast(%h) to=f32 saturate=true {half} %p = mul(%n, %s) %y = add(%p, %b) }}"
        );
        // Only the quotient is a norm, between the conversions.
        let run = run_rule(FuseInstanceNorm, &text);
        assert!(run.rewrites == 1 && run.after.to_string().contains("cast(%o) to=f16"), "{}", run.after);
    }
}
