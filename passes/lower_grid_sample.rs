//! Writes samples at positions that the target's layer does not take as gathers and weights.
//!
//! ```text
//! %y = grid_sample(%x, %grid) kind=linear padding=zeros : f32[n, c, p]
//! ```
//! becomes, for data of 8,
//! ```text
//! %1 = transpose(%x) perm=[0, 2, 1] : f32[n, 8, c]
//! %2 = gather_nd(%1, indices of the elements before) batch_dims=1 : f32[n, p, c]
//! %3 = gather_nd(%1, indices of the elements after) batch_dims=1 : f32[n, p, c]
//! %y = transpose(add(mul(%2, weights), mul(%3, weights))) perm=[0, 2, 1] : f32[n, c, p]
//! ```
//!
//! Fires on data of one, four and more spatial axes, on volumes where the target has none or the kind is cubic. Each
//! combination of elements along the axes is one gather.
//!
//! Refuses: "the sizes are known only at run time"
//!
//! Order: any.
//!
//! Numerics: positions in f32 of the grid; 1e-5 in f32. Positions are to be finite.

use trt_fuse_ir::op::{BinaryOp, GatherNd, GridSample, SampleKind, SamplePadding, Transpose, UnaryOp};
use trt_fuse_ir::{DType, Dim, Graph, Ints, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The coefficient of cubic sampling.
const CUBIC: f64 = -0.75;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerGridSample;

impl Rule for LowerGridSample {
    fn name(&self) -> &'static str {
        "lower_grid_sample"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::GridSample]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::GridSample(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let f = Formula::new(self.name(), graph, root);
        let shape = f.shape(0)?;
        let fits = match shape.len() {
            4 => true,
            5 => context.capabilities.grid_sample_3d && op.kind != SampleKind::Cubic,
            _ => false,
        };
        if fits {
            return Err(Miss::NoMatch);
        }
        let sizes: Option<Vec<i64>> = shape.iter().skip(2).map(Dim::value).collect();
        let sizes = sizes.ok_or(Miss::Blocked { reason: "the sizes are known only at run time", at: root })?;
        gathered(f, op, shape, &sizes)
    }
}

/// What a position reads along an axis: indices (i64) and weights, both `[n, points, 1]`.
type Taps = Vec<(ValueRef, ValueRef)>;

fn gathered(mut f: Formula<'_>, op: &GridSample, shape: &Shape, sizes: &[i64]) -> Result<Patch, Miss> {
    let ([batch, channels], dtype) = (shape.first_chunk::<2>().cloned().ok_or(Miss::NoMatch)?, f.info(0)?.dtype);
    let output: Shape = f.shape(1)?.iter().skip(1).take(sizes.len()).cloned().collect();
    let points = Dim::product(&output);
    let axes = sizes.len() as i64;
    let grid = f.input(1)?;
    let grid = if f.info(1)?.dtype == DType::F32 { grid } else { f.cast(grid, DType::F32) };
    let grid = f.reshape(grid, [batch.clone(), points, Dim::fixed(axes)].into_iter().collect());
    let mut combined: Vec<(ValueRef, ValueRef)> = Vec::new();
    for (axis, size) in sizes.iter().enumerate() {
        // The last axis comes first.
        let place = axes - 1 - axis as i64;
        let position = f.slice(grid, 2, (place, Dim::fixed(place + 1)), 1);
        let taps = taps(&mut f, op, position, *size)?;
        if combined.is_empty() {
            combined = taps;
            continue;
        }
        let mut next = Vec::new();
        for (index, weight) in combined {
            let start = f.with_number(BinaryOp::Mul, index, DType::I64, *size as f64)?;
            for (at, part) in &taps {
                next.push((f.binary(BinaryOp::Add, start, *at), f.binary(BinaryOp::Mul, weight, *part)));
            }
        }
        combined = next;
    }
    let elements = Dim::fixed(sizes.iter().product());
    let x = f.input(0)?;
    let x = f.reshape(x, [batch.clone(), channels.clone(), elements].into_iter().collect());
    let last = Transpose { perm: Ints::from_slice(&[0, 2, 1]) };
    let x = f.op(last.clone(), &[x]);
    let mut sum = None;
    for (index, weight) in combined {
        let element = f.op(GatherNd { batch_dims: 1 }, &[x, index]);
        let weight = if dtype == DType::F32 { weight } else { f.cast(weight, dtype) };
        let part = f.binary(BinaryOp::Mul, element, weight);
        sum = Some(sum.map_or(part, |sum| f.binary(BinaryOp::Add, sum, part)));
    }
    let y = f.op(last, &[sum.ok_or(Miss::NoMatch)?]);
    let y = f.reshape(y, [batch, channels].into_iter().chain(output).collect());
    Ok(f.result(y))
}

