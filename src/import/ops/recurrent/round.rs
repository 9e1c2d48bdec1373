//! One time step of a recurrent layer: the gates and the next states.

use trt_fuse_ir::attr::F32;
use trt_fuse_ir::op::{Activation, BinaryOp, MatMul};
use trt_fuse_ir::{DType, Op, ValueRef};

use super::functions::Function;
use super::walk::Walk;
use super::{Cell, split};
use crate::import::node::{Fault, NodeContext};

/// The values that the body of the scan takes from outside, as the body sees them.
#[derive(Debug, Default)]
pub(super) struct Inside {
    /// Recurrent weights of all gates; those of a GRU's last gate apart where the reset gate comes before.
    pub(super) r: Vec<ValueRef>,
    /// Bias of the recurrent product, where it is not added beforehand.
    pub(super) bias: Option<ValueRef>,
    /// Peepholes of the input, output and forget gates.
    pub(super) peepholes: Vec<ValueRef>,
}

impl Walk<'_> {
    /// One time step: the next states, and the row of Y.
    pub(super) fn round(
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
