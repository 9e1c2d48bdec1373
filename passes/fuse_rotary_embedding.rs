//! Finds rotary embeddings of the two halves of a head.
//!
//! ```text
//! %1 = mul(%x, %cos) : f32[b, h, s, e]
//! %2 = slice(%x) axes=[3] starts=[e/2] ends=[e] steps=[1]
//! %3 = neg(%2)
//! %4 = slice(%x) axes=[3] starts=[0] ends=[e/2] steps=[1]
//! %5 = concat(%3, %4) axis=3
//! %6 = mul(%5, %sin)
//! %y = add(%1, %6)
//! ```
//! becomes
//! ```text
//! %1 = reshape(slice(%cos)) : f32[1, s, e/2]
//! %2 = reshape(slice(%sin)) : f32[1, s, e/2]
//! %y = rotary_embedding(%x, %1, %2) dim=e
//! ```
//! (Su et al., "RoFormer: Enhanced Transformer with Rotary Position Embedding", 2021; ONNX `RotaryEmbedding`.)
//!
//! Fires with the operands in any order, with the halves from a Split too, and with tables that are constants or are
//! computed from angles written twice in a row.
//!
//! Refuses: "the halves of the cosines or sines are not known to be equal"; "the tables are not of one head"; and a part of
//! the formula with another reader. Another number of dimensions is no match.
//!
//! Order: before `fuse_attention`, which takes the scale of what is rotated.
//!
//! Numerics: the same formula.

use trt_fuse_ir::op::{BinaryOp, Reshape, RotaryEmbedding, Slice, UnaryOp};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, Shape, ValueRef};

use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseRotaryEmbedding;

impl Rule for FuseRotaryEmbedding {
    fn name(&self) -> &'static str {
        "fuse_rotary_embedding"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let rotation = rotation(graph, root).ok_or(Miss::NoMatch)?;
        let size = dims(graph, rotation.x).and_then(|dims| dims.get(3)?.value()).filter(|size| *size > 0);
        let size = size.filter(|_| graph.dtype(rotation.x).is_float()).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let mut tables = Vec::new();
        for table in [rotation.cos, rotation.sin] {
            if !has_equal_halves(graph, table, size, DEEPEST) {
                let reason = "the halves of the cosines or sines are not known to be equal";
                return Err(Miss::Blocked { reason, at: table.node });
            }
            let reason = "the tables are not of one head";
            let shape = table_shape(graph, table, rotation.x, size).ok_or(Miss::Blocked { reason, at: table.node })?;
            tables.push(Some(half(graph, &mut patch, table, shape, size).ok_or(Miss::NoMatch)?));
        }
        let op = RotaryEmbedding { interleaved: false, dim: size };
        let y = patch.add(op, &[Some(rotation.x), tables[0], tables[1]]);
        patch.replace(root.into(), y).absorb([root]).absorb(rotation.nodes).inherit(rotation.split);
        Ok(patch)
    }
}

/// `x * cos + turned(x) * sin`.
struct Rotation {
    x: ValueRef,
    cos: ValueRef,
    sin: ValueRef,
    nodes: Vec<NodeId>,
    /// A Split of the halves, which others may read.
    split: Option<NodeId>,
}

fn dims(graph: &Graph, value: ValueRef) -> Option<&[Dim]> {
    Some(graph.info(value)?.shape.as_ref()?.as_slice())
}

fn operands(graph: &Graph, id: NodeId, op: BinaryOp) -> Option<[(ValueRef, ValueRef); 2]> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    (graph.op(id)? == &Op::Binary(op)).then_some([(a, b), (b, a)])
}

fn rotation(graph: &Graph, root: NodeId) -> Option<Rotation> {
    for (straight, turned) in operands(graph, root, BinaryOp::Add)? {
        for (second, sin) in operands(graph, turned.node, BinaryOp::Mul)? {
            let Some(turn) = turn(graph, second) else { continue };
            for (x, cos) in operands(graph, straight.node, BinaryOp::Mul)? {
                if x == turn.x && dims(graph, root.into())? == dims(graph, x)? {
                    let nodes = [vec![straight.node, turned.node, second.node], turn.nodes].concat();
                    return Some(Rotation { x, cos, sin, nodes, split: turn.split });
                }
            }
        }
    }
    None
}

/// `concat(-second half, first half)` of a value.
struct Turn {
    x: ValueRef,
    nodes: Vec<NodeId>,
    split: Option<NodeId>,
}

