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
mod tests;
