//! Takes quantization to the one form that TensorRT runs in integers: signed, around 0.
//!
//! ```text
//! %q = quantize(%x, 0.1, 128) to=u8 : u8[n]
//! %y = dequantize(%q, 0.1, 128) : f32[n]
//! ```
//! becomes
//! ```text
//! %q = quantize(%x, 0.1) to=i8 : i8[n]
//! %y = dequantize(%q, 0.1) : f32[n]
//! ```
//!
//! Fires on
//! - a `quantize` to u8 around 128 that `dequantize`s alone read: the same numbers, less 128;
//! - a `dequantize` of constants: of u8 around 128 they become i8 around 0; a channel whose scale is 0 gets the scale 1 and
//!   zeros; what has no such form (an i32 bias, other zero points, types below a byte) becomes floats;
//! - a `quantize` to a type or around a zero point that TensorRT has not, whose numbers leave the graph or are computed
//!   with, and a `dequantize` of such numbers that no `quantize` of the graph made: arithmetic;
//! - blocks that do not divide their axis: arithmetic.
//!
//! Leaves alone a pair of `quantize` and `dequantize` around another zero point: the integers of such a pair have no
//! symmetric form, and emission refuses it by name. A pair whose integers something else reads is left, too.
//!
//! Order: before the types are lowered.
//!
//! Numerics: bit-exact, but for quotients, within one unit in the last place.

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{BinaryOp, Cast, Dequantize, Expand, Quantize, UnaryOp};
use trt_fuse_ir::{DType, Dim, Graph, NodeId, Op, OpKind, Patch, Shape, Tensor, ValueRef};

use crate::fold_constants::evaluate_one;
use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerQuantization;

impl Rule for LowerQuantization {
    fn name(&self) -> &'static str {
        "lower_quantization"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Quantize, OpKind::Dequantize]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let is_native = |dtype: DType| {
            matches!(dtype, DType::I8 | DType::F8E4M3 | DType::I4 | DType::F4E2M1)
                && context.capabilities.dtypes.contains(&dtype)
        };
        let f = Formula::new(self.name(), graph, root);
        match graph.op(root) {
            // TensorRT knows whole blocks alone.
            Some(Op::Quantize(op)) if !has_whole_blocks(&f, op.axis, op.block_size)? => quantize(f, op),
            Some(Op::Dequantize(op)) if !has_whole_blocks(&f, op.axis, op.block_size)? => match f.constant_input(0) {
                Some(weights) => constant(f, op, weights, false),
                None => dequantize(f, op),
            },
            Some(Op::Quantize(op)) => {
                let readers = graph.consumers(root.into());
                let is_pair = |reader: NodeId| matches!(graph.op(reader), Some(Op::Dequantize(_)));
                let in_pairs = readers.iter().filter(|reader| is_pair(reader.node)).count();
                if in_pairs == readers.len() && in_pairs > 0 && !graph.is_output(root.into()) {
                    return signed_pair(graph, root, op);
                }
                if in_pairs > 0 || (is_native(op.to) && is_around_zero(graph, root)) {
                    return Err(Miss::NoMatch);
                }
                quantize(f, op)
            }
            Some(Op::Dequantize(op)) => {
                let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
                if matches!(graph.op(x.node), Some(Op::Quantize(_))) {
                    return Err(Miss::NoMatch);
                }
                let native = is_native(graph.dtype(x)) && is_around_zero(graph, root);
                match graph.constant(x) {
                    Some(weights) => constant(f, op, weights, native),
                    None if native => Err(Miss::NoMatch),
                    None => dequantize(f, op),
                }
            }
            _ => Err(Miss::NoMatch),
        }
    }
}

/// Whether the blocks, if there are any, divide the axis.
fn has_whole_blocks(f: &Formula<'_>, axis: i64, block: Option<i64>) -> Result<bool, Miss> {
    let Some(block) = block.filter(|block| *block > 0) else { return Ok(true) };
    let data = f.shape(0)?;
    let axis = resolve_axis(axis, data.len()).map_err(|_| Miss::NoMatch)?;
    Ok(data.get(axis).and_then(|size| size.modulo(&Dim::fixed(block))).is_some_and(|rest| rest.is(0)))
}

/// Whether the zero point is left out or 0.
fn is_around_zero(graph: &Graph, id: NodeId) -> bool {
    graph.input(id, 2).is_none_or(|zero| {
        graph
            .constant(zero)
            .is_some_and(|zero| zero.repeated().as_ref().unwrap_or(zero).bytes().iter().all(|b| *b == 0))
    })
}

