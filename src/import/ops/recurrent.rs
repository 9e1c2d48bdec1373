//! Recurrent layers: one product of all time steps with the input's weights, then a scan over time whose body has the
//! recurrent product and the gates.
//!
//! A reverse direction scans from the end. Where sequences have lengths, a mask keeps the state where a sequence is
//! over; walked from the end, it keeps the initial state until the sequence begins.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{
    Activation, BinaryOp, Cast, Concat, Expand, MatMul, Scan, ShapeOf, Split, Squeeze, Transpose, Unsqueeze,
};
use trt_fuse_ir::{DType, Dim, Ints, Op, Tensor, ValueInfo, ValueRef};

use functions::{Function, functions};

use super::Row;
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

mod functions;

pub(super) const ROWS: &[Row] =
    &[Row::new("GRU", (3, 6), 2, gru), Row::new("LSTM", (3, 8), 3, lstm), Row::new("RNN", (3, 6), 2, rnn)];

/// What a round computes.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Cell {
    Rnn,
    Gru {
        /// The reset gate scales the recurrent product, not the state before it.
        reset_after: bool,
    },
    Lstm {
        /// The forget gate is what the input gate leaves.
        coupled: bool,
    },
}

impl Cell {
    /// Rows of weights for each element of the state.
    fn gates(self) -> i64 {
        match self {
            Self::Rnn => 1,
            Self::Gru { .. } => 3,
            Self::Lstm { .. } => 4,
        }
    }

    /// The activation functions of one direction.
    fn functions(self) -> &'static [&'static str] {
        match self {
            Self::Rnn => &["tanh"],
            Self::Gru { .. } => &["sigmoid", "tanh"],
            Self::Lstm { .. } => &["sigmoid", "tanh", "tanh"],
        }
    }

    /// Number of values that make up the state.
    fn states(self) -> usize {
        if matches!(self, Self::Lstm { .. }) { 2 } else { 1 }
    }
}

/// Parameters of the layer.
#[derive(Debug)]
struct Layer {
    cell: Cell,
    dtype: DType,
    hidden: i64,
    /// For each direction whether it is walked from the end, and its functions.
    directions: Vec<(bool, Vec<Function>)>,
    /// Batch before time in X, Y and the states.
    batch_first: bool,
    /// Bound of what goes into a function.
    clip: Option<f32>,
}

fn rnn(node: &mut NodeContext<'_, '_>) -> Imported {
    recurrent(node, Cell::Rnn)
}

fn gru(node: &mut NodeContext<'_, '_>) -> Imported {
    let reset_after = node.attrs.int_or("linear_before_reset", 0)? != 0;
    recurrent(node, Cell::Gru { reset_after })
}

fn lstm(node: &mut NodeContext<'_, '_>) -> Imported {
    let coupled = node.attrs.int_or("input_forget", 0)? != 0;
    recurrent(node, Cell::Lstm { coupled })
}

fn recurrent(node: &mut NodeContext<'_, '_>, cell: Cell) -> Imported {
    let layer = Layer::read(node, cell)?;
    let mut x = node.required(0)?;
    if layer.batch_first {
        x = node.helper("time_first", Transpose { perm: Ints::from_slice(&[1, 0, 2]) }, [x])?;
    }
    let mask = match node.input(4) {
        Some(lengths) => Some(mask(node, x, lengths)?),
        None => None,
    };
    let initial = layer.initial_states(node, x)?;
    let weights = [1, 2, 3, 7].map(|slot| layer.shares(node, slot, 0));
    let [w, r, b, p] = weights;
    let (w, r, b, p) = (w?, r?, b?, p?);
    let mut results: Vec<Vec<ValueRef>> = Vec::new();
    for (at, (reversed, functions)) in layer.directions.iter().enumerate() {
        let (Some(w), Some(r)) = (w.get(at), r.get(at)) else { continue };
        let states = initial.iter().filter_map(|states| states.get(at).copied()).collect();
        let weights = Weights { w: *w, r: *r, b: b.get(at).copied(), p: p.get(at).copied() };
        let direction = Direction { layer: &layer, reversed: *reversed, functions, weights };
        results.push(direction.run(node, x, states, mask)?);
    }
    layer.join(node, &results)
}