fn taps(f: &mut Formula<'_>, op: &GridSample, position: ValueRef, size: i64) -> Result<Taps, Miss> {
    use BinaryOp::{Add, Mul, Sub};
    let length = size as f64;
    // (p + 1) / 2 * (size - 1), or ((p + 1) * size - 1) / 2
    let (factor, shift) = if op.align_corners {
        ((length - 1.0) / 2.0, (length - 1.0) / 2.0)
    } else {
        (length / 2.0, (length - 1.0) / 2.0)
    };
    let scaled = f.with_number(Mul, position, DType::F32, factor)?;
    let x = f.with_number(Add, scaled, DType::F32, shift)?;
    if op.kind == SampleKind::Nearest {
        let at = f.unary(UnaryOp::Round, x);
        let one = f.number(DType::F32, 1.0)?;
        return Ok(vec![inside(f, op, at, one, size)?]);
    }
    let floor = f.unary(UnaryOp::Floor, x);
    let part = f.binary(Sub, x, floor);
    let steps = if op.kind == SampleKind::Linear { 0..2 } else { -1..3 };
    steps
        .map(|step| {
            let at = f.with_number(Add, floor, DType::F32, f64::from(step))?;
            let weight = weight(f, op.kind, part, step)?;
            inside(f, op, at, weight, size)
        })
        .collect()
}

/// The weight of the element `step` after the one before the position, which lies `part` behind that.
fn weight(f: &mut Formula<'_>, kind: SampleKind, part: ValueRef, step: i32) -> Result<ValueRef, Miss> {
    // The distance as `a + b * part`, which is not negative.
    let (a, b) = if step > 0 { (f64::from(step), -1.0) } else { (-f64::from(step), 1.0) };
    let slope = f.with_number(BinaryOp::Mul, part, DType::F32, b)?;
    let d = f.with_number(BinaryOp::Add, slope, DType::F32, a)?;
    let polynomial = match (kind, step) {
        (SampleKind::Linear, _) => vec![-1.0, 1.0],
        (_, 0 | 1) => vec![CUBIC + 2.0, -(CUBIC + 3.0), 0.0, 1.0],
        _ => vec![CUBIC, -5.0 * CUBIC, 8.0 * CUBIC, -4.0 * CUBIC],
    };
    let mut sum = f.number(DType::F32, polynomial.first().copied().unwrap_or(0.0))?;
    for coefficient in polynomial.iter().skip(1) {
        let product = f.binary(BinaryOp::Mul, sum, d);
        sum = f.with_number(BinaryOp::Add, product, DType::F32, *coefficient)?;
    }
    Ok(sum)
}