/// Whether the zero point is 128 of u8, for every channel.
fn is_around_128(graph: &Graph, id: NodeId) -> bool {
    let zero = graph.input(id, 2).and_then(|zero| graph.constant(zero));
    zero.is_some_and(|zero| zero.dtype() == DType::U8 && zero.bytes().iter().all(|byte| *byte == 128))
}

/// u8 around 128 is i8 around 0.
fn signed_pair(graph: &Graph, root: NodeId, op: &Quantize) -> Result<Patch, Miss> {
    let readers = graph.consumers(root.into());
    if !is_around_128(graph, root) || !readers.iter().all(|reader| is_around_128(graph, reader.node)) {
        return Err(Miss::NoMatch);
    }
    let (x, scale) = (graph.input(root, 0), graph.input(root, 1));
    let mut patch = Patch::new("lower_quantization", root);
    let quantized = patch.add(Quantize { to: DType::I8, ..op.clone() }, &[x, scale]);
    for reader in &readers {
        let Some(Op::Dequantize(op)) = graph.op(reader.node) else { return Err(Miss::NoMatch) };
        let y = patch.add(op.clone(), &[Some(quantized), graph.input(reader.node, 1)]);
        patch.replace(reader.node.into(), y).absorb([reader.node]);
    }
    patch.absorb([root]);
    Ok(patch)
}

/// Weights: kept as integers where they have a symmetric form.
fn constant(mut f: Formula<'_>, op: &Dequantize, weights: &Tensor, native: bool) -> Result<Patch, Miss> {
    let scale_value = f.input(1)?;
    let scale = f.constant_input(1).ok_or(Miss::NoMatch)?;
    let scales = scale.to_f64s().ok_or(Miss::NoMatch)?;
    let has_dead = scales.contains(&0.0);
    if native && !has_dead {
        return Err(Miss::NoMatch);
    }
    let integers = match weights.dtype() {
        DType::I8 if native => Some(weights.to_i64s().ok_or(Miss::NoMatch)?),
        DType::U8 if is_around_128(f.graph(), f.root()) => {
            Some(weights.to_i64s().ok_or(Miss::NoMatch)?.into_iter().map(|number| number - 128).collect())
        }
        _ => None,
    };
    if let (Some(mut integers), None) = (integers, op.block_size) {
        let mut fixed_scale = scale_value;
        if has_dead {
            let inner = inner(op, weights, scales.len())?;
            for (at, integer) in integers.iter_mut().enumerate() {
                let of = (at / inner) % scales.len();
                if scales.get(of) == Some(&0.0) {
                    *integer = 0;
                }
            }
            let positive = scales.iter().map(|scale| if *scale == 0.0 { 1.0 } else { *scale as f32 }).collect();
            let positive = Tensor::from_vec(scale.dims(), positive).map_err(|_| Miss::NoMatch)?;
            let cast = Cast::new(scale.dtype()).into();
            fixed_scale = f.constant(evaluate_one(&cast, &[Some(&positive)]).ok_or(Miss::NoMatch)?);
        }
        let bytes: Vec<i8> = integers.into_iter().map(|integer| integer as i8).collect();
        let weights = f.constant(Tensor::from_vec(weights.dims(), bytes).map_err(|_| Miss::NoMatch)?);
        let y = f.op(op.clone(), &[weights, fixed_scale]);
        return Ok(f.result(y));
    }
    let zero = f.constant_input(2);
    if zero.is_none() && f.input(2).is_ok() {
        return Err(Miss::NoMatch);
    }
    let floats = evaluate_one(&op.clone().into(), &[Some(weights), Some(scale), zero]).ok_or(Miss::NoMatch)?;
    let y = f.constant(floats);
    Ok(f.result(y))
}

/// Elements of the weights that lie between one step along the axis and the next.
fn inner(op: &Dequantize, weights: &Tensor, scales: usize) -> Result<usize, Miss> {
    if scales == 1 {
        return Ok(weights.numel().max(1));
    }
    let axis = resolve_axis(op.axis, weights.rank()).map_err(|_| Miss::NoMatch)?;
    Ok(weights.dims().iter().skip(axis + 1).product::<usize>().max(1))
}

