//! Variants of attention that are written out: linear attention as a scan over time, and attention whose scores or
//! weights go through graphs of the model's own.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Attention, BinaryOp, Cast, CausalKind, Expand, MatMul, Scan, ScoreStage, Softmax, UnaryOp};
use trt_fuse_ir::{DType, Dim, Ints, Shape, ValueInfo, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::formula::{Part, to_shape};
use crate::import::node::{Fault, Imported, NodeContext, Outputs};

pub(super) const ROWS: &[Row] = &[Row::new("LinearAttention", (3, 6), 2, linear_attention)];

/// Operators of the domain `ai.onnx.preview`.
pub(super) const PREVIEW: &[Row] = &[Row::new("FlexAttention", (3, 3), 1, flex_attention)];

/// The state is carried, and the heads are computed, in this type.
const WIDE: DType = DType::F32;

/// How the state of linear attention changes.
#[derive(Debug, Clone, Copy)]
struct Rule {
    /// It decays.
    gated: bool,
    /// What it already gives for a key is taken off the value.
    delta: bool,
}

/// `[batch, time, heads * size]` to `[batch, time, heads, size]`, as f32.
fn unpacked(node: &mut NodeContext<'_, '_>, slot: usize, part: &str, heads: i64) -> Part {
    let x = node.required(slot)?;
    let [batch, time, hidden] = dims::<3>(node, x)?;
    let heads = Dim::fixed(heads);
    let size = hidden.exact_div(&heads).ok_or_else(|| {
        Fault::Unsupported(format!("{hidden} elements are not known to be a multiple of {heads} heads"))
    })?;
    let split = node.reshape(&format!("{part}.split"), x, [batch, time, heads, size])?;
    node.cast(part, split, WIDE)
}

/// For each time step: `S = exp(g) S + k (beta (v - S k))^T` and `o = scale q S`, each part as the rule has it.
fn linear_attention(node: &mut NodeContext<'_, '_>) -> Imported {
    // How many steps are taken at once does not change the result.
    node.attrs.ignore("chunk_size");
    let rules = [
        ("gated_delta", Rule { gated: true, delta: true }),
        ("linear", Rule { gated: false, delta: false }),
        ("gated", Rule { gated: true, delta: false }),
        ("delta", Rule { gated: false, delta: true }),
    ];
    let rule = node.attrs.choice("update_rule", &rules)?;
    let heads = |name: &str| {
        node.attrs.required_int(name)?;
        node.attrs.int_at_least(name, 1, 1)
    };
    let (queries, groups) = (heads("q_num_heads")?, heads("kv_num_heads")?);
    if queries % groups != 0 {
        return Err(fault("q_num_heads", format!("{queries} found, a multiple of {groups} expected")).into());
    }
    let dtype = node.dtype(0)?;
    let query = unpacked(node, 0, "query", queries)?;
    let (key, value) = (unpacked(node, 1, "key", groups)?, unpacked(node, 2, "value", groups)?);
    let mut scanned = vec![query, key, value];
    if rule.gated {
        scanned.push(unpacked(node, 4, "decay", groups)?);
    }
    if rule.delta {
        let shared = node.input_info(5)?.shape.and_then(|shape| shape.last().map(|size| size.is(1))) == Some(true);
        scanned.push(unpacked(node, 5, "beta", if shared { 1 } else { groups })?);
    }
    let [batch, time, _, _] = dims::<4>(node, query)?;
    let ([_, _, _, key_size], [_, _, _, value_size]) = (dims::<4>(node, key)?, dims::<4>(node, value)?);
    let scale = match node.attrs.float("scale", 0.0)? {
        0.0 => match key_size.value() {
            Some(size) => 1.0 / (size as f64).sqrt(),
            None => return Err(Fault::Unsupported("the size of a head is not known".to_owned())),
        },
        scale => f64::from(scale),
    };
    let state_dtype = node.input(3).map_or(dtype, |past| node.info(past).dtype);
    let state = match node.input(3) {
        Some(past) => node.cast("past", past, WIDE)?,
        None => {
            let zero = node.scalar_part("zero", WIDE, 0.0)?;
            let shape = [batch.clone(), Dim::fixed(groups), key_size, value_size.clone()];
            node.helper("past", Expand { shape: Some(shape.into_iter().collect()) }, [zero])?
        }
    };
    let step = Step { rule, scale, queries };
    let (state, heads) = if time.is(1) {
        let now: Vec<ValueRef> =
            scanned.iter().map(|value| node.squeeze("now", *value, &[1])).collect::<Result<_, _>>()?;
        let [state, output] = step.take(node, state, &now)?;
        (state, node.unsqueeze("time", output, &[1])?)
    } else {
        step.over_time(node, state, &scanned)?
    };
    let output = node.cast("narrow", heads, dtype)?;
    let output = node.result(0, to_shape([batch, time, Dim::fixed(queries) * value_size]), [output])?;
    let mut outputs = Outputs::from_iter([output]);
    if node.outputs.len() > 1 {
        outputs.push(node.result(1, Cast::new(state_dtype), [state])?);
    }
    Ok(outputs)
}

/// One step of time.
struct Step {
    rule: Rule,
    scale: f64,
    queries: i64,
}

impl Step {
    /// The last state, and the outputs `[batch, time, heads, size]`.
    fn over_time(
        &self,
        node: &mut NodeContext<'_, '_>,
        state: ValueRef,
        scanned: &[ValueRef],
    ) -> Result<(ValueRef, ValueRef), Fault> {
        let slice = |info: ValueInfo| {
            let shape = info.shape.map(|mut shape: Shape| {
                shape.remove(1);
                shape
            });
            ValueInfo { dtype: info.dtype, shape, known: Default::default() }
        };
        let mut inputs = vec![("state", ValueInfo { known: Default::default(), ..node.info(state) })];
        inputs.extend(scanned.iter().map(|value| ("slice", slice(node.info(*value)))));
        let body = node.own_body(&inputs, |node, values| match values.split_first() {
            Some((state, slices)) => Ok(self.take(node, *state, slices)?.to_vec()),
            None => Ok(Vec::new()),
        })?;
        let scan = Scan {
            body,
            scan_inputs: scanned.len(),
            carried: 1,
            input_axes: Ints::from_elem(1, scanned.len()),
            output_axes: Ints::from_elem(1, 1),
            input_reversed: Ints::from_elem(0, scanned.len()),
            output_reversed: Ints::from_elem(0, 1),
        };
        let inputs: Vec<ValueRef> = std::iter::once(state).chain(scanned.iter().copied()).collect();
        match node.helper_many("time", scan, inputs, 2)?[..] {
            [state, output] => Ok((state, output)),
            _ => Err(Fault::Unsupported("it has no output".to_owned())),
        }
    }

    /// The next state and the output `[batch, heads, size]`, from queries, keys, values, and decay and rate where the
    /// rule has them.
    fn take(&self, node: &mut NodeContext<'_, '_>, state: ValueRef, now: &[ValueRef]) -> Result<[ValueRef; 2], Fault> {
        let [query, key, value, rest @ ..] = now else {
            return Err(Fault::Unsupported("an input is missing".to_owned()));
        };
        let mut rest = rest.iter().copied();
        let missing = || Fault::Unsupported("an input is missing".to_owned());
        let mut state = state;
        if self.rule.gated {
            let decay = rest.next().ok_or_else(missing)?;
            let kept = node.unary("kept", UnaryOp::Exp, decay)?;
            let kept = node.unsqueeze("kept.rows", kept, &[3])?;
            state = node.binary("decayed", BinaryOp::Mul, state, kept)?;
        }
        let mut value = node.unsqueeze("value.row", *value, &[2])?;
        if self.rule.delta {
            let rate = rest.next().ok_or_else(missing)?;
            let row = node.unsqueeze("key.row", *key, &[2])?;
            let known = node.helper("known", MatMul::new(false, false), [row, state])?;
            let new = node.binary("new", BinaryOp::Sub, value, known)?;
            let rate = node.unsqueeze("rate", rate, &[3])?;
            value = node.binary("update", BinaryOp::Mul, new, rate)?;
        }
        let column = node.unsqueeze("key.column", *key, &[3])?;
        let change = node.binary("change", BinaryOp::Mul, column, value)?;
        let state = node.binary("state", BinaryOp::Add, state, change)?;
        // Neighbouring heads of queries read the same state.
        let [batch, groups, key_size, size] = dims::<4>(node, state)?;
        let heads = Dim::fixed(self.queries);
        let times = heads.exact_div(&groups).ok_or_else(missing)?;
        let query = node.reshape("query.groups", *query, [batch.clone(), groups, times, key_size])?;
        let read = node.helper("read", MatMul::new(false, false), [query, state])?;
        let output = node.reshape("heads", read, [batch, heads, size])?;
        Ok([state, node.with_number("scaled", BinaryOp::Mul, output, self.scale)?])
    }
}

/// The dimensions of a value of rank `N`.
fn dims<const N: usize>(node: &NodeContext<'_, '_>, value: ValueRef) -> Result<[Dim; N], Fault> {
    let dims = node.info(value).shape.and_then(|shape| shape.into_vec().try_into().ok());
    dims.ok_or_else(|| Fault::Unsupported(format!("an input is not known to have rank {N}")))
}

/// Attention whose scores and weights may each go through a graph. Without one, it is plain attention.
fn flex_attention(node: &mut NodeContext<'_, '_>) -> Imported {
    let dtype = node.dtype(0)?;
    let stated = node.attrs.dtype("softmax_precision")?;
    let wide = stated.unwrap_or(if dtype == DType::F64 { dtype } else { WIDE });
    let (query, key, value) = (node.required(0)?, node.required(1)?, node.required(2)?);
    let [_, heads, _, size] = dims::<4>(node, query)?;
    let scale = match (node.attrs.has("scale"), size.value()) {
        (true, _) => node.attrs.float("scale", 1.0)?,
        (false, Some(size)) => (1.0 / (size as f64).sqrt()) as f32,
        (false, None) => return Err(Fault::Unsupported("the size of a head is not known".to_owned())),
    };
    if !node.attrs.has("score_mod") && !node.attrs.has("prob_mod") {
        let op = Attention {
            scale: F32(scale),
            softcap: None,
            causal: CausalKind::None,
            softmax_dtype: Some(wide).filter(|wide| *wide != dtype),
            zero_hidden: false,
            scores: ScoreStage::Product,
        };
        return node.emit(op, [Some(query), Some(key), Some(value)]);
    }
    let root = f64::from(scale).abs().sqrt();
    let query = node.with_number("query", BinaryOp::Mul, query, root.copysign(f64::from(scale)))?;
    let key = shared(node, "key", key, &heads)?;
    let key = node.with_number("key", BinaryOp::Mul, key, root)?;
    let product = MatMul::new(false, true);
    let scores = node.helper("product", product, [query, key])?;
    let scores = node.cast("scores", scores, wide)?;
    let scores = through(node, "score_mod", scores)?;
    let weights = node.helper("weights", Softmax { axis: -1, log: false }, [scores])?;
    let weights = through(node, "prob_mod", weights)?;
    let value = shared(node, "value", value, &heads)?;
    let value = node.cast("value", value, wide)?;
    if wide == dtype {
        return Ok(Outputs::from_iter([node.result(0, MatMul::new(false, false), [weights, value])?]));
    }
    let output = node.helper("output", MatMul::new(false, false), [weights, value])?;
    Ok(Outputs::from_iter([node.result(0, Cast::new(dtype), [output])?]))
}

/// A value through the graph of an attribute, if the node has it.
fn through(node: &mut NodeContext<'_, '_>, attribute: &str, x: ValueRef) -> Result<ValueRef, Fault> {
    if !node.attrs.has(attribute) {
        return Ok(x);
    }
    let graph = node.attrs.graph(attribute)?;
    let outputs = node.inline_on(graph, &[x])?;
    outputs.first().copied().ok_or_else(|| fault(attribute, "it has no output").into())
}

/// Each head of keys or values as often as it serves a head of queries.
fn shared(node: &mut NodeContext<'_, '_>, part: &str, x: ValueRef, heads: &Dim) -> Part {
    let [batch, groups, length, size] = dims::<4>(node, x)?;
    if groups == *heads {
        return Ok(x);
    }
    let times = heads
        .exact_div(&groups)
        .ok_or_else(|| Fault::Unsupported(format!("{heads} heads are not known to be a multiple of {groups}")))?;
    let apart = node.unsqueeze(&format!("{part}.apart"), x, &[2])?;
    let shape = [batch.clone(), groups, times, length.clone(), size.clone()].into_iter().collect();
    let repeated = node.helper(&format!("{part}.repeated"), Expand { shape: Some(shape) }, [apart])?;
    node.reshape(&format!("{part}.heads"), repeated, [batch, heads.clone(), length, size])
}