/// A whole coordinate as an index, and its weight: 0 where nothing is to be read.
fn inside(
    f: &mut Formula<'_>,
    op: &GridSample,
    at: ValueRef,
    weight: ValueRef,
    size: i64,
) -> Result<(ValueRef, ValueRef), Miss> {
    use BinaryOp::{Add, And, GreaterOrEqual, LessOrEqual, Max, Min, Mul, Sub};
    let last = (size - 1) as f64;
    let (mut at, mut weight) = (at, weight);
    match op.padding {
        SamplePadding::Zeros => {
            let above = f.with_number(GreaterOrEqual, at, DType::F32, 0.0)?;
            let below = f.with_number(LessOrEqual, at, DType::F32, last)?;
            let valid = f.binary(And, above, below);
            let valid = f.cast(valid, DType::F32);
            weight = f.binary(Mul, weight, valid);
        }
        SamplePadding::Reflection => {
            // As a triangle wave: |low - at| modulo twice the range, turned around beyond the range.
            let (low, range) = if op.align_corners { (0.0, last) } else { (-0.5, last + 1.0) };
            let moved = f.with_number(Sub, at, DType::F32, low)?;
            let far = f.unary(UnaryOp::Abs, moved);
            let period = (2.0 * range).max(1.0);
            let rounds = f.with_number(BinaryOp::Div, far, DType::F32, period)?;
            let rounds = f.unary(UnaryOp::Floor, rounds);
            let rounds = f.with_number(Mul, rounds, DType::F32, period)?;
            let rest = f.binary(Sub, far, rounds);
            let turned = f.unary(UnaryOp::Neg, rest);
            let turned = f.with_number(Add, turned, DType::F32, period)?;
            let near = f.binary(Min, rest, turned);
            at = f.with_number(Add, near, DType::F32, low)?;
        }
        _ => {}
    }
    // Kept in the range before f32 gets too large for an i64, and after it: f32 does not have every number of a large axis.
    let near = f.with_number(Max, at, DType::F32, 0.0)?;
    let near = f.with_number(Min, near, DType::F32, last)?;
    let index = f.cast(near, DType::I64);
    Ok((f.with_number(Min, index, DType::I64, last)?, weight))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(x: &str, grid: &str, attrs: &str) -> Run {
        run_rule(
            LowerGridSample,
            &format!("graph g(%x: f32{x}, %g: f32{grid}) -> (%y) {{ %y = grid_sample(%x, %g) {attrs} }}"),
        )
    }

    #[test]
    fn fires_on_one_axis() {
        let run = run("[n, 2, 7]", "[n, p, 1]", "kind=nearest padding=border align_corners=false");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2, 7], %g: f32[n, p, 1]) -> (%y) {
          %y.10 = reshape(%x) shape=[n, 2, 7] allow_zero=true : f32[n, 2, 7]
          %y.11 = transpose(%y.10) perm=[0, 2, 1] : f32[n, 7, 2]
          %y.1 = reshape(%g) shape=[n, p, 1] allow_zero=true : f32[n, p, 1]
          %y.2 = slice(%y.1) axes=[2] starts=[0] ends=[1] steps=[1] : f32[n, p, 1]
          %y.lower_grid_sample = constant() value=f32[] {3.5}
          %y.3 = mul(%y.2, %y.lower_grid_sample) : f32[n, p, 1]
          %y.lower_grid_sample.1 = constant() value=f32[] {3.0}
          %y.4 = add(%y.3, %y.lower_grid_sample.1) : f32[n, p, 1]
          %y.5 = round(%y.4) : f32[n, p, 1]
          %y.lower_grid_sample.3 = constant() value=f32[] {0.0}
          %y.6 = max(%y.5, %y.lower_grid_sample.3) : f32[n, p, 1]
          %y.lower_grid_sample.4 = constant() value=f32[] {6.0}
          %y.7 = min(%y.6, %y.lower_grid_sample.4) : f32[n, p, 1]
          %y.8 = cast(%y.7) to=i64 saturate=true : i64[n, p, 1]
          %y.lower_grid_sample.5 = constant() value=i64[] {6}
          %y.9 = min(%y.8, %y.lower_grid_sample.5) : i64[n, p, 1]
          %y.12 = gather_nd(%y.11, %y.9) batch_dims=1 : f32[n, p, 2]
          %y.lower_grid_sample.2 = constant() value=f32[] {1.0}
          %y.13 = mul(%y.12, %y.lower_grid_sample.2) : f32[n, p, 2]
          %y.14 = transpose(%y.13) perm=[0, 2, 1] : f32[n, 2, p]
          %y = reshape(%y.14) shape=[n, 2, p] allow_zero=true : f32[n, 2, p]
        }
        ");
    }

    #[test]
    fn every_kind_equals_the_operator() {
        for padding in ["zeros", "border", "reflection"] {
            for corners in ["false", "true"] {
                for kind in ["linear", "nearest", "cubic"] {
                    let attrs = format!("kind={kind} padding={padding} align_corners={corners}");
                    let line = run("[n, 2, 7]", "[n, 9, 1]", &attrs);
                    assert_eq!(line.equal_within(1e-5, 2).rewrites, 1, "{attrs}");
                }
                let attrs = format!("kind=linear padding={padding} align_corners={corners}");
                let deep = run("[2, 2, 2, 3, 1, 4]", "[2, 1, 3, 2, 2, 4]", &attrs);
                assert_eq!(deep.equal_within(1e-5, 1).rewrites, 1, "{attrs}");
            }
        }
        let volume = run("[1, 2, 3, 4, 5]", "[1, 2, 2, 2, 3]", "kind=cubic padding=zeros align_corners=false");
        assert_eq!(volume.equal_within(1e-5, 1).rewrites, 1);
    }

    #[test]
    fn indices_have_all_digits_of_large_data() {
        // 257^3 elements are more than f32 can count.
        let run = run("[1, 1, 257, 257, 257]", "[1, 1, 1, 1, 3]", "kind=cubic padding=border align_corners=true");
        let mut x = vec![0_f32; 257 * 257 * 257];
        let last = x.len() - 1;
        x[last] = 1.0;
        let x = trt_fuse_ir::Tensor::from_vec([1, 1, 257, 257, 257], x).unwrap();
        let corner = trt_fuse_ir::Tensor::full([1, 1, 1, 1, 3], 1_f32).unwrap();
        let inputs = [x, corner];
        let expected = trt_fuse_ir::eval::eval_graph(&run.before, &inputs).unwrap();
        let found = trt_fuse_ir::eval::eval_graph(&run.after, &inputs).unwrap();
        assert_eq!(expected[0].to_f64s().unwrap(), [1.0]);
        assert_eq!(found[0].to_f64s().unwrap(), [1.0]);
    }

    #[test]
    fn leaves_what_the_layer_does_alone() {
        let attrs = "kind=linear padding=zeros align_corners=false";
        assert_eq!(run("[n, 2, h, w]", "[n, 2, 3, 2]", attrs).rewrites, 0);
        assert_eq!(run("[n, 2, h, w, 3]", "[n, 2, 3, 2, 3]", attrs).rewrites, 0);
    }

    #[test]
    fn refuses_sizes_of_run_time() {
        let run = run("[n, 2, w]", "[n, 3, 1]", "kind=linear padding=zeros align_corners=false");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the sizes are known only at run time"]));
    }
}