impl Layer {
    fn read(node: &NodeContext<'_, '_>, cell: Cell) -> Result<Self, Fault> {
        let hidden = node.input_info(2)?.shape.and_then(|shape| shape.get(2)?.value());
        let stated = node.attrs.int("hidden_size")?;
        let Some(hidden) = hidden.or(stated) else {
            return Err(Fault::Unsupported("its hidden size is not known".to_owned()));
        };
        if stated.is_some_and(|stated| stated != hidden) {
            return Err(fault("hidden_size", format!("{stated:?} stated, the weights have {hidden}")).into());
        }
        if hidden < 1 || hidden > i64::from(i32::MAX) {
            return Err(fault("hidden_size", format!("{hidden} found, at least 1 expected")).into());
        }
        if node.input_info(0)?.rank().is_some_and(|rank| rank != 3) {
            return Err(ImportError::Operands { reason: "its input has not 3 dimensions".to_owned() }.into());
        }
        let reversed: &[bool] = node.attrs.choice(
            "direction",
            &[("forward", &[false][..]), ("reverse", &[true][..]), ("bidirectional", &[false, true][..])],
        )?;
        let functions = functions(node, cell, reversed.len())?;
        let clip = if node.attrs.has("clip") { Some(node.attrs.float("clip", 0.0)?) } else { None };
        Ok(Self {
            cell,
            dtype: node.dtype(0)?,
            hidden,
            directions: reversed.iter().copied().zip(functions).collect(),
            batch_first: node.attrs.flag("layout", false)?,
            clip,
        })
    }

    /// The part of an input that each direction has, without the axis of directions; none if the input is left out.
    fn shares(&self, node: &mut NodeContext<'_, '_>, slot: usize, axis: i64) -> Result<Vec<ValueRef>, Fault> {
        let Some(value) = node.input(slot) else { return Ok(Vec::new()) };
        let parts = match self.directions.len() {
            1 => vec![value],
            count => {
                let sizes = Some(std::iter::repeat_n(Dim::fixed(1), count).collect());
                node.helper_many("directions", Split { axis, sizes }, [value], count)?.to_vec()
            }
        };
        let squeeze = Squeeze { axes: Some(Ints::from_slice(&[axis])) };
        parts.into_iter().map(|part| node.helper("direction", squeeze.clone(), [part])).collect()
    }

    /// For each value of the state, what it is before the first round in each direction.
    fn initial_states(&self, node: &mut NodeContext<'_, '_>, x: ValueRef) -> Result<Vec<Vec<ValueRef>>, Fault> {
        let axis = i64::from(self.batch_first);
        let mut zeros = None;
        let mut initial = Vec::new();
        for slot in (5..).take(self.cell.states()) {
            let mut states = self.shares(node, slot, axis)?;
            if states.is_empty() {
                let zeros = match zeros {
                    Some(zeros) => zeros,
                    None => *zeros.insert(self.zeros(node, x)?),
                };
                states = vec![zeros; self.directions.len()];
            }
            initial.push(states);
        }
        Ok(initial)
    }

    /// Zeros in the shape of a state.
    fn zeros(&self, node: &mut NodeContext<'_, '_>, x: ValueRef) -> Result<ValueRef, Fault> {
        let batch = node.info(x).shape.and_then(|shape| shape.get(1)?.value());
        if let (Some(batch), Ok(hidden)) = (batch, usize::try_from(self.hidden)) {
            let zeros = Tensor::number(self.dtype, 0.0).and_then(|zero| {
                Tensor::splat(self.dtype, [usize::try_from(batch).ok()?, hidden], zero.bytes().clone()).ok()
            });
            if let Some(zeros) = zeros {
                return node.constant_part("zeros", zeros);
            }
        }
        let batch = node.helper("batch", ShapeOf { start: 1, end: Some(2) }, [x])?;
        let hidden = node.ints_part("hidden", &[self.hidden])?;
        let shape = node.helper("state", Concat { axis: 0 }, [batch, hidden])?;
        let zero = node.scalar_part("zero", self.dtype, 0.0)?;
        node.helper("zeros", Expand { shape: None }, [zero, shape])
    }

