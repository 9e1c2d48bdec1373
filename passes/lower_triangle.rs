//! Writes triangles and diagonals of matrices as comparisons of row and column numbers.
//!
//! ```text
//! %y = trilu(%x, 0) upper=false : f32[n, 3, 4]
//! ```
//! becomes
//! ```text
//! %1 = greater_or_equal([[0], [1], [2]], [0, 1, 2, 3]) : bool[3, 4]
//! %y = where(%1, %x, 0) : f32[n, 3, 4]
//! ```
//!
//! Fires on `trilu`, whose diagonal may be known only at run time, and on `eye_like`. Of sizes that are no numbers, or
//! large ones, the numbers are counted at run time.
//!
//! Refuses nothing.
//!
//! Order: any.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::{BinaryOp, EyeLike, Trilu};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerTriangle;

impl Rule for LowerTriangle {
    fn name(&self) -> &'static str {
        "lower_triangle"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Trilu, OpKind::EyeLike]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            Some(Op::Trilu(op)) => triangle(f, op),
            Some(Op::EyeLike(op)) => eye(f, op),
            _ => Err(Miss::NoMatch),
        }
    }
}

/// Beyond it all diagonals of any matrix are alike; sums with a row's number stay in 32 bits.
const FARTHEST: i64 = 1 << 30;

/// The numbers of the rows as a column, and of the columns; a diagonal of rows is `column - row`.
fn numbers(f: &mut Formula<'_>) -> Result<(ValueRef, ValueRef), Miss> {
    let rank = f.shape(0)?.len();
    let (Some(row), Some(column)) = (rank.checked_sub(2), rank.checked_sub(1)) else { return Err(Miss::NoMatch) };
    let (rows, columns) = (f.positions(0, row)?, f.positions(0, column)?);
    Ok((f.unsqueeze(rows, &[1]), columns))
}

fn triangle(mut f: Formula<'_>, op: &Trilu) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let (mut rows, columns) = numbers(&mut f)?;
    if let Ok(diagonal) = f.input(1) {
        let diagonal = f.with_number(BinaryOp::Max, diagonal, DType::I64, -FARTHEST as f64)?;
        let diagonal = f.with_number(BinaryOp::Min, diagonal, DType::I64, FARTHEST as f64)?;
        rows = f.binary(BinaryOp::Add, rows, diagonal);
    }
    let kept = if op.upper { BinaryOp::LessOrEqual } else { BinaryOp::GreaterOrEqual };
    let kept = f.binary(kept, rows, columns);
    let zero = f.number(dtype, 0.0)?;
    let y = f.select(kept, x, zero);
    Ok(f.result(y))
}

