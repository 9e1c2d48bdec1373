//! Finds rotary embeddings.
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
//! Fires with the operands in any order; on halves and on pairs of neighbours, cut out by slices, by a Split, or of a
//! reshape into pairs; on the form above and on `concat(x1 * cos - x2 * sin, x1 * sin + x2 * cos)`, the first with tables
//! that are constants or computed from angles written twice, the second with tables of each angle once; on a part of a
//! head with the rest of it put behind; and on data `[b, s, h, e]`, between two transposes.
//!
//! Refuses: "the halves of the cosines or sines are not known to be equal"; "the pairs of the cosines or sines are not
//! known to be equal"; "the tables are not of one head"; and a part of the formula with another reader. Another number of
//! dimensions is no match.
//!
//! Order: before `fuse_attention`, which takes the scale of what is rotated.
//!
//! Numerics: the same formula.

mod cut;
mod table;

use trt_fuse_ir::op::{BinaryOp, Reshape, RotaryEmbedding, Slice, Transpose, UnaryOp};
use trt_fuse_ir::{Dim, Graph, NodeId, Op, OpKind, Patch, ValueRef};

use self::cut::Cut;
use self::table::{Angles, Order, Table};
use crate::pass::{Miss, Rule, RuleContext};

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct FuseRotaryEmbedding;

impl Rule for FuseRotaryEmbedding {
    fn name(&self) -> &'static str {
        "fuse_rotary_embedding"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary, OpKind::Concat, OpKind::Reshape]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let rotation = Rotation::at(graph, root).ok_or(Miss::NoMatch)?;
        if !graph.dtype(root.into()).is_float() || rotation.part.size < 2 {
            return Err(Miss::NoMatch);
        }
        let data = dims(graph, root.into()).ok_or(Miss::NoMatch)?;
        let tables = [rotation.cos, rotation.sin].map(|value| Table {
            value,
            angles: rotation.angles,
            size: rotation.part.size,
        });
        for table in tables {
            let reason = if rotation.part.interleaved {
                "the pairs of the cosines or sines are not known to be equal"
            } else {
                "the halves of the cosines or sines are not known to be equal"
            };
            if !table.holds(graph) {
                return Err(Miss::Blocked { reason, at: table.value.node });
            }
        }
        let leads = |order| {
            let [cos, sin] = tables.map(|table| table.lead(graph, data, order));
            Some((order, [cos?, sin?]))
        };
        let blocked = Miss::Blocked { reason: "the tables are not of one head", at: rotation.cos.node };
        let (order, leads) = leads(Order::HeadsFirst).or_else(|| leads(Order::PositionsFirst)).ok_or(blocked)?;
        let mut patch = Patch::new(self.name(), root);
        let mut inputs = vec![Some(rotation.data(graph, &mut patch).ok_or(Miss::NoMatch)?)];
        for (table, lead) in tables.into_iter().zip(leads) {
            inputs.push(Some(table.add(graph, &mut patch, lead).ok_or(Miss::NoMatch)?));
        }
        let swap = |patch: &mut Patch, x| patch.add(Transpose { perm: [0, 2, 1, 3].into_iter().collect() }, &[x]);
        let op = RotaryEmbedding { interleaved: rotation.part.interleaved, dim: rotation.part.size };
        let y = match order {
            Order::HeadsFirst => patch.add(op, &inputs),
            Order::PositionsFirst => {
                inputs[0] = Some(swap(&mut patch, inputs[0]));
                let y = patch.add(op, &inputs);
                swap(&mut patch, Some(y))
            }
        };
        patch.replace(root.into(), y).absorb([root]).absorb(rotation.nodes);
        Ok(patch)
    }
}

/// The elements `start..start + size` of the heads of `x`, as two halves or as pairs.
struct Part {
    x: ValueRef,
    start: i64,
    size: i64,
    interleaved: bool,
}

/// A part, rotated.
struct Rotation {
    part: Part,
    cos: ValueRef,
    sin: ValueRef,
    angles: Angles,
    /// What is taken in besides the root.
    nodes: Vec<NodeId>,
    /// The rest of the head is behind the rotated part.
    has_rest: bool,
}