fn turn(graph: &Graph, value: ValueRef) -> Option<Turn> {
    let Op::Concat(op) = graph.op(value.node)? else { return None };
    let rank = dims(graph, value)?.len();
    let [Some(negative), Some(first)] = *graph.node_inputs(value.node) else { return None };
    if rank != 4 || !matches!(op.axis, 3 | -1) || graph.op(negative.node)? != &Op::Unary(UnaryOp::Neg) {
        return None;
    }
    let second = graph.input(negative.node, 0)?;
    if let (Op::Split(split), true) = (graph.op(second.node)?, first.node == second.node) {
        let x = graph.input(second.node, 0)?;
        let is_halves = (first.slot, second.slot) == (0, 1) && dims(graph, first)? == dims(graph, second)?;
        let fits = is_halves && matches!(split.axis, 3 | -1) && graph.node(second.node)?.outputs.len() == 2;
        return fits.then_some(Turn { x, nodes: vec![negative.node], split: Some(second.node) });
    }
    let x = graph.input(first.node, 0).filter(|x| graph.input(second.node, 0) == Some(*x))?;
    let size = dims(graph, x)?.get(3)?.value()?;
    let cuts = [(first, 0, size / 2), (second, size / 2, size)];
    let fits = size % 2 == 0 && cuts.iter().all(|(value, start, end)| cuts_last(graph, *value, *start, *end));
    fits.then_some(Turn { x, nodes: vec![negative.node, first.node, second.node], split: None })
}

/// Whether a value is a slice of only its last axis, which is axis 3.
fn cuts_last(graph: &Graph, value: ValueRef, start: i64, end: i64) -> bool {
    let Some(Op::Slice(op)) = graph.op(value.node) else { return false };
    let bound = |bound: &Option<Shape>| matches!(bound.as_deref(), Some([bound]) if bound.value().is_some());
    let is =
        |bound: &Option<Shape>, wanted: i64| bound.as_deref().is_some_and(|bound| bound.iter().all(|b| b.is(wanted)));
    op.axes.as_deref() == Some(&[3])
        && op.steps.as_deref() == Some(&[1])
        && bound(&op.starts)
        && bound(&op.ends)
        && is(&op.starts, start)
        && is(&op.ends, end)
}

/// Operators that are looked through for angles written twice.
const DEEPEST: usize = 8;

/// Whether the two halves of a value's last axis hold the same numbers.
fn has_equal_halves(graph: &Graph, value: ValueRef, size: i64, left: usize) -> bool {
    let Some(dims) = dims(graph, value) else { return false };
    if left == 0 || !dims.last().is_some_and(|last| last.is(size)) {
        return false;
    }
    if let Some(constant) = graph.constant(value) {
        let (Some(numbers), Ok(size)) = (constant.to_f64s(), usize::try_from(size)) else { return false };
        return numbers.chunks(size).all(|row| row.get(..size / 2) == row.get(size / 2..));
    }
    let input = |slot| graph.input(value.node, slot);
    let Some(x) = input(0) else { return false };
    let within = |x| has_equal_halves(graph, x, size, left - 1);
    match graph.op(value.node) {
        Some(Op::Concat(op)) => {
            let parts = graph.node_inputs(value.node);
            let is_last = op.axis == -1 || usize::try_from(op.axis) == Ok(dims.len() - 1);
            is_last && parts.len() == 2 && parts.first() == parts.get(1)
        }
        Some(Op::Unary(_) | Op::Cast(_) | Op::Reshape(_) | Op::Unsqueeze(_)) => within(x),
        Some(Op::Binary(_)) => [input(0), input(1)].into_iter().flatten().all(|x| {
            let is_uniform = graph.constant(x).is_some_and(|constant| constant.numel() == 1);
            is_uniform || within(x)
        }),
        // Rows of a table.
        Some(Op::Gather(op)) => {
            let rank = graph.info(x).and_then(|info| info.rank()).unwrap_or(0);
            op.axis >= 0 && (op.axis as usize) + 1 < rank && within(x)
        }
        _ => false,
    }
}

/// The shape of half a table, `[1 or b, s, e / 2]`, if the table is one for all heads of x.
fn table_shape(graph: &Graph, table: ValueRef, x: ValueRef, size: i64) -> Option<Shape> {
    let ([batch, _, length, _], found) = (dims(graph, x)?, dims(graph, table)?) else { return None };
    let [lead @ .., rows, _] = found else { return None };
    let of_batch = match lead {
        [] => Dim::fixed(1),
        [heads] if heads.is(1) => Dim::fixed(1),
        [of_batch, heads] if heads.is(1) && (of_batch.is(1) || of_batch == batch) => of_batch.clone(),
        _ => return None,
    };
    (rows == length).then(|| [of_batch, rows.clone(), Dim::fixed(size / 2)].into_iter().collect())
}

