//! Control flow. What a body captures from outside is an input of the node and of the body, so captures are edges.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use smallvec::SmallVec;

use super::{Ints, UnaryOp};
use crate::attr::{Attr, AttrValue};
use crate::attributes;
use crate::{Graph, Op, OpKind};

/// The bodies of an operator.
pub type Bodies = SmallVec<[Body; 2]>;

/// A subgraph. Two are equal only if they are the same one.
#[derive(Clone)]
pub struct Body(pub Arc<Graph>);

impl PartialEq for Body {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Body {}

impl Hash for Body {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.name().hash(state);
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl AttrValue for Body {
    fn to_attr(&self) -> Option<Attr> {
        Some(Attr::Word(format!("{}", self.0).into()))
    }

    fn from_attr(attr: Option<&Attr>) -> Result<Self, String> {
        match attr {
            Some(Attr::Word(text)) => {
                text.parse().map(|graph| Body(Arc::new(graph))).map_err(|error| format!("body: {error}"))
            }
            _ => Err("a body expected".to_string()),
        }
    }
}

attributes! {
    /// ONNX `If`. Inputs: condition (one Bool), captures. Both bodies take all captures, in the node's order.
    pub struct If {
        /// Taken if the condition holds.
        then_branch: Body,
        /// Taken if not.
        else_branch: Body,
    }
}

attributes! {
    /// ONNX `Loop`. Inputs: trip count or an empty slot, condition or an empty slot, carried values, captures. The
    /// body takes iteration number, condition, carried values, captures, and gives condition, carried values, scan
    /// outputs; the node gives the final carried values and the scan outputs stacked.
    pub struct Loop {
        /// What is repeated.
        body: Body,
        /// Number of carried values.
        carried: usize,
    }
}

attributes! {
    /// ONNX `Scan` of opset 9. Inputs: carried values, scan inputs, captures. The body takes carried values, one slice
    /// of each scan input, captures, and gives carried values and scan outputs.
    pub struct Scan {
        /// What is repeated.
        body: Body,
        /// Number of scan inputs.
        scan_inputs: usize,
        /// Number of carried values.
        carried: usize,
        /// Axis of each scan input.
        input_axes: Ints,
        /// Axis of each scan output.
        output_axes: Ints,
        /// Nonzero where a scan input is walked from the end.
        input_reversed: Ints,
        /// Nonzero where a scan output is filled from the end.
        output_reversed: Ints,
    }
}

impl Loop {
    /// Whether the body itself never ends the loop: it hands its condition on, or gives one that always holds.
    pub fn always_continues(&self) -> bool {
        let body = &self.body.0;
        let Some(output) = body.outputs().first() else { return false };
        let mut condition = output.value;
        while matches!(body.op(condition.node), Some(Op::Unary(UnaryOp::Identity))) {
            let Some(source) = body.input(condition.node, 0) else { return false };
            condition = source;
        }
        let handed_on = body.inputs().get(1).is_some_and(|id| *id == condition.node);
        handed_on || body.info(condition).and_then(|info| info.known_ints()).is_some_and(|all| all == [1])
    }
}

/// The operators that have [`bodies`](Op::bodies).
pub const WITH_BODIES: [OpKind; 3] = [OpKind::If, OpKind::Loop, OpKind::Scan];

impl Op {
    /// The bodies of control flow, in the order of [`with_bodies`](Self::with_bodies); none for any other operator.
    pub fn bodies(&self) -> Bodies {
        match self {
            Op::If(op) => SmallVec::from_iter([op.then_branch.clone(), op.else_branch.clone()]),
            Op::Loop(op) => SmallVec::from_iter([op.body.clone()]),
            Op::Scan(op) => SmallVec::from_iter([op.body.clone()]),
            _ => Bodies::new(),
        }
    }

    /// The same operator with other bodies; `None` if their number is another.
    pub fn with_bodies(&self, bodies: &[Body]) -> Option<Op> {
        Some(match (self, bodies) {
            (Op::If(_), [then_branch, else_branch]) => {
                If { then_branch: then_branch.clone(), else_branch: else_branch.clone() }.into()
            }
            (Op::Loop(op), [body]) => Loop { body: body.clone(), ..op.clone() }.into(),
            (Op::Scan(op), [body]) => Scan { body: body.clone(), ..Scan::clone(op) }.into(),
            _ => return None,
        })
    }

    /// The first input slot that is a capture, and the body's input that it is; those after it go in step.
    pub fn first_capture(&self) -> Option<(usize, usize)> {
        match self {
            Op::If(_) => Some((1, 0)),
            Op::Loop(op) => Some(op.carried.saturating_add(2)).map(|first| (first, first)),
            Op::Scan(op) => Some(op.carried.saturating_add(op.scan_inputs)).map(|first| (first, first)),
            _ => None,
        }
    }
}