fn dims(graph: &Graph, value: ValueRef) -> Option<&[Dim]> {
    Some(graph.info(value)?.shape.as_ref()?.as_slice())
}

fn operands(graph: &Graph, id: NodeId, op: BinaryOp) -> Option<[(ValueRef, ValueRef); 2]> {
    let (a, b) = (graph.input(id, 0)?, graph.input(id, 1)?);
    (graph.op(id)? == &Op::Binary(op)).then_some([(a, b), (b, a)])
}

impl Rotation {
    fn at(graph: &Graph, root: NodeId) -> Option<Self> {
        let [lead @ .., _] = dims(graph, root.into())?.get(..4)? else { return None };
        let rotation = with_rest(graph, root)
            .or_else(|| of_turned(graph, root))
            .or_else(|| of_parts(graph, &Joined::at(graph, root)?))?;
        // Tables may be larger than the data.
        let keeps_shape = dims(graph, rotation.part.x)?.get(..3) == Some(lead);
        (keeps_shape && dims(graph, root.into())?.len() == 4).then_some(rotation)
    }

    /// What is rotated, whole heads of it with the rest.
    fn data(&self, graph: &Graph, patch: &mut Patch) -> Option<ValueRef> {
        let x = Some(self.part.x);
        let found = dims(graph, self.part.x)?;
        let [lead @ .., last] = found else { return None };
        if let [lead @ .., _] = lead
            && lead.len() == 3
        {
            let shape = lead.iter().cloned().chain([Dim::fixed(self.part.size)]).collect();
            let is_all = self.part.start == 0 && Dim::product(&found[3..]).is(self.part.size);
            return is_all.then(|| patch.add(Reshape { shape: Some(shape), allow_zero: false }, &[x]));
        }
        if self.has_rest || last.is(self.part.size) {
            return x;
        }
        let slice = Slice {
            axes: Some([3].into_iter().collect()),
            starts: Some([Dim::fixed(self.part.start)].into_iter().collect()),
            ends: Some([Dim::fixed(self.part.start.checked_add(self.part.size)?)].into_iter().collect()),
            steps: Some([1].into_iter().collect()),
        };
        Some(patch.add(slice, &[x]))
    }
}

/// `concat(rotated, rest)`, or `concat(first, second, rest)`.
fn with_rest(graph: &Graph, root: NodeId) -> Option<Rotation> {
    let Op::Concat(op) = graph.op(root)? else { return None };
    let inputs: Vec<ValueRef> = graph.node_inputs(root).into_iter().collect::<Option<_>>()?;
    let mut rotation = match (op.axis, inputs.as_slice()) {
        (3 | -1, [rotated, _]) => {
            let inner = of_turned(graph, rotated.node)
                .or_else(|| of_parts(graph, &Joined::at(graph, rotated.node)?))
                .filter(|_| rotated.slot == 0)?;
            Rotation { nodes: [inner.nodes, vec![rotated.node]].concat(), ..inner }
        }
        (3 | -1, [first, second, _]) => {
            of_parts(graph, &Joined { first: *first, second: *second, interleaved: false, nodes: Vec::new() })?
        }
        _ => return None,
    };
    let rest = Cut::of(graph, *inputs.last()?)?;
    let size = dims(graph, rest.x)?.get(3)?.value()?;
    let part = &rotation.part;
    let wanted = Cut { x: part.x, start: part.size, step: 1, count: size.checked_sub(part.size)? };
    let fits = part.start == 0 && rest == wanted && dims(graph, rest.x)?.len() == 4;
    rotation.has_rest = true;
    fits.then_some(rotation)
}

/// `x * cos + turned(x) * sin`.
fn of_turned(graph: &Graph, root: NodeId) -> Option<Rotation> {
    for (straight, turned) in operands(graph, root, BinaryOp::Add)? {
        let Some(products) = operands(graph, turned.node, BinaryOp::Mul) else { continue };
        for (second, sin) in products {
            let Some((part, turn)) = turned_part(graph, second.node) else { continue };
            for (x, cos) in operands(graph, straight.node, BinaryOp::Mul)? {
                let Some(whole) = Cut::of(graph, x) else { continue };
                let is_part = (whole.start, whole.step, whole.count) == (part.start, 1, part.size);
                if is_part && is_same(graph, whole.x, part.x) && dims(graph, root.into())? == dims(graph, x)? {
                    let nodes = [vec![straight.node, turned.node, second.node], turn.nodes].concat();
                    let angles = if part.interleaved { Angles::Pairs } else { Angles::Halves };
                    let part = Part { x: whole.x, ..part };
                    return Some(Rotation { part, cos, sin, angles, nodes, has_rest: false });
                }
            }
        }
    }
    None
}