fn eye(mut f: Formula<'_>, op: &EyeLike) -> Result<Patch, Miss> {
    let dtype = op.dtype.unwrap_or(f.info(0)?.dtype);
    let (rows, columns) = numbers(&mut f)?;
    let rows = f.with_number(BinaryOp::Add, rows, DType::I64, op.k.clamp(-FARTHEST, FARTHEST) as f64)?;
    let diagonal = f.binary(BinaryOp::Equal, rows, columns);
    let y = f.cast(diagonal, dtype);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::Tensor;

    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(text: &str) -> Run {
        run_rule(LowerTriangle, text)
    }

    #[test]
    fn fires_on_a_triangle() {
        let run = run("graph g(%x: f32[n, 3, 4]) -> (%y) { %y = trilu(%x) upper=false }");
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 3, 4]) -> (%y) {
          %y.lower_triangle = constant() value=i64[3] {0, 1, 2}
          %y.1 = unsqueeze(%y.lower_triangle) axes=[1] : i64[3, 1]
          %y.lower_triangle.1 = constant() value=i64[4] {0, 1, 2, 3}
          %y.2 = greater_or_equal(%y.1, %y.lower_triangle.1) : bool[3, 4]
          %y.lower_triangle.2 = constant() value=f32[] {0.0}
          %y = where(%y.2, %x, %y.lower_triangle.2) : f32[n, 3, 4]
        }
        ");
    }

    #[test]
    fn fires_on_a_diagonal_of_run_time() {
        let run = run("graph g(%x: i64[4, 3], %k: i64[]) -> (%y) { %y = trilu(%x, %k) upper=true }");
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: i64[4, 3], %k: i64[]) -> (%y) {
          %y.lower_triangle = constant() value=i64[4] {0, 1, 2, 3}
          %y.1 = unsqueeze(%y.lower_triangle) axes=[1] : i64[4, 1]
          %y.lower_triangle.2 = constant() value=i64[] {-1073741824}
          %y.2 = max(%k, %y.lower_triangle.2) : i64[]
          %y.lower_triangle.3 = constant() value=i64[] {1073741824}
          %y.3 = min(%y.2, %y.lower_triangle.3) : i64[]
          %y.4 = add(%y.1, %y.3) : i64[4, 1]
          %y.lower_triangle.1 = constant() value=i64[3] {0, 1, 2}
          %y.5 = less_or_equal(%y.4, %y.lower_triangle.1) : bool[4, 3]
          %y.lower_triangle.4 = constant() value=i64[] {0}
          %y = where(%y.5, %x, %y.lower_triangle.4) : i64[4, 3]
        }
        ");
    }

    #[test]
    fn diagonals_far_beyond_the_matrix_are_its_edge() {
        for upper in [true, false] {
            let run = run(&format!("graph g(%x: f32[2, 3], %k: i64[]) -> (%y) {{ %y = trilu(%x, %k) upper={upper} }}"));
            for k in [i64::MIN, i64::MAX, -2, 3] {
                let inputs = [Tensor::full([2, 3], 1_f32).unwrap(), Tensor::from_vec([], vec![k]).unwrap()];
                let after = trt_fuse_ir::eval::eval_graph(&run.after, &inputs).unwrap();
                assert_eq!(trt_fuse_ir::eval::eval_graph(&run.before, &inputs).unwrap(), after, "{k}");
            }
        }
    }

    #[test]
    fn an_eye_far_beyond_the_matrix_is_blind() {
        for k in [i64::MIN, i64::MAX, -3] {
            let run = run(&format!("graph g(%x: i32[3, 4]) -> (%y) {{ %y = eye_like(%x) dtype=f32 k={k} }}"));
            assert_eq!(run.equal_within(0.0, 1).rewrites, 1);
        }
    }

    #[test]
    fn fires_on_an_eye() {
        let run = run("graph g(%x: i32[3, 4]) -> (%y) { %y = eye_like(%x) dtype=f32 k=-1 }");
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: i32[3, 4]) -> (%y) {
          %y.lower_triangle = constant() value=i64[3] {0, 1, 2}
          %y.1 = unsqueeze(%y.lower_triangle) axes=[1] : i64[3, 1]
          %y.lower_triangle.2 = constant() value=i64[] {-1}
          %y.2 = add(%y.1, %y.lower_triangle.2) : i64[3, 1]
          %y.lower_triangle.1 = constant() value=i64[4] {0, 1, 2, 3}
          %y.3 = equal(%y.2, %y.lower_triangle.1) : bool[3, 4]
          %y = cast(%y.3) to=f32 saturate=true : f32[3, 4]
        }
        ");
    }

    #[test]
    fn fires_on_sizes_of_run_time() {
        let run = run("graph g(%x: f32[b, n, m]) -> (%y) { %y = trilu(%x) upper=true }");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[b, n, m]) -> (%y) {
          %y.lower_triangle = constant() value=i64[] {0}
          %y.1 = shape(%x) start=1 end=2 : i64[1]
          %y.2 = squeeze(%y.1) axes=[0] : i64[]
          %y.lower_triangle.1 = constant() value=i64[] {1}
          %y.3 = range(%y.lower_triangle, %y.2, %y.lower_triangle.1) : i64[n]
          %y.7 = unsqueeze(%y.3) axes=[1] : i64[n, 1]
          %y.lower_triangle.2 = constant() value=i64[] {0}
          %y.4 = shape(%x) start=2 end=3 : i64[1]
          %y.5 = squeeze(%y.4) axes=[0] : i64[]
          %y.lower_triangle.3 = constant() value=i64[] {1}
          %y.6 = range(%y.lower_triangle.2, %y.5, %y.lower_triangle.3) : i64[m]
          %y.8 = less_or_equal(%y.7, %y.6) : bool[n, m]
          %y.lower_triangle.4 = constant() value=f32[] {0.0}
          %y = where(%y.8, %x, %y.lower_triangle.4) : f32[b, n, m]
        }
        ");
        let run = run_rule(LowerTriangle, "graph g(%x: f32[n, 3]) -> (%y) { %y = eye_like(%x) k=1 }");
        assert_eq!(run.equal_within(0.0, 2).rewrites, 1);
    }

    #[test]
    fn brings_in_no_large_constants() {
        let run = run("graph g(%x: i8[1, 40000000]) -> (%y) { %y = trilu(%x) upper=true }");
        assert_eq!(run.rewrites, 1);
        let sizes = run.after.live().into_iter().filter_map(|id| Some(run.after.constant(id.into())?.numel()));
        assert!(sizes.max().unwrap() <= 1);
    }
}