    /// The node's outputs from those of each direction: the last states, then Y.
    fn join(&self, node: &mut NodeContext<'_, '_>, results: &[Vec<ValueRef>]) -> Imported {
        let states = self.cell.states();
        let mut outputs = crate::import::node::Outputs::new();
        for at in 0..node.outputs.len() {
            let all: Vec<ValueRef> =
                results.iter().filter_map(|parts| parts.get(at.checked_sub(1).unwrap_or(states)).copied()).collect();
            let axis = match (at, self.batch_first) {
                (0, false) => 1,
                (0, true) => 2,
                (_, batch_first) => i64::from(batch_first),
            };
            outputs.push(if at == 0 && self.batch_first {
                let joined = stack(node, &all, axis, None)?;
                node.result(at, Transpose { perm: Ints::from_slice(&[1, 0, 2, 3]) }, [joined])?
            } else {
                stack(node, &all, axis, Some(at))?
            });
        }
        Ok(outputs)
    }
}

/// Values joined along a new axis; as an output of the node, if it is one.
fn stack(
    node: &mut NodeContext<'_, '_>,
    values: &[ValueRef],
    axis: i64,
    output: Option<usize>,
) -> Result<ValueRef, Fault> {
    let unsqueeze = Unsqueeze { axes: Some(Ints::from_slice(&[axis])) };
    if let ([value], Some(output)) = (values, output) {
        return node.result(output, unsqueeze, [*value]);
    }
    let mut widened = Vec::new();
    for value in values {
        widened.push(node.helper("direction", unsqueeze.clone(), [*value])?);
    }
    match (widened.as_slice(), output) {
        ([value], None) => Ok(*value),
        (_, None) => node.helper("joined", Concat { axis }, widened),
        (_, Some(output)) => node.result(output, Concat { axis }, widened),
    }
}

/// Whether the sequence of each batch element goes on at each time step: Bool `[time, batch, 1]`.
fn mask(node: &mut NodeContext<'_, '_>, x: ValueRef, lengths: ValueRef) -> Result<ValueRef, Fault> {
    let steps = node.info(x).shape.and_then(|shape| shape.first()?.value());
    let positions = match steps.filter(|steps| (0..1 << 20).contains(steps)) {
        Some(steps) => node.ints_part("positions", &(0..steps).collect::<Vec<_>>())?,
        None => {
            let steps = node.helper("time", ShapeOf { start: 0, end: Some(1) }, [x])?;
            let limit = node.helper("steps", Squeeze { axes: Some(Ints::from_slice(&[0])) }, [steps])?;
            let (start, step) =
                (node.scalar_part("start", DType::I64, 0.0)?, node.scalar_part("step", DType::I64, 1.0)?);
            node.helper("positions", Op::Range, [start, limit, step])?
        }
    };
    let lengths = node.helper("lengths", Cast::new(DType::I64), [lengths])?;
    let positions = node.helper("positions", Unsqueeze { axes: Some(Ints::from_slice(&[1, 2])) }, [positions])?;
    let lengths = node.helper("lengths", Unsqueeze { axes: Some(Ints::from_slice(&[0, 2])) }, [lengths])?;
    node.helper("mask", Op::Binary(BinaryOp::Less), [positions, lengths])
}

/// The weights of one direction, gates along the first axis.
#[derive(Debug, Clone, Copy)]
struct Weights {
    w: ValueRef,
    r: ValueRef,
    b: Option<ValueRef>,
    p: Option<ValueRef>,
}

#[derive(Debug)]
struct Direction<'l> {
    layer: &'l Layer,
    reversed: bool,
    functions: &'l [Function],
    weights: Weights,
}