/// Whether two values are one, or reshapes of one.
fn is_same(graph: &Graph, x: ValueRef, part: ValueRef) -> bool {
    let source = |value: ValueRef| match graph.op(value.node) {
        Some(Op::Reshape(_)) => graph.input(value.node, 0),
        _ => None,
    };
    x == part || source(part).is_some_and(|under| under == x || source(x) == Some(under))
}

/// `joined(-second, first)` of the parts of a value.
fn turned_part(graph: &Graph, id: NodeId) -> Option<(Part, Joined)> {
    let mut joined = Joined::at(graph, id)?;
    let (negative, first) = (joined.first, joined.second);
    if graph.op(negative.node)? != &Op::Unary(UnaryOp::Neg) {
        return None;
    }
    joined.nodes.push(negative.node);
    let (second, first) = (Cut::of(graph, graph.input(negative.node, 0)?)?, Cut::of(graph, first)?);
    let part = both(first, second, joined.interleaved)?;
    Some((part, joined))
}

/// `joined(x1 * cos - x2 * sin, x1 * sin + x2 * cos)`.
fn of_parts(graph: &Graph, joined: &Joined) -> Option<Rotation> {
    let difference = operands(graph, joined.first.node, BinaryOp::Sub)?[0];
    let sum = operands(graph, joined.second.node, BinaryOp::Add)?;
    let products = |(a, b): (ValueRef, ValueRef)| {
        Some([operands(graph, a.node, BinaryOp::Mul)?, operands(graph, b.node, BinaryOp::Mul)?])
    };
    let [minuend, subtrahend] = products(difference)?;
    for (x1, cos) in minuend {
        for (x2, sin) in subtrahend {
            let fits = sum
                .iter()
                .filter_map(|sum| products(*sum))
                .any(|[a, b]| a.contains(&(x1, sin)) && b.contains(&(x2, cos)));
            let parts = || both(Cut::of(graph, x1)?, Cut::of(graph, x2)?, joined.interleaved);
            if fits && let Some(part) = parts() {
                let (a, b) = difference;
                let nodes = [joined.first.node, joined.second.node, a.node, b.node, sum[0].0.node, sum[0].1.node];
                let nodes = [joined.nodes.as_slice(), &nodes].concat();
                return Some(Rotation { part, cos, sin, angles: Angles::Once, nodes, has_rest: false });
            }
        }
    }
    None
}

/// The part of a value whose halves, or whose pairs' elements, two cuts are.
fn both(first: Cut, second: Cut, interleaved: bool) -> Option<Part> {
    let (step, apart) = if interleaved { (2, 1) } else { (1, first.count) };
    let fits = first.x == second.x
        && (first.step, second.step) == (step, step)
        && first.count == second.count
        && second.start.checked_sub(first.start) == Some(apart);
    let (x, start, size) = (first.x, first.start, first.count.checked_mul(2)?);
    fits.then_some(Part { x, start, size, interleaved })
}

/// Two parts put together again, as halves or as pairs.
struct Joined {
    first: ValueRef,
    second: ValueRef,
    interleaved: bool,
    nodes: Vec<NodeId>,
}