/// A scale or zero point in the shape that broadcasts to the data.
fn spread(f: &mut Formula<'_>, slot: usize, axis: i64, block: Option<i64>) -> Result<ValueRef, Miss> {
    let (value, own) = (f.input(slot)?, f.shape(slot)?.clone());
    let data = f.shape(0)?.clone();
    let at = resolve_axis(axis, data.len());
    match (own.len(), block) {
        (0, _) => Ok(value),
        (1, None) if own.first().is_some_and(|dim| dim.is(1)) => Ok(f.reshape(value, Shape::new())),
        (1, None) => {
            let mut shape = Shape::from_elem(Dim::fixed(1), data.len());
            *shape.get_mut(at.map_err(|_| Miss::NoMatch)?).ok_or(Miss::NoMatch)? = own[0].clone();
            Ok(f.reshape(value, shape))
        }
        (rank, Some(block)) if rank == data.len() => {
            let at = at.map_err(|_| Miss::NoMatch)?;
            // Each scale repeated along the axis; the last block may be shorter.
            let column = f.unsqueeze(value, &[at as i64 + 1]);
            let mut repeated = own.clone();
            repeated.insert(at + 1, Dim::fixed(block));
            let mut whole = data.clone();
            let (count, size) = (own[at].clone(), data[at].clone());
            whole[at] = &count * &Dim::fixed(block);
            let is_whole = whole[at] == size;
            let repeated = f.op(Expand { shape: Some(repeated) }, &[column]);
            let repeated = f.reshape(repeated, whole);
            Ok(if is_whole { repeated } else { f.slice(repeated, at as i64, (0, size), 1) })
        }
        _ => Err(Miss::NoMatch),
    }
}

/// `(x - zero) * scale`
fn dequantize(mut f: Formula<'_>, op: &Dequantize) -> Result<Patch, Miss> {
    let (x, dtype) = (f.input(0)?, f.info(1)?.dtype);
    // Differences of 8- and 16-bit integers are exact in f32.
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let mut y = f.cast(x, wide);
    if f.input(2).is_ok() {
        let zero = spread(&mut f, 2, op.axis, op.block_size)?;
        let zero = f.cast(zero, wide);
        y = f.binary(BinaryOp::Sub, y, zero);
    }
    let scale = spread(&mut f, 1, op.axis, op.block_size)?;
    let scale = if dtype == wide { scale } else { f.cast(scale, wide) };
    y = f.binary(BinaryOp::Mul, y, scale);
    if dtype != wide {
        y = f.cast(y, dtype);
    }
    Ok(f.result(y))
}