/// The values that the body of the scan takes from outside, as the body sees them.
#[derive(Debug, Default)]
struct Inside {
    /// Recurrent weights of all gates; those of a GRU's last gate apart where the reset gate comes before.
    r: Vec<ValueRef>,
    /// Bias of the recurrent product, where it is not added beforehand.
    bias: Option<ValueRef>,
    /// Peepholes of the input, output and forget gates.
    peepholes: Vec<ValueRef>,
}

impl Direction<'_> {
    /// The last states and Y `[time, batch, hidden]`.
    fn run(
        &self,
        node: &mut NodeContext<'_, '_>,
        x: ValueRef,
        states: Vec<ValueRef>,
        mask: Option<ValueRef>,
    ) -> Result<Vec<ValueRef>, Fault> {
        let Layer { cell, hidden, .. } = *self.layer;
        let width = hidden.saturating_mul(cell.gates());
        let reset_after = matches!(cell, Cell::Gru { reset_after: true });
        let mut gates = node.helper("input", MatMul::new(false, true), [x, self.weights.w])?;
        let mut captures = Vec::new();
        if matches!(cell, Cell::Gru { reset_after: false }) {
            captures.extend(split(node, self.weights.r, 0, &[2 * hidden, hidden])?);
        } else {
            captures.push(self.weights.r);
        }
        let products = captures.len();
        if let Some(bias) = self.weights.b {
            let [of_input, recurrent] = split(node, bias, 0, &[width, width])?[..] else {
                return Err(Fault::Unsupported("its bias has another size".to_owned()));
            };
            let bias = if reset_after {
                captures.push(recurrent);
                of_input
            } else {
                node.helper("bias", Op::Binary(BinaryOp::Add), [of_input, recurrent])?
            };
            gates = node.helper("biased", Op::Binary(BinaryOp::Add), [gates, bias])?;
        }
        let biases = captures.len();
        if let Some(peepholes) = self.weights.p {
            captures.extend(split(node, peepholes, 0, &[hidden; 3])?);
        }

        let slice = |info: ValueInfo| ValueInfo {
            shape: info.shape.map(|shape| shape.into_iter().skip(1).collect()),
            known: Default::default(),
            ..info
        };
        let mut inputs = Vec::new();
        for (state, name) in states.iter().zip(["hidden", "cell"]) {
            inputs.push((name, ValueInfo { known: Default::default(), ..node.info(*state) }));
        }
        inputs.push(("gates", slice(node.info(gates))));
        if let Some(mask) = mask {
            inputs.push(("goes_on", slice(node.info(mask))));
        }
        inputs.extend(captures.iter().map(|capture| ("weights", node.info(*capture))));
        let body = node.own_body(&inputs, |node, values| {
            let (states, rest) = values.split_at(states.len());
            let (sliced, captured) = rest.split_at(if mask.is_some() { 2 } else { 1 });
            let inside = Inside {
                r: captured.iter().take(products).copied().collect(),
                bias: captured.get(products..biases).and_then(|biases| biases.first()).copied(),
                peepholes: captured.iter().skip(biases).copied().collect(),
            };
            let Some(gates) = sliced.first() else { return Ok(Vec::new()) };
            self.round(node, states, *gates, sliced.get(1).copied(), &inside)
        })?;
        let scan_inputs = 1 + usize::from(mask.is_some());
        let reversed = i64::from(self.reversed);
        let scan = Scan {
            body,
            scan_inputs,
            carried: states.len(),
            input_axes: Ints::from_elem(0, scan_inputs),
            output_axes: Ints::from_elem(0, 1),
            input_reversed: Ints::from_elem(reversed, scan_inputs),
            output_reversed: Ints::from_elem(reversed, 1),
        };
        let outputs = states.len() + 1;
        let inputs = states.into_iter().chain([gates]).chain(mask).chain(captures);
        Ok(node.helper_many("time", scan, inputs.collect::<Vec<_>>(), outputs)?.to_vec())
    }

    /// One time step: the next states, and the row of Y.
    fn round(
        &self,
        node: &mut NodeContext<'_, '_>,
        states: &[ValueRef],
        gates: ValueRef,
        goes_on: Option<ValueRef>,
        inside: &Inside,
    ) -> Result<Vec<ValueRef>, Fault> {
        let Some(hidden) = states.first().copied() else { return Ok(Vec::new()) };
        let mut next = match (self.layer.cell, states.get(1)) {
            (Cell::Lstm { coupled }, Some(cell)) => self.lstm(node, hidden, *cell, gates, inside, coupled)?,
            (Cell::Gru { reset_after }, _) => vec![self.gru(node, hidden, gates, inside, reset_after)?],
            _ => {
                let gates = self.recurrent(node, gates, hidden, inside, 0)?;
                vec![self.apply(node, 0, gates)?]
            }
        };
        let Some(goes_on) = goes_on else {
            next.extend(next.first().copied());
            return Ok(next);
        };
        let zero = node.scalar_part("zero", self.layer.dtype, 0.0)?;
        let row = match next.first() {
            Some(hidden) => Some(node.helper("row", Op::Where, [goes_on, *hidden, zero])?),
            None => None,
        };
        for (next, before) in next.iter_mut().zip(states) {
            *next = node.helper("kept", Op::Where, [goes_on, *next, *before])?;
        }
        next.extend(row);
        Ok(next)
    }

    fn lstm(
        &self,
        node: &mut NodeContext<'_, '_>,
        hidden: ValueRef,
        cell: ValueRef,
        gates: ValueRef,
        inside: &Inside,
        coupled: bool,
    ) -> Result<Vec<ValueRef>, Fault> {
        let size = self.layer.hidden;
        let gates = self.recurrent(node, gates, hidden, inside, 0)?;
        // Without peepholes the function of three gates is one.
        let peepholes = match inside.peepholes[..] {
            [i, o, f] => Some((i, o, f)),
            _ => None,
        };
        let (input, output, forget, candidate) = match peepholes {
            None => {
                let [gates, candidate] = split(node, gates, -1, &[3 * size, size])?[..] else { return Ok(Vec::new()) };
                let gates = self.apply(node, 0, gates)?;
                let [i, o, f] = split(node, gates, -1, &[size; 3])?[..] else { return Ok(Vec::new()) };
                (i, o, f, candidate)
            }
            Some((input_peephole, _, forget_peephole)) => {
                let [i, o, f, candidate] = split(node, gates, -1, &[size; 4])?[..] else { return Ok(Vec::new()) };
                let i = peep(node, i, input_peephole, cell)?;
                let f = peep(node, f, forget_peephole, cell)?;
                (self.apply(node, 0, i)?, o, self.apply(node, 0, f)?, candidate)
            }
        };
        let forget = if coupled { complement(node, self.layer.dtype, input)? } else { forget };
        let candidate = self.apply(node, 1, candidate)?;
        let kept = node.helper("kept", Op::Binary(BinaryOp::Mul), [forget, cell])?;
        let new = node.helper("new", Op::Binary(BinaryOp::Mul), [input, candidate])?;
        let cell = node.helper("cell", Op::Binary(BinaryOp::Add), [kept, new])?;
        let output = match peepholes {
            None => output,
            Some((_, peephole, _)) => {
                let output = peep(node, output, peephole, cell)?;
                self.apply(node, 0, output)?
            }
        };
        // Not clipped: ONNX leaves it open, and onnxruntime clips gates alone.
        let shown = self.function(2).of(node, self.layer.dtype, cell)?;
        let hidden = node.helper("hidden", Op::Binary(BinaryOp::Mul), [output, shown])?;
        Ok(vec![hidden, cell])
    }

    fn gru(
        &self,
        node: &mut NodeContext<'_, '_>,
        hidden: ValueRef,
        gates: ValueRef,
        inside: &Inside,
        reset_after: bool,
    ) -> Result<ValueRef, Fault> {
        let size = self.layer.hidden;
        let missing = || Fault::Unsupported("its gates have another size".to_owned());
        let [gates, candidate] = split(node, gates, -1, &[2 * size, size])?[..] else { return Err(missing()) };
        let (gates, recurrent) = if reset_after {
            let product = self.product(node, hidden, inside, 0)?;
            let [of_gates, recurrent] = split(node, product, -1, &[2 * size, size])?[..] else { return Err(missing()) };
            (node.helper("gates", Op::Binary(BinaryOp::Add), [gates, of_gates])?, Some(recurrent))
        } else {
            (self.recurrent(node, gates, hidden, inside, 0)?, None)
        };
        let gates = self.apply(node, 0, gates)?;
        let [update, reset] = split(node, gates, -1, &[size; 2])?[..] else { return Err(missing()) };
        let candidate = match recurrent {
            Some(recurrent) => {
                let scaled = node.helper("reset", Op::Binary(BinaryOp::Mul), [reset, recurrent])?;
                node.helper("candidate", Op::Binary(BinaryOp::Add), [candidate, scaled])?
            }
            None => {
                let scaled = node.helper("reset", Op::Binary(BinaryOp::Mul), [reset, hidden])?;
                self.recurrent(node, candidate, scaled, inside, 1)?
            }
        };
        let candidate = self.apply(node, 1, candidate)?;
        let rest = complement(node, self.layer.dtype, update)?;
        let new = node.helper("new", Op::Binary(BinaryOp::Mul), [rest, candidate])?;
        let kept = node.helper("kept", Op::Binary(BinaryOp::Mul), [update, hidden])?;
        node.helper("hidden", Op::Binary(BinaryOp::Add), [new, kept])
    }

    /// The product of a state with the recurrent weights, and its bias.
    fn product(
        &self,
        node: &mut NodeContext<'_, '_>,
        state: ValueRef,
        inside: &Inside,
        which: usize,
    ) -> Result<ValueRef, Fault> {
        let missing = || Fault::Unsupported("it has no recurrent weights".to_owned());
        let weights = inside.r.get(which).copied().ok_or_else(missing)?;
        let result = node.helper("recurrent", MatMul::new(false, true), [state, weights])?;
        match inside.bias {
            Some(bias) => node.helper("biased", Op::Binary(BinaryOp::Add), [result, bias]),
            None => Ok(result),
        }
    }

    /// Gates with the product of a state added.
    fn recurrent(
        &self,
        node: &mut NodeContext<'_, '_>,
        gates: ValueRef,
        state: ValueRef,
        inside: &Inside,
        which: usize,
    ) -> Result<ValueRef, Fault> {
        let product = self.product(node, state, inside, which)?;
        node.helper("gates", Op::Binary(BinaryOp::Add), [gates, product])
    }

    fn function(&self, which: usize) -> Function {
        self.functions.get(which).copied().unwrap_or(Function::TANH)
    }

    /// Applies one of the activation functions to a gate, clipped first.
    fn apply(&self, node: &mut NodeContext<'_, '_>, which: usize, mut x: ValueRef) -> Result<ValueRef, Fault> {
        if let Some(bound) = self.layer.clip {
            x = node.helper("clipped", Op::Activation(Activation::Clip(F32(-bound), F32(bound))), [x])?;
        }
        self.function(which).of(node, self.layer.dtype, x)
    }
}

/// A gate that also looks at the cell.
fn peep(node: &mut NodeContext<'_, '_>, gate: ValueRef, weights: ValueRef, cell: ValueRef) -> Result<ValueRef, Fault> {
    let seen = node.helper("peephole", Op::Binary(BinaryOp::Mul), [weights, cell])?;
    node.helper("gate", Op::Binary(BinaryOp::Add), [gate, seen])
}

/// `1 - x`
fn complement(node: &mut NodeContext<'_, '_>, dtype: DType, x: ValueRef) -> Result<ValueRef, Fault> {
    let one = node.scalar_part("one", dtype, 1.0)?;
    node.helper("rest", Op::Binary(BinaryOp::Sub), [one, x])
}

/// Parts of these sizes along an axis.
fn split(node: &mut NodeContext<'_, '_>, value: ValueRef, axis: i64, sizes: &[i64]) -> Result<Vec<ValueRef>, Fault> {
    let op = Split { axis, sizes: Some(sizes.iter().copied().map(Dim::fixed).collect()) };
    Ok(node.helper_many("parts", op, [value], sizes.len())?.to_vec())
}
