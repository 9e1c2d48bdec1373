//! The scan over time of one direction, or of both at once.
//!
//! Two directions of the same functions are one scan whose values have an axis of directions before the batch: a round of
//! both takes as many kernels, one after the other, as a round of one. What the second direction reads is turned around
//! before the scan, and what it gives is turned back after it.

use trt_fuse_ir::op::{BinaryOp, Concat, Flatten, MatMul, Scan, Slice, Unsqueeze};
use trt_fuse_ir::{Ints, Op, ValueInfo, ValueRef};

use super::functions::Function;
use super::round::Inside;
use super::{Cell, Layer, split, stack};
use crate::import::node::{Fault, NodeContext};

/// One scan, and what it reads besides X: gates along the first axis of the weights, or along the second one where the
/// first is that of two directions.
#[derive(Debug)]
pub(super) struct Walk<'l> {
    pub(super) layer: &'l Layer,
    pub(super) way: Way,
    pub(super) functions: &'l [Function],
    pub(super) w: ValueRef,
    pub(super) r: ValueRef,
    pub(super) b: Option<ValueRef>,
    pub(super) p: Option<ValueRef>,
    /// The states before the first round.
    pub(super) states: Vec<ValueRef>,
}

/// How a scan goes over time.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Way {
    Forward,
    Backward,
    /// Forward, with the steps of the second direction in reverse order.
    Both,
}

impl Walk<'_> {
    /// The last states, and Y: `[time, batch, hidden]`, with the directions before the batch where there are two.
    pub(super) fn run(
        &self,
        node: &mut NodeContext<'_, '_>,
        x: ValueRef,
        mask: Option<ValueRef>,
    ) -> Result<Vec<ValueRef>, Fault> {
        let hidden = self.layer.hidden;
        let (gates, bias) = self.gates(node, x)?;
        let mut captures = match self.layer.cell {
            Cell::Gru { reset_after: false } => split(node, self.r, self.axis(), &[2 * hidden, hidden])?,
            _ => vec![self.r],
        };
        let products = captures.len();
        captures.extend(bias);
        let biases = captures.len();
        if let Some(peepholes) = self.p {
            for peephole in split(node, peepholes, self.axis(), &[hidden; 3])? {
                captures.push(self.row(node, peephole)?);
            }
        }
        let mask = match mask {
            Some(mask) if self.way == Way::Both => Some(self.pair(node, [mask, mask])?),
            mask => mask,
        };

        let slice = |info: ValueInfo| ValueInfo {
            shape: info.shape.map(|shape| shape.into_iter().skip(1).collect()),
            known: Default::default(),
            ..info
        };
        let mut inputs = Vec::new();
        for (state, name) in self.states.iter().zip(["hidden", "cell"]) {
            inputs.push((name, ValueInfo { known: Default::default(), ..node.info(*state) }));
        }
        inputs.push(("gates", slice(node.info(gates))));
        if let Some(mask) = mask {
            inputs.push(("goes_on", slice(node.info(mask))));
        }
        inputs.extend(captures.iter().map(|capture| ("weights", node.info(*capture))));
        let body = node.own_body(&inputs, |node, values| {
            let (states, rest) = values.split_at(self.states.len());
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
        let reversed = i64::from(self.way == Way::Backward);
        let scan = Scan {
            body,
            scan_inputs,
            carried: self.states.len(),
            input_axes: Ints::from_elem(0, scan_inputs),
            output_axes: Ints::from_elem(0, 1),
            input_reversed: Ints::from_elem(reversed, scan_inputs),
            output_reversed: Ints::from_elem(reversed, 1),
        };
        let outputs = self.states.len() + 1;
        let inputs = self.states.iter().copied().chain([gates]).chain(mask).chain(captures);
        let mut outputs = node.helper_many("time", scan, inputs.collect::<Vec<_>>(), outputs)?.to_vec();
        if self.way == Way::Both
            && let Some(y) = outputs.last_mut()
        {
            let [forward, backward] = split(node, *y, 1, &[1, 1])?[..] else { return Ok(outputs) };
            let backward = turned(node, backward)?;
            *y = node.helper("joined", Concat { axis: 1 }, [forward, backward])?;
        }
        Ok(outputs)
    }

    /// The axis of gates in weights.
    fn axis(&self) -> i64 {
        i64::from(self.way == Way::Both)
    }

    /// What gates take from X and the biases, and the bias that is to be added to the recurrent product alone.
    fn gates(&self, node: &mut NodeContext<'_, '_>, x: ValueRef) -> Result<(ValueRef, Option<ValueRef>), Fault> {
        let both = self.way == Way::Both;
        let width = self.layer.hidden.saturating_mul(self.layer.cell.gates());
        // One product for both directions.
        let w = if both { node.helper("weights", Flatten { axis: 2 }, [self.w])? } else { self.w };
        let mut gates = node.helper("input", MatMul::new(false, true), [x, w])?;
        let mut recurrent = None;
        if let Some(bias) = self.b {
            let [of_input, of_state] = split(node, bias, self.axis(), &[width, width])?[..] else {
                return Err(Fault::Unsupported("its bias has another size".to_owned()));
            };
            let mut bias = of_input;
            if matches!(self.layer.cell, Cell::Gru { reset_after: true }) {
                recurrent = Some(self.row(node, of_state)?);
            } else {
                bias = node.helper("bias", Op::Binary(BinaryOp::Add), [of_input, of_state])?;
            }
            if both {
                bias = node.helper("bias", Flatten { axis: 0 }, [bias])?;
            }
            gates = node.helper("biased", Op::Binary(BinaryOp::Add), [gates, bias])?;
        }
        if both {
            let [forward, backward] = split(node, gates, -1, &[width, width])?[..] else {
                return Err(Fault::Unsupported("its gates have another size".to_owned()));
            };
            gates = self.pair(node, [forward, backward])?;
        }
        Ok((gates, recurrent))
    }

    /// A vector of each direction so that it broadcasts over the batch.
    fn row(&self, node: &mut NodeContext<'_, '_>, vectors: ValueRef) -> Result<ValueRef, Fault> {
        match self.way {
            Way::Both => node.helper("row", Unsqueeze { axes: Some(Ints::from_slice(&[1])) }, [vectors]),
            _ => Ok(vectors),
        }
    }

    /// What both directions read of all time steps, in the order in which they read it.
    fn pair(&self, node: &mut NodeContext<'_, '_>, [forward, backward]: [ValueRef; 2]) -> Result<ValueRef, Fault> {
        let backward = turned(node, backward)?;
        stack(node, &[forward, backward], 1, None)
    }
}

/// A value with its time steps in reverse order.
fn turned(node: &mut NodeContext<'_, '_>, value: ValueRef) -> Result<ValueRef, Fault> {
    let [start, end, axis, step] = [-1, i64::MIN, 0, -1].map(|bound| node.ints_part("turned", &[bound]));
    let slice = Slice { axes: None, starts: None, ends: None, steps: None };
    node.helper("turned", slice, [value, start?, end?, axis?, step?])
}