/// `clip(round(x / scale) + zero)`
fn quantize(mut f: Formula<'_>, op: &Quantize) -> Result<Patch, Miss> {
    let (low, high) = match op.to {
        dtype if !dtype.is_integer() || dtype.bits() > 16 => return Err(Miss::NoMatch),
        dtype if dtype.is_signed_integer() => (-(1_i64 << (dtype.bits() - 1)), (1_i64 << (dtype.bits() - 1)) - 1),
        dtype => (0, (1_i64 << dtype.bits()) - 1),
    };
    let (x, dtype) = (f.input(0)?, f.info(0)?.dtype);
    let wide = if dtype == DType::F64 { DType::F64 } else { DType::F32 };
    let x = if dtype == wide { x } else { f.cast(x, wide) };
    let scale = spread(&mut f, 1, op.axis, op.block_size)?;
    let scale = if f.info(1)?.dtype == wide { scale } else { f.cast(scale, wide) };
    let quotient = f.binary(BinaryOp::Div, x, scale);
    let mut y = f.unary(UnaryOp::Round, quotient);
    if f.input(2).is_ok() {
        let zero = spread(&mut f, 2, op.axis, op.block_size)?;
        let zero = f.cast(zero, wide);
        y = f.binary(BinaryOp::Add, y, zero);
    }
    let y = f.with_number(BinaryOp::Max, y, wide, low as f64)?;
    let y = f.with_number(BinaryOp::Min, y, wide, high as f64)?;
    let y = f.cast(y, DType::I32);
    let y = f.op(Cast::new(op.to), &[y]);
    Ok(f.result(y))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    fn run(text: &str) -> Run {
        run_rule(LowerQuantization, text)
    }

    #[test]
    fn fires_on_a_pair_around_128() {
        let run = run("graph g(%x: f32[n, 4]) -> (%y, %z) {
            %s = constant() value=f32[] {0.05} %o = constant() value=u8[] {128}
            %q = quantize(%x, %s, %o) axis=1 to=u8 saturate=true
            %y = dequantize(%q, %s, %o) axis=1 %z = dequantize(%q, %s, %o) axis=1 }");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 4]) -> (%y, %z) {
          %s = constant() value=f32[] {0.05}
          %q.1 = quantize(%x, %s) axis=1 to=i8 saturate=true : i8[n, 4]
          %y = dequantize(%q.1, %s) axis=1 : f32[n, 4]
          %z = dequantize(%q.1, %s) axis=1 : f32[n, 4]
        }
        ");
    }

    #[test]
    fn fires_on_weights_around_128() {
        let run = run("graph g(%x: f32[n, 2]) -> (%y) {
            %w = constant() value=u8[2] {128, 130} %s = constant() value=f32[] {0.5} %o = constant() value=u8[] {128}
            %d = dequantize(%w, %s, %o) axis=0 %y = add(%x, %d) }");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2]) -> (%y) {
          %d.lower_quantization = constant() value=i8[2] {0, 2}
          %s = constant() value=f32[] {0.5}
          %d = dequantize(%d.lower_quantization, %s) axis=0 : f32[2]
          %y = add(%x, %d) : f32[n, 2]
        }
        ");
    }

    #[test]
    fn dead_channels_get_a_scale() {
        let run = run("graph g(%x: f32[n, 2]) -> (%y) {
            %w = constant() value=i8[2, 2] {1, 2, 3, 4} %s = constant() value=f32[2] {0.5, 0.0}
            %d = dequantize(%w, %s) axis=1 %y = matmul(%x, %d) }");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2]) -> (%y) {
          %d.lower_quantization.1 = constant() value=i8[2, 2] {1, 0, 3, 0}
          %d.lower_quantization = constant() value=f32[2] {0.5, 1.0}
          %d = dequantize(%d.lower_quantization.1, %d.lower_quantization) axis=1 : f32[2, 2]
          %y = matmul(%x, %d) : f32[n, 2]
        }
        ");
    }

    #[test]
    fn a_bias_becomes_floats() {
        let run = run("graph g(%x: f32[n, 2]) -> (%y) {
            %b = constant() value=i32[2] {1000, -3} %s = constant() value=f32[2] {0.5, 0.25}
            %d = dequantize(%b, %s) axis=0 %y = add(%x, %d) }");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%x: f32[n, 2]) -> (%y) {
          %d = constant() value=f32[2] {500.0, -0.75}
          %y = add(%x, %d) : f32[n, 2]
        }
        ");
    }

    /// The byte of -128 is that of 128.
    #[test]
    fn weights_around_other_zero_points_become_floats() {
        for (dtype, zero, numbers) in [("i8", 5, "-2.0, -1.5"), ("u8", 37, "-18.0, -17.5"), ("i8", -128, "64.5, 65.0")]
        {
            let text = format!(
                "graph g(%x: f32[n, 2]) -> (%y) {{
                %w = constant() value={dtype}[2] {{1, 2}} %s = constant() value=f32[] {{0.5}}
                %o = constant() value={dtype}[] {{{zero}}} %d = dequantize(%w, %s, %o) axis=0 %y = add(%x, %d) }}"
            );
            let run = run(&text);
            let after = run.equal_within(0.0, 3).after.to_string();
            assert!(after.contains(&format!("%d = constant() value=f32[2] {{{numbers}}}")), "{after}");
        }
    }

    #[test]
    fn blocks_that_do_not_divide_the_axis_are_arithmetic() {
        let pair = "graph g(%x: f32[7, 2]) -> (%y) {
            %s = constant() value=f32[3, 2] {0.5, 0.25, 0.125, 1, 0.01, 0.02}
            %q = quantize(%x, %s) axis=0 block_size=3 to=i8 saturate=true
            %y = dequantize(%q, %s) axis=0 block_size=3 }";
        assert_eq!(run(pair).equal_within(1e-6, 1).rewrites, 2);
        let weights = "graph g(%x: f32[5]) -> (%y) {
            %w = constant() value=i8[5] {1, -2, 3, -4, 5} %s = constant() value=f32[3] {0.5, 2, 10}
            %d = dequantize(%w, %s) axis=0 block_size=2 %y = add(%x, %d) }";
        let run = run(weights);
        insta::assert_snapshot!(run.equal_within(0.0, 1).after, @"
        graph g(%x: f32[5]) -> (%y) {
          %d = constant() value=f32[5] {0.5, -1.0, 6.0, -8.0, 50.0}
          %y = add(%x, %d) : f32[5]
        }
        ");
    }

    #[test]
    fn fires_at_the_edges_of_a_graph() {
        for text in [
            "graph g(%x: u8[2, 3], %s: f32[3], %o: u8[3]) -> (%y) { %y = dequantize(%x, %s, %o) axis=1 }",
            "graph g(%x: u8[4, 3], %s: f32[2, 3]) -> (%y) { %y = dequantize(%x, %s) axis=0 block_size=2 }",
            "graph g(%x: i8[7, 2], %s: f32[3, 2]) -> (%y) { %y = dequantize(%x, %s) axis=0 block_size=3 }",
            "graph g(%x: i8[2, 7], %s: f32[2, 2], %o: i8[2, 2]) -> (%y) {
                %y = dequantize(%x, %s, %o) axis=1 block_size=4 }",
            "graph g(%x: u8[n]) -> (%y) { %s = constant() value=f16[] {0.5} %y = dequantize(%x, %s) axis=0 }",
            "graph g(%x: f32[2, 3]) -> (%y) { %s = constant() value=f32[3] {0.5, 0.01, 2.0}
                %o = constant() value=u8[3] {0, 7, 255} %y = quantize(%x, %s, %o) axis=1 to=u8 saturate=true }",
            "graph g(%x: f32[n]) -> (%y) { %s = constant() value=f32[] {0.001} %o = constant() value=i16[] {-5}
                %y = quantize(%x, %s, %o) axis=0 to=i16 saturate=true }",
            // A type that TensorRT has not, and zero points other than 0.
            "graph g(%x: f32[n]) -> (%y) { %s = constant() value=f32[] {0.01} %y = quantize(%x, %s) axis=0 to=u8 saturate=true }",
            "graph g(%x: f32[n]) -> (%y) { %s = constant() value=f32[] {0.01} %o = constant() value=i8[] {5}
                %y = quantize(%x, %s, %o) axis=0 to=i8 saturate=true }",
            "graph g(%x: i8[n]) -> (%y) { %s = constant() value=f32[] {0.01} %o = constant() value=i8[] {5}
                %y = dequantize(%x, %s, %o) axis=0 }",
        ] {
            let run = run(text);
            assert_eq!(run.equal_within(1e-6, 3).rewrites, 1, "{text}");
        }
    }

    #[test]
    fn leaves_symmetric_pairs_and_others_without_such_a_form_alone() {
        for zero in ["i8[] {0}", "u8[] {37}", "i8[] {5}"] {
            let to = &zero[..2];
            let text = format!(
                "graph g(%x: f32[n]) -> (%y) {{
                %s = constant() value=f32[] {{0.05}} %o = constant() value={zero}
                %q = quantize(%x, %s, %o) axis=0 to={to} saturate=true %y = dequantize(%q, %s, %o) axis=0 }}"
            );
            assert_eq!(run(&text).rewrites, 0, "{zero}");
        }
        // Halves of pairs around 128, and a byte that is -128.
        for (to, before, after) in [("u8", 128, 37), ("u8", 37, 128), ("i8", -128, -128)] {
            let text = format!(
                "graph g(%x: f32[n]) -> (%y) {{ %s = constant() value=f32[] {{0.05}}
                %o = constant() value={to}[] {{{before}}} %p = constant() value={to}[] {{{after}}}
                %q = quantize(%x, %s, %o) axis=0 to={to} saturate=true %y = dequantize(%q, %s, %p) axis=0 }}"
            );
            assert_eq!(run(&text).rewrites, 0, "{text}");
        }
        let text = "graph g(%x: f32[n]) -> (%y) {
            %s = constant() value=f32[] {0.05} %y = quantize(%x, %s) axis=0 to=i8 saturate=true }";
        assert_eq!(run(text).rewrites, 0);
        let text = "graph g(%x: f32[n]) -> (%y, %z) {
            %s = constant() value=f32[] {0.05} %o = constant() value=u8[] {128}
            %q = quantize(%x, %s, %o) axis=0 to=u8 saturate=true %y = dequantize(%q, %s, %o) axis=0 %z = cast(%q) to=f32 }";
        assert_eq!(run(text).rewrites, 0);
        let text = "graph g(%x: f32[n]) -> (%y, %q) {
            %s = constant() value=f32[] {0.05} %o = constant() value=u8[] {128}
            %q = quantize(%x, %s, %o) axis=0 to=u8 saturate=true %y = dequantize(%q, %s, %o) axis=0 }";
        assert_eq!(run(text).rewrites, 0);
        let text = "graph g(%x: i8[n]) -> (%y) { %s = constant() value=f32[] {0.05} %y = dequantize(%x, %s) axis=0 }";
        assert_eq!(run(text).rewrites, 0);
    }
}