impl Joined {
    fn at(graph: &Graph, id: NodeId) -> Option<Self> {
        let parts = |id: NodeId, axis: i64| match (graph.op(id)?, graph.node_inputs(id).as_slice()) {
            (Op::Concat(op), [Some(first), Some(second)]) if op.axis == axis || op.axis == -1 => {
                Some((*first, *second))
            }
            _ => None,
        };
        if let Some((first, second)) = parts(id, 3) {
            return (dims(graph, id.into())?.len() == 4).then_some(Self {
                first,
                second,
                interleaved: false,
                nodes: Vec::new(),
            });
        }
        let (Op::Reshape(_), pairs) = (graph.op(id)?, graph.input(id, 0)?) else { return None };
        let (first, second) = parts(pairs.node, 4)?;
        let ([lead @ .., count, two], [flat @ .., size]) = (dims(graph, pairs)?, dims(graph, id.into())?) else {
            return None;
        };
        let fits = two.is(2) && lead == flat && lead.len() == 3 && count.value()?.checked_mul(2) == size.value();
        let mut nodes = vec![pairs.node];
        let mut column = |value: ValueRef| {
            let Op::Reshape(_) = graph.op(value.node)? else { return None };
            let row = graph.input(value.node, 0)?;
            let is_row = dims(graph, value)?.strip_suffix(&[Dim::fixed(1)]) == dims(graph, row);
            is_row.then(|| {
                nodes.push(value.node);
                row
            })
        };
        let (first, second) = (column(first).unwrap_or(first), column(second).unwrap_or(second));
        fits.then_some(Self { first, second, interleaved: true, nodes })
    }
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

    const TABLE: &str = "%t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t) %s = sin(%t)
        %a, %b = split(%x) axis=3 sizes=[2, 2]";
    const PRODUCTS: &str = "%1 = mul(%a, %c) %2 = mul(%s, %b) %p = sub(%1, %2)";

    /// `joined(-second, first)` of pairs.
    const NEIGHBOURS: &str = "%2 = slice(%x) axes=[3] starts=[1] ends=[4] steps=[2] %3 = neg(%2)
        %4 = slice(%x) axes=[3] starts=[0] ends=[4] steps=[2] %3c = reshape(%3) shape=[n, 3, 2, 2, 1]
        %4c = reshape(%4) shape=[n, 3, 2, 2, 1] %5c = concat(%3c, %4c) axis=-1 %5 = reshape(%5c) shape=[n, 3, 2, 4]";

    const PAIRS: &str = "%ac = reshape(%angles) shape=[n, 2, 2, 1] %ae = expand(%ac) shape=[n, 2, 2, 2]
        %aa = reshape(%ae) shape=[n, 1, 2, 4] %c = cos(%aa) %s = sin(%aa)";

