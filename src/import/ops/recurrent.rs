//! Recurrent layers: one product of all time steps with the input's weights, then a scan over time whose body has the
//! recurrent product and the gates.
//!
//! A reverse direction scans from the end; two directions of the same functions are one scan
//! ([`walk`]). Where sequences have lengths, a mask
//! keeps the state where a sequence is over; walked from the end, it keeps the initial state until the sequence begins.

use trt_fuse_ir::op::{BinaryOp, Cast, Concat, Expand, ShapeOf, Split, Squeeze, Transpose, UnaryOp, Unsqueeze};
use trt_fuse_ir::{DType, Dim, Dims, Ints, Op, Tensor, ValueRef};

use functions::{Function, functions};
use walk::{Walk, Way};

use super::Row;
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext};

mod functions;
mod round;
mod walk;

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
    let walks = match &layer.directions[..] {
        [(_, functions), (_, others)] if functions == others && layer.are_two(node) => {
            vec![layer.both(node, x, functions)?]
        }
        _ => layer.each(node, x)?,
    };
    let mut results = Vec::new();
    for walk in &walks {
        results.push((walk.way, walk.run(node, x, mask)?));
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
        let reversed: &[bool] = node.attrs.choice(
            "direction",
            &[("forward", &[false][..]), ("reverse", &[true][..]), ("bidirectional", &[false, true][..])],
        )?;
        let functions = functions(node, cell, reversed.len())?;
        let clip = if node.attrs.has("clip") { Some(node.attrs.float("clip", 0.0)?) } else { None };
        let layer = Self {
            cell,
            dtype: node.dtype(0)?,
            hidden,
            directions: reversed.iter().copied().zip(functions).collect(),
            batch_first: node.attrs.flag("layout", false)?,
            clip,
        };
        layer.check(node)?;
        Ok(layer)
    }

    /// The shape of each input; `None` for a size of any number.
    fn shapes(&self) -> [Vec<Option<i64>>; 8] {
        let directions = Some(self.directions.len() as i64);
        let wide = |count: i64| Some(self.hidden.saturating_mul(count));
        let gates = self.cell.gates();
        let state = match self.batch_first {
            true => vec![None, directions, wide(1)],
            false => vec![directions, None, wide(1)],
        };
        [
            vec![None; 3],
            vec![directions, wide(gates), None],
            vec![directions, wide(gates), wide(1)],
            vec![directions, wide(2 * gates)],
            vec![None],
            state.clone(),
            state,
            vec![directions, wide(3)],
        ]
    }

    /// Nothing is to be broadcast: weights of one direction are not those of two.
    fn check(&self, node: &NodeContext<'_, '_>) -> Result<(), Fault> {
        for (slot, expected) in self.shapes().iter().enumerate() {
            let Some(info) = node.input(slot).map(|value| node.info(value)) else { continue };
            let Some(shape) = &info.shape else { continue };
            let fits = |(size, wanted): (&Dim, &Option<i64>)| {
                size.value().zip(*wanted).is_none_or(|(size, wanted)| size == wanted)
            };
            if shape.len() != expected.len() || !shape.iter().zip(expected).all(fits) {
                let sizes = expected.iter().map(|size| size.map_or("any".to_owned(), |size| size.to_string()));
                let sizes = sizes.collect::<Vec<_>>().join(", ");
                return Err(
                    ImportError::Operands { reason: format!("input {slot} is {info}, [{sizes}] expected") }.into()
                );
            }
        }
        Ok(())
    }

    /// Whether every input that has an axis of directions is known to have two.
    fn are_two(&self, node: &NodeContext<'_, '_>) -> bool {
        [1, 2, 3, 5, 6, 7].iter().filter_map(|slot| Some((*slot, node.input(*slot)?))).all(|(slot, value)| {
            let axis = usize::from(self.batch_first && matches!(slot, 5 | 6));
            node.info(value).shape.is_some_and(|shape| shape.get(axis).is_some_and(|size| size.is(2)))
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

    /// Two directions in one scan.
    fn both<'l>(
        &'l self,
        node: &mut NodeContext<'_, '_>,
        x: ValueRef,
        functions: &'l [Function],
    ) -> Result<Walk<'l>, Fault> {
        let (w, r, b, p) = (node.required(1)?, node.required(2)?, node.input(3), node.input(7));
        let mut states = Vec::new();
        let mut zeros = None;
        for slot in (5..).take(self.cell.states()) {
            states.push(match (node.input(slot), zeros) {
                (Some(state), _) if self.batch_first => {
                    node.helper("state", Transpose { perm: Ints::from_slice(&[1, 0, 2]) }, [state])?
                }
                (Some(state), _) => state,
                (None, Some(zeros)) => zeros,
                (None, None) => *zeros.insert(self.zeros(node, x, true)?),
            });
        }
        Ok(Walk { layer: self, way: Way::Both, functions, w, r, b, p, states })
    }

    /// A scan for each direction.
    fn each(&self, node: &mut NodeContext<'_, '_>, x: ValueRef) -> Result<Vec<Walk<'_>>, Fault> {
        let initial = self.initial_states(node, x)?;
        let [w, r, b, p] = [1, 2, 3, 7].map(|slot| self.shares(node, slot, 0));
        let (w, r, b, p) = (w?, r?, b?, p?);
        let mut walks = Vec::new();
        for (at, (reversed, functions)) in self.directions.iter().enumerate() {
            let (Some(&w), Some(&r)) = (w.get(at), r.get(at)) else { continue };
            let (b, p) = (b.get(at).copied(), p.get(at).copied());
            let states = initial.iter().filter_map(|states| states.get(at).copied()).collect();
            let way = if *reversed { Way::Backward } else { Way::Forward };
            walks.push(Walk { layer: self, way, functions, w, r, b, p, states });
        }
        Ok(walks)
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
                    None => *zeros.insert(self.zeros(node, x, false)?),
                };
                states = vec![zeros; self.directions.len()];
            }
            initial.push(states);
        }
        Ok(initial)
    }

    /// Zeros in the shape of a state, of both directions or of one.
    fn zeros(&self, node: &mut NodeContext<'_, '_>, x: ValueRef, both: bool) -> Result<ValueRef, Fault> {
        let directions: &[i64] = if both { &[2] } else { &[] };
        let batch = node.info(x).shape.and_then(|shape| shape.get(1)?.value());
        if let Some(batch) = batch {
            let dims = directions.iter().copied().chain([batch, self.hidden]).map(|dim| usize::try_from(dim).ok());
            let zeros = Tensor::number(self.dtype, 0.0)
                .and_then(|zero| Tensor::splat(self.dtype, dims.collect::<Option<Dims>>()?, zero.bytes().clone()).ok());
            if let Some(zeros) = zeros {
                return node.constant_part("zeros", zeros);
            }
        }
        let batch = node.helper("batch", ShapeOf { start: 1, end: Some(2) }, [x])?;
        let directions = node.ints_part("directions", directions)?;
        let hidden = node.ints_part("hidden", &[self.hidden])?;
        let shape = node.helper("state", Concat { axis: 0 }, [directions, batch, hidden])?;
        let zero = node.scalar_part("zero", self.dtype, 0.0)?;
        node.helper("zeros", Expand { shape: None }, [zero, shape])
    }

    /// The node's outputs from those of each scan: the last states, then Y.
    fn join(&self, node: &mut NodeContext<'_, '_>, results: &[(Way, Vec<ValueRef>)]) -> Imported {
        let states = self.cell.states();
        let mut outputs = crate::import::node::Outputs::new();
        for at in 0..node.outputs.len() {
            let part = at.checked_sub(1).unwrap_or(states);
            let all: Vec<ValueRef> = results.iter().filter_map(|(_, parts)| parts.get(part).copied()).collect();
            // Directions come before the batch, as ONNX has it unless the batch is first.
            let axis = i64::from(at == 0);
            let joined = match results {
                [(Way::Both, parts)] => parts.get(part).copied(),
                _ if self.batch_first => Some(stack(node, &all, axis, None)?),
                _ => None,
            };
            let perm: &[i64] = if at == 0 { &[2, 0, 1, 3] } else { &[1, 0, 2] };
            outputs.push(match joined {
                Some(joined) if self.batch_first => {
                    node.result(at, Transpose { perm: Ints::from_slice(perm) }, [joined])?
                }
                Some(joined) => node.result(at, Op::Unary(UnaryOp::Identity), [joined])?,
                None => stack(node, &all, axis, Some(at))?,
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

/// Parts of these sizes along an axis.
fn split(node: &mut NodeContext<'_, '_>, value: ValueRef, axis: i64, sizes: &[i64]) -> Result<Vec<ValueRef>, Fault> {
    let op = Split { axis, sizes: Some(sizes.iter().copied().map(Dim::fixed).collect()) };
    Ok(node.helper_many("parts", op, [value], sizes.len())?.to_vec())
}
