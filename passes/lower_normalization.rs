//! Writes normalisations that the target has no layer for as reductions and arithmetic.
//!
//! ```text
//! %y = rms_norm(%x, %scale) axis=-1 epsilon=1e-5 : f32[n, 8]
//! ```
//! becomes
//! ```text
//! %1 = mul(%x, %x) : f32[n, 8]
//! %2 = reduce(%1) kind=mean axes=[1] keep_dims=true noop_if_empty=true : f32[n, 1]
//! %3 = add(%2, 1e-5) : f32[n, 1]
//! %4 = sqrt(%3) : f32[n, 1]
//! %5 = div(%x, %4) : f32[n, 8]
//! %y = mul(%5, %scale) : f32[n, 8]
//! ```
//!
//! Fires on `rms_norm`, `lp_norm` and `mean_variance_norm`, and on a `layer_norm` whose mean or inverse deviation is
//! read, or whose target has no normalisation layer.
//!
//! Refuses nothing; data of unknown rank is no match.
//!
//! Order: any.
//!
//! Numerics: statistics of 16-bit floats are taken in f32, as the operators are defined; 1e-6 in f32.

use trt_fuse_ir::infer::{resolve_axes, resolve_axis};
use trt_fuse_ir::op::{BinaryOp, LayerNorm, LpNorm, MeanVarianceNorm, ReduceKind, RmsNorm, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerNormalization;

impl Rule for LowerNormalization {
    fn name(&self) -> &'static str {
        "lower_normalization"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::LayerNorm, OpKind::RmsNorm, OpKind::LpNorm, OpKind::MeanVarianceNorm]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let outputs = node.outputs.len();
        let f = Formula::new(self.name(), graph, root);
        match &node.op {
            Op::LayerNorm(_) if outputs == 1 && context.capabilities.normalization => Err(Miss::NoMatch),
            Op::LayerNorm(op) => layer_norm(f, op, outputs),
            Op::RmsNorm(op) => rms_norm(f, op),
            Op::LpNorm(op) => lp_norm(f, op),
            Op::MeanVarianceNorm(op) => mean_variance_norm(f, op),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// The data, in f32 if it is of 16 bits, with its own dtype and the one computed in.
fn widened(f: &mut Formula<'_>) -> Result<(ValueRef, DType, DType), Miss> {
    let (x, own) = (f.input(0)?, f.info(0)?.dtype);
    match own {
        DType::F16 | DType::BF16 => Ok((f.cast(x, DType::F32), own, DType::F32)),
        _ => Ok((x, own, own)),
    }
}

fn narrowed(f: &mut Formula<'_>, x: ValueRef, own: DType, wide: DType) -> ValueRef {
    if own == wide { x } else { f.cast(x, own) }
}

/// The axes from `axis` to the last.
fn from(f: &Formula<'_>, axis: i64) -> Result<Vec<i64>, Miss> {
    let rank = f.shape(0)?.len();
    let first = resolve_axis(axis, rank).map_err(|_| Miss::NoMatch)?;
    Ok((first as i64..rank as i64).collect())
}

/// Data less its mean, the mean, and the variance.
fn moments(f: &mut Formula<'_>, x: ValueRef, axes: &[i64]) -> (ValueRef, ValueRef, ValueRef) {
    let mean = f.reduce(ReduceKind::Mean, x, axes);
    let centred = f.binary(BinaryOp::Sub, x, mean);
    let square = f.binary(BinaryOp::Mul, centred, centred);
    (centred, mean, f.reduce(ReduceKind::Mean, square, axes))
}

fn layer_norm(mut f: Formula<'_>, op: &LayerNorm, outputs: usize) -> Result<Patch, Miss> {
    let axes = from(&f, op.axis)?;
    let (x, own, wide) = widened(&mut f)?;
    let (centred, mean, variance) = moments(&mut f, x, &axes);
    let kept_from_0 = f.with_number(BinaryOp::Add, variance, wide, f64::from(op.epsilon.0))?;
    let deviation = f.unary(UnaryOp::Sqrt, kept_from_0);
    // A quotient: with a product by the inverse, TensorRT 8.5 makes two kernels of it, of twice the time, in batches.
    let normal = f.binary(BinaryOp::Div, centred, deviation);
    let normal = narrowed(&mut f, normal, own, wide);
    let scale = f.input(1)?;
    let mut y = f.binary(BinaryOp::Mul, normal, scale);
    if let Ok(bias) = f.input(2) {
        y = f.binary(BinaryOp::Add, y, bias);
    }
    if outputs == 1 {
        return Ok(f.result(y));
    }
    let inverse = f.unary(UnaryOp::Reciprocal, deviation);
    // The statistics are f32 whatever the data.
    let [mean, inverse] = [mean, inverse].map(|x| if wide == DType::F32 { x } else { f.cast(x, DType::F32) });
    let values = [y, mean, inverse];
    Ok(f.results(values.get(..outputs).ok_or(Miss::NoMatch)?))
}

fn rms_norm(mut f: Formula<'_>, op: &RmsNorm) -> Result<Patch, Miss> {
    let axes = from(&f, op.axis)?;
    let (x, own, wide) = widened(&mut f)?;
    let square = f.binary(BinaryOp::Mul, x, x);
    let mean = f.reduce(ReduceKind::Mean, square, &axes);
    let kept_from_0 = f.with_number(BinaryOp::Add, mean, wide, f64::from(op.epsilon.0))?;
    let root = f.unary(UnaryOp::Sqrt, kept_from_0);
    let normal = f.binary(BinaryOp::Div, x, root);
    let normal = narrowed(&mut f, normal, own, wide);
    let scale = f.input(1)?;
    let y = f.binary(BinaryOp::Mul, normal, scale);
    Ok(f.result(y))
}

fn lp_norm(mut f: Formula<'_>, op: &LpNorm) -> Result<Patch, Miss> {
    let rank = f.shape(0)?.len();
    let axis = [resolve_axis(op.axis, rank).map_err(|_| Miss::NoMatch)? as i64];
    let (x, own, wide) = widened(&mut f)?;
    let norm = match op.p {
        1 => f.reduce(ReduceKind::L1, x, &axis),
        2 => f.reduce(ReduceKind::L2, x, &axis),
        p => {
            let size = f.unary(UnaryOp::Abs, x);
            let power = f.with_number(BinaryOp::Pow, size, wide, p as f64)?;
            let sum = f.reduce(ReduceKind::Sum, power, &axis);
            f.with_number(BinaryOp::Pow, sum, wide, 1.0 / p as f64)?
        }
    };
    // A row of zeros stays one.
    let is_zero = f.with_number(BinaryOp::Equal, norm, wide, 0.0)?;
    let one = f.number(wide, 1.0)?;
    let norm = f.select(is_zero, one, norm);
    let y = f.binary(BinaryOp::Div, x, norm);
    let y = narrowed(&mut f, y, own, wide);
    Ok(f.result(y))
}

fn mean_variance_norm(mut f: Formula<'_>, op: &MeanVarianceNorm) -> Result<Patch, Miss> {
    let axes = resolve_axes(&op.axes, f.shape(0)?.len()).map_err(|_| Miss::NoMatch)?;
    let axes: Vec<i64> = axes.iter().map(|axis| *axis as i64).collect();
    let (x, own, wide) = widened(&mut f)?;
    let (centred, _, variance) = moments(&mut f, x, &axes);
    let deviation = f.unary(UnaryOp::Sqrt, variance);
    // ONNX's function body keeps it from 0 so.
    let deviation = f.with_number(BinaryOp::Add, deviation, wide, 1e-9)?;
    let y = f.binary(BinaryOp::Div, centred, deviation);
    let y = narrowed(&mut f, y, own, wide);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Capabilities;

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(text: &str) -> Run {
        run_rule(LowerNormalization, text)
    }

    #[test]
    fn fires_on_rms_norm() {
        let run = run("graph g(%x: f32[n, 8], %s: f32[8]) -> (%y) { %y = rms_norm(%x, %s) axis=-1 epsilon=1e-5 }");
        insta::assert_snapshot!(run.equal_within(1e-6, 3).after, @"
        graph g(%x: f32[n, 8], %s: f32[8]) -> (%y) {
          %y.1 = mul(%x, %x) : f32[n, 8]
          %y.2 = reduce(%y.1) kind=mean axes=[1] keep_dims=true noop_if_empty=true : f32[n, 1]
          %y.lower_normalization = constant() value=f32[] {1e-5}
          %y.3 = add(%y.2, %y.lower_normalization) : f32[n, 1]
          %y.4 = sqrt(%y.3) : f32[n, 1]
          %y.5 = div(%x, %y.4) : f32[n, 8]
          %y = mul(%y.5, %s) : f32[n, 8]
        }
        ");
    }

    #[test]
    fn fires_on_a_layer_norm_with_statistics() {
        let run = run("graph g(%x: f16[2, 4, 8], %s: f16[4, 8], %b: f16[8]) -> (%y, %m, %d) {
            %y, %m, %d = layer_norm(%x, %s, %b) axis=1 epsilon=1e-5 }");
        insta::assert_snapshot!(run.equal_within(1e-3, 1).after, @"
        graph g(%x: f16[2, 4, 8], %s: f16[4, 8], %b: f16[8]) -> (%y, %m, %d) {
          %y.1 = cast(%x) to=f32 saturate=true : f32[2, 4, 8]
          %m = reduce(%y.1) kind=mean axes=[1, 2] keep_dims=true noop_if_empty=true : f32[2, 1, 1]
          %y.3 = sub(%y.1, %m) : f32[2, 4, 8]
          %y.4 = mul(%y.3, %y.3) : f32[2, 4, 8]
          %y.5 = reduce(%y.4) kind=mean axes=[1, 2] keep_dims=true noop_if_empty=true : f32[2, 1, 1]
          %y.lower_normalization = constant() value=f32[] {1e-5}
          %y.6 = add(%y.5, %y.lower_normalization) : f32[2, 1, 1]
          %y.7 = sqrt(%y.6) : f32[2, 1, 1]
          %y.8 = div(%y.3, %y.7) : f32[2, 4, 8]
          %y.9 = cast(%y.8) to=f16 saturate=true : f16[2, 4, 8]
          %y.10 = mul(%y.9, %s) : f16[2, 4, 8]
          %y = add(%y.10, %b) : f16[2, 4, 8]
          %d = reciprocal(%y.7) : f32[2, 1, 1]
        }
        ");
    }

    #[test]
    fn leaves_a_layer_norm_to_the_targets_own_layer() {
        let text = "graph g(%x: f32[2, 8], %s: f32[8]) -> (%y) { %y = layer_norm(%x, %s) axis=-1 epsilon=1e-5 }";
        assert_eq!(run(text).rewrites, 0);
    }

    #[test]
    fn fires_on_a_layer_norm_where_the_target_has_none() {
        let text = "graph g(%x: f32[2, 8], %s: f32[8]) -> (%y) { %y = layer_norm(%x, %s) axis=-1 epsilon=1e-5 }";
        let before: Graph = text.parse().unwrap();
        let target = Capabilities { normalization: false, ..Capabilities::default() };
        let after = crate::testing::run_for(LowerNormalization, &before, &target);
        assert!(!after.to_string().contains("layer_norm("), "{after}");
        assert!(after.to_string().contains("div(") && !after.to_string().contains("reciprocal("), "{after}");
        let inputs = crate::testing::random_inputs(&before, 1, 1);
        let eval = |graph| trt_fuse_ir::eval::eval_graph(graph, &inputs).unwrap().remove(0);
        assert!(crate::testing::difference(&eval(&before), &eval(&after)) < 1e-6, "{after}");
    }

    #[test]
    fn fires_on_every_power() {
        for p in [1, 2, 3] {
            let text = format!("graph g(%x: f32[3, n]) -> (%y) {{ %y = lp_norm(%x) axis=-1 p={p} }}");
            assert_eq!(run(&text).equal_within(1e-6, 5).rewrites, 1);
        }
    }

    #[test]
    fn fires_on_mean_variance() {
        let run = run("graph g(%x: f32[n, 3, 4, 5]) -> (%y) { %y = mean_variance_norm(%x) axes=[0, 2, 3] }");
        assert_eq!(run.equal_within(1e-5, 2).rewrites, 1);
    }

    #[test]
    fn leaves_unknown_ranks_alone() {
        let text = "graph g(%x: f32[..]) -> (%y) { %y = lp_norm(%x) axis=-1 p=2 }";
        assert_eq!(run(text).rewrites, 0);
    }
}
