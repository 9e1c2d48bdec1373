//! Operators of ONNX's own domain, by family.
//!
//! A family lists its operators as [`Row`]s: how many inputs and outputs ONNX allows in any opset, and the function that
//! adds a node in its internal form. What differs between opsets, the function asks of the context. A function that
//! says [`Fault::Unsupported`](super::node::Fault) has added nothing that matters; the node becomes opaque.

mod activation;
mod attention;
mod col2im;
mod control;
mod conv;
mod index;
mod linear_attention;
mod loss;
mod math;
mod movement;
mod norm;
mod pool;
mod qlinear;
mod quant;
mod random;
mod recurrent;
mod reduce;
mod sampling;
mod shape;
mod signal;
mod spatial;
mod unique;
mod vision;

use std::collections::BTreeSet;
use std::sync::LazyLock;

use rustc_hash::FxHashMap;

use super::error::qualified;
use super::node::{Imported, NodeContext};

/// As many as one likes.
const ANY: usize = usize::MAX;

/// An operator.
#[derive(Debug)]
pub(crate) struct Row {
    /// Its type.
    name: &'static str,
    /// Number of inputs that must be there, and largest number with those that may be left out.
    pub inputs: (usize, usize),
    /// Largest number of outputs.
    pub outputs: usize,
    /// Adds a node.
    pub import: fn(&mut NodeContext<'_, '_>) -> Imported,
}

impl Row {
    const fn new(
        name: &'static str,
        inputs: (usize, usize),
        outputs: usize,
        import: fn(&mut NodeContext<'_, '_>) -> Imported,
    ) -> Self {
        Self { name, inputs, outputs, import }
    }

    /// The numbers of inputs allowed, in words.
    pub(crate) fn expected_inputs(&self) -> String {
        match self.inputs {
            (least, ANY) => format!("at least {least}"),
            (least, most) if least == most => least.to_string(),
            (least, most) => format!("{least} to {most}"),
        }
    }
}

static ROWS: LazyLock<FxHashMap<&'static str, &'static Row>> = LazyLock::new(|| {
    let families = [
        activation::ROWS,
        activation::WITH_FLOATS,
        col2im::ROWS,
        attention::ROWS,
        control::ROWS,
        conv::ROWS,
        index::ROWS,
        linear_attention::ROWS,
        loss::ROWS,
        math::BINARY,
        math::ROWS,
        math::UNARY,
        movement::ROWS,
        norm::ROWS,
        pool::ROWS,
        qlinear::ROWS,
        quant::ROWS,
        random::ROWS,
        recurrent::ROWS,
        reduce::REDUCTIONS,
        reduce::ROWS,
        sampling::ROWS,
        shape::ROWS,
        signal::ROWS,
        spatial::ROWS,
        unique::ROWS,
        vision::ROWS,
    ];
    families.into_iter().flatten().map(|row| (row.name, row)).collect()
});

/// ONNX's domain of operators that are not settled yet.
const PREVIEW: &str = "ai.onnx.preview";

/// Domains with operators that have an internal form; ONNX's own is empty.
pub(crate) const DOMAINS: &[&str] = &["", PREVIEW];

/// The types of all operators, those of other domains than ONNX's own as `domain::type`.
pub(crate) fn names() -> BTreeSet<String> {
    let own = ROWS.keys().map(ToString::to_string);
    own.chain(linear_attention::PREVIEW.iter().map(|row| qualified(PREVIEW, row.name))).collect()
}

/// The operator of a type, if it has an internal form.
pub(crate) fn find(domain: &str, op_type: &str) -> Option<&'static Row> {
    match domain {
        PREVIEW => linear_attention::PREVIEW.iter().find(|row| row.name == op_type),
        _ => ROWS.get(op_type).copied(),
    }
}