    #[test]
    fn fires_on_pairs_of_neighbours() {
        let run = run(&format!("{PAIRS} {NEIGHBOURS} %1 = mul(%x, %c) %6 = mul(%5, %s) %y = add(%1, %6)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %ac = reshape(%angles) shape=[n, 2, 2, 1] : f32[n, 2, 2, 1]
          %ae = expand(%ac) shape=[n, 2, 2, 2] : f32[n, 2, 2, 2]
          %aa = reshape(%ae) shape=[n, 1, 2, 4] : f32[n, 1, 2, 4]
          %c = cos(%aa) : f32[n, 1, 2, 4]
          %y.1 = slice(%c) axes=[3] starts=[0] ends=[4] steps=[2] : f32[n, 1, 2, 2]
          %y.2 = reshape(%y.1) shape=[n, 2, 2] : f32[n, 2, 2]
          %s = sin(%aa) : f32[n, 1, 2, 4]
          %y.3 = slice(%s) axes=[3] starts=[0] ends=[4] steps=[2] : f32[n, 1, 2, 2]
          %y.4 = reshape(%y.3) shape=[n, 2, 2] : f32[n, 2, 2]
          %y = rotary_embedding(%x, %y.2, %y.4) interleaved=true dim=4 : f32[n, 3, 2, 4]
        }
        ");
    }

    #[test]
    fn fires_on_products_of_the_parts() {
        let halves = "%a, %b = split(%x) axis=3 sizes=[2, 2]";
        let columns =
            "%xp = reshape(%x) shape=[n, 3, 2, 2, 2] %0 = constant() value=i64[] {0} %i = constant() value=i64[] {1}
            %a = gather(%xp, %0) axis=4 %b = gather(%xp, %i) axis=-1";
        let tables = "%t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t) %s = sin(%t)";
        let products = "%1 = mul(%a, %c) %2 = mul(%s, %b) %p = sub(%1, %2) %3 = mul(%a, %s) %4 = mul(%b, %c)
            %q = add(%3, %4)";
        let pairs = "%pc = reshape(%p) shape=[n, 3, 2, 2, 1] %qc = reshape(%q) shape=[n, 3, 2, 2, 1]
            %r = concat(%pc, %qc) axis=4 %y = reshape(%r) shape=[n, 3, 2, 4]";
        let joined = run(&format!("{tables} {halves} {products} %y = concat(%p, %q) axis=3"), "%y");
        insta::assert_snapshot!(joined.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %t = reshape(%angles) shape=[n, 1, 2, 2] : f32[n, 1, 2, 2]
          %c = cos(%t) : f32[n, 1, 2, 2]
          %y.1 = reshape(%c) shape=[n, 2, 2] : f32[n, 2, 2]
          %s = sin(%t) : f32[n, 1, 2, 2]
          %y.2 = reshape(%s) shape=[n, 2, 2] : f32[n, 2, 2]
          %y = rotary_embedding(%x, %y.1, %y.2) dim=4 : f32[n, 3, 2, 4]
        }
        ");
        let stacked = run(&format!("{tables} {columns} {products} {pairs}"), "%y");
        insta::assert_snapshot!(stacked.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %t = reshape(%angles) shape=[n, 1, 2, 2] : f32[n, 1, 2, 2]
          %c = cos(%t) : f32[n, 1, 2, 2]
          %y.1 = reshape(%c) shape=[n, 2, 2] : f32[n, 2, 2]
          %s = sin(%t) : f32[n, 1, 2, 2]
          %y.2 = reshape(%s) shape=[n, 2, 2] : f32[n, 2, 2]
          %y = rotary_embedding(%x, %y.1, %y.2) interleaved=true dim=4 : f32[n, 3, 2, 4]
        }
        ");
        // Pairs joined as halves, and halves as pairs.
        for body in [format!("{columns} {products} %y = concat(%p, %q) axis=3"), format!("{halves} {products} {pairs}")]
        {
            assert_eq!(run(&format!("{tables} {body}"), "%y").rewrites, 0, "{body}");
        }
    }

    #[test]
    fn fires_on_a_part_with_the_rest_behind() {
        let part = "%z = concat(%x, %wide) axis=3 %xr = slice(%z) axes=[3] starts=[0] ends=[4] steps=[1]
            %2 = slice(%z) axes=[3] starts=[2] ends=[4] steps=[1] %3 = neg(%2)
            %4 = slice(%z) axes=[3] starts=[0] ends=[2] steps=[1] %5 = concat(%3, %4) axis=3
            %1 = mul(%xr, %cos) %6 = mul(%5, %sin) %r = add(%1, %6)
            %rest = slice(%z) axes=[3] starts=[4] ends=[6] steps=[1]";
        let run = |tail: &str| run(&format!("{part} {tail}"), "%y");
        insta::assert_snapshot!(run("%y = concat(%r, %rest) axis=3").equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %z = concat(%x, %wide) axis=3 : f32[n, 3, 2, 6]
          %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
          %y.1 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
          %y.2 = reshape(%y.1) shape=[1, 2, 2] : f32[1, 2, 2]
          %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
          %y.3 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
          %y.4 = reshape(%y.3) shape=[1, 2, 2] : f32[1, 2, 2]
          %y = rotary_embedding(%z, %y.2, %y.4) dim=4 : f32[n, 3, 2, 6]
        }
        ");
        // In front, the rest stays outside.
        let in_front = run("%y = concat(%rest, %r) axis=3");
        insta::assert_snapshot!(in_front.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %z = concat(%x, %wide) axis=3 : f32[n, 3, 2, 6]
          %rest = slice(%z) axes=[3] starts=[4] ends=[6] steps=[1] : f32[n, 3, 2, 2]
          %r.1 = slice(%z) axes=[3] starts=[0] ends=[4] steps=[1] : f32[n, 3, 2, 4]
          %cos = constant() value=f32[1, 1, 2, 4] {1.0, 0.5, 1.0, 0.5, 0.25, 0.75, 0.25, 0.75}
          %r.2 = slice(%cos) axes=[3] starts=[0] ends=[2] steps=[1] : f32[1, 1, 2, 2]
          %r.3 = reshape(%r.2) shape=[1, 2, 2] : f32[1, 2, 2]
          %sin = constant() value=f32[2, 4] {0.0, 0.5, 0.0, 0.5, 0.75, -0.75, 0.75, -0.75}
          %r.4 = slice(%sin) axes=[1] starts=[0] ends=[2] steps=[1] : f32[2, 2]
          %r.5 = reshape(%r.4) shape=[1, 2, 2] : f32[1, 2, 2]
          %r = rotary_embedding(%r.1, %r.3, %r.5) dim=4 : f32[n, 3, 2, 4]
          %y = concat(%rest, %r) axis=3 : f32[n, 3, 2, 6]
        }
        ");
    }

    #[test]
    fn fires_on_positions_before_heads() {
        let tables = "%col = constant() value=f32[3, 1, 4] {1, 2, 1, 2, 3, 4, 3, 4, 5, 6, 5, 6}";
        let run = run(&format!("{tables} %1 = mul(%x, %col) {TURNED} %6 = mul(%5, %col) %y = add(%1, %6)"), "%y");
        insta::assert_snapshot!(run.equal_within(1e-6, 2).after, @"
        graph g(%x: f32[n, 3, 2, 4], %angles: f32[n, 2, 2], %wide: f32[n, 3, 2, 2]) -> (%y) {
          %y.5 = transpose(%x) perm=[0, 2, 1, 3] : f32[n, 2, 3, 4]
          %col = constant() value=f32[3, 1, 4] {1.0, 2.0, 1.0, 2.0, 3.0, 4.0, 3.0, 4.0, 5.0, 6.0, 5.0, 6.0}
          %y.1 = slice(%col) axes=[2] starts=[0] ends=[2] steps=[1] : f32[3, 1, 2]
          %y.2 = reshape(%y.1) shape=[1, 3, 2] : f32[1, 3, 2]
          %y.3 = slice(%col) axes=[2] starts=[0] ends=[2] steps=[1] : f32[3, 1, 2]
          %y.4 = reshape(%y.3) shape=[1, 3, 2] : f32[1, 3, 2]
          %y.6 = rotary_embedding(%y.5, %y.2, %y.4) dim=4 : f32[n, 2, 3, 4]
          %y = transpose(%y.6) perm=[0, 2, 1, 3] : f32[n, 3, 2, 4]
        }
        ");
    }

    #[test]
    fn refuses_pairs_that_differ() {
        let body = format!("{NEIGHBOURS} %1 = mul(%x, %cos) %6 = mul(%5, %sin) %y = add(%1, %6)");
        let (run, reason) = (run(&body, "%y"), "the pairs of the cosines or sines are not known to be equal");
        assert_eq!((run.rewrites, run.reasons()), (0, vec![reason]));
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
        assert_eq!((run.rewrites, run.reasons()), (0, vec!["output of `5` also read by `an output of the graph`"]));
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
            // Tables that make the data larger.
            "%x1 = slice(%x) axes=[2] starts=[0] ends=[1] steps=[1] %t = reshape(%angles) shape=[n, 1, 2, 2] %c = cos(%t)
                %s = sin(%t) %a, %b = split(%x1) axis=3 sizes=[2, 2] %1 = mul(%a, %c) %2 = mul(%b, %s) %p = sub(%1, %2)
                %3 = mul(%a, %s) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3",
            // Sines where cosines are wanted, parts exchanged, another table, a part that is not behind the other.
            &format!(
                "{TABLE} {PRODUCTS} %3 = mul(%a, %c) %4 = mul(%b, %s) %q = add(%3, %4) %y = concat(%p, %q) axis=3"
            ),
            &format!(
                "{TABLE} {PRODUCTS} %3 = mul(%a, %s) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%q, %p) axis=3"
            ),
            &format!(
                "{TABLE} {PRODUCTS} %3 = mul(%a, %t) %4 = mul(%b, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3"
            ),
            &format!(
                "{TABLE} {PRODUCTS} %3 = mul(%a, %s) %4 = mul(%a, %c) %q = add(%3, %4) %y = concat(%p, %q) axis=3"
            ),
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