fn half(graph: &Graph, patch: &mut Patch, table: ValueRef, shape: Shape, size: i64) -> Option<ValueRef> {
    let last = i64::try_from(dims(graph, table)?.len()).ok()? - 1;
    let slice = Slice {
        axes: Some([last].into_iter().collect()),
        starts: Some([Dim::fixed(0)].into_iter().collect()),
        ends: Some([Dim::fixed(size / 2)].into_iter().collect()),
        steps: Some([1].into_iter().collect()),
    };
    let first = patch.add(slice, &[Some(table)]);
    Some(patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[Some(first)]))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    const TURNED: &str = "%2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] %3 = neg(%2)
        %4 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %5 = concat(%3, %4) axis=3";

    /// Two positions, heads of four numbers, and tables of two angles written twice.
    fn run(body: &str, outputs: &str) -> Run {
        let tables = "%cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
            %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
            %other = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.25, 0.75, -0.75, 0.75, -0.75}";
        let text = format!(
            "graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> ({outputs}) {{ {tables} {body} }}"
        );
        run_rule(FuseRotaryEmbedding, &text)
    }

    #[test]
    fn fires_on_constant_tables() {
        let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
          %y.1 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
          %y.2 = reshape(%y.1) shape=[1, 2, 2] : f32[1, 2, 2]
          %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
          %y.3 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
          %y.4 = reshape(%y.3) shape=[1, 2, 2] : f32[1, 2, 2]
          %y = rotary_embedding(%x, %y.2, %y.4) dim=4 : f32[n, 3, 2, 4]
        }
        ");
    }

    #[test]
    fn fires_in_any_order_and_on_a_split() {
        let split = "%4, %2 = split(%x) axis=3 sizes=[2, 2] %3 = neg(%2) %5 = concat(%3, %4) axis=-1";
        for turned in [TURNED, split] {
            let body = format!("%1 = mul(%cos, %x) {turned} %6 = mul(%sin, %5) %y = add(%6, %1)");
            assert_eq!(run(&body, "%y").equal_within(1e-6, 2).rewrites, 1, "{body}");
        }
    }

    #[test]
    fn fires_on_tables_of_angles_written_twice() {
        let tables = "%a = concat(%angles, %angles) axis=-1 %c = cos(%a) %s = sin(%a)
            %c4 = reshape(%c) shape=[n, 1, 2, 4] %s4 = reshape(%s) shape=[n, 1, 2, 4]";
        let run = run(&format!("{tables} %1 = mul(%x, %c4) {TURNED} %6 = mul(%5, %s4) %y = add(%1, %6)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %a = concat(%angles, %angles) axis=-1 : f32[n, 2, 4]
          %c = cos(%a) : f32[n, 2, 4]
          %c4 = reshape(%c) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
          %y.1 = slice(%c4) axes=[3] starts=[0] ends=[2] steps=[1] : f32[n, 1, 2, 2]
          %y.2 = reshape(%y.1) shape=[n, 2, 2] : f32[n, 2, 2]
          %s = sin(%a) : f32[n, 2, 4]
          %s4 = reshape(%s) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
          %y.3 = slice(%s4) axes=[3] starts=[0] ends=[2] steps=[1] : f32[n, 1, 2, 2]
          %y.4 = reshape(%y.3) shape=[n, 2, 2] : f32[n, 2, 2]
          %y = rotary_embedding(%x, %y.2, %y.4) dim=4 : f32[n, 3, 2, 4]
        }
        ");
    }

    #[test]
    fn refuses_halves_that_differ() {
        let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %other) %y = add(%1, %6)"), "%y");
        let reason = "the halves of the cosines or sines are not known to be equal";
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
    }

    #[test]
    fn refuses_tables_of_several_heads() {
        let tables = "%a = concat(%wide, %wide) axis=3 %c = cos(%a) %s = sin(%a)";
        let run = run(&format!("{tables} %1 = mul(%x, %c) {TURNED} %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["the tables are not of one head"]));
    }

    #[test]
    fn refuses_a_part_with_another_reader() {
        let run = run(&format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"), "%y, %5");
        assert_eq!((run.rewrites, run.reasons().len()), (0, 1));
    }

    #[test]
    fn leaves_look_alikes_alone() {
        for body in [
            // The first half negated, halves in their order, a difference, another value turned.
            "%1 = mul(%x, %cos) %2 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1]
                %4 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %3 = neg(%4) %5 = concat(%2, %3) axis=3
                %6 = mul(%5, %sin) %y = add(%1, %6)",
            "%1 = mul(%x, %cos) %2 = slice(%x) axes=[3] starts=[0] ends=[2] steps=[1] %3 = neg(%2)
                %4 = slice(%x) axes=[3] starts=[2] ends=[4] steps=[1] %5 = concat(%3, %4) axis=3
                %6 = mul(%5, %sin) %y = add(%1, %6)",
            &format!("%1 = mul(%x, %cos) {TURNED} %6 = mul(%5, %sin) %y = sub(%1, %6)"),
            &format!("%z = neg(%x) %1 = mul(%z, %cos) {TURNED} %6 = mul(%5, %sin) %y = add(%1, %6)"),
        ] {
            assert_eq!(run(body, "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn leaves_integers_and_heads_of_nothing_alone() {
        for (dtype, size, numbers) in [("i32", 2, "1, 1, 2, 2"), ("f32", 0, "")] {
            let (half, table) = (size / 2, format!("constant() value={dtype}[2, {size}] {{{numbers}}}"));
            let text = format!(
                "graph g(%x: {dtype}[n, 3, 2, {size}]) -> (%y) {{ %table = {table} %1 = mul(%x, %table)
                %4, %2 = split(%x) axis=3 sizes=[{half}, {half}] %3 = neg(%2) %5 = concat(%3, %4) axis=3
                %6 = mul(%5, %table) %y = add(%1, %6) }}"
            );
            assert_eq!(run_rule(FuseRotaryEmbedding, &text).rewrites, 0, "{text}");
        }
    }
}
