//! Losses, in plain arithmetic.

use trt_fuse_ir::op::{BinaryOp, GatherElements, Reduce, ReduceKind, Softmax, UnaryOp};
use trt_fuse_ir::{Op, ValueRef};

use super::Row;
use crate::import::attrs::fault;
use crate::import::node::{Fault, Imported, NodeContext, Outputs, index_tensor};

pub(super) const ROWS: &[Row] = &[
    Row::new("NegativeLogLikelihoodLoss", (2, 3), 1, negative_log_likelihood),
    Row::new("SoftmaxCrossEntropyLoss", (2, 3), 2, softmax_cross_entropy),
];

/// The axis of classes.
const CLASSES: i64 = 1;

fn negative_log_likelihood(node: &mut NodeContext<'_, '_>) -> Imported {
    let log_probabilities = node.required(0)?;
    Ok([loss(node, log_probabilities)?].into_iter().collect())
}

fn softmax_cross_entropy(node: &mut NodeContext<'_, '_>) -> Imported {
    let scores = node.required(0)?;
    let log_probabilities = node.output(1, Softmax { axis: CLASSES, log: true }, [scores])?;
    let loss = loss(node, log_probabilities)?;
    let mut outputs = Outputs::from_iter([loss]);
    if node.outputs.len() > 1 {
        outputs.push(log_probabilities);
    }
    Ok(outputs)
}

/// The loss of log-probabilities `[N, C, ...]` for the classes `[N, ...]` of input 1, with the weights `[C]` of input 2.
fn loss(node: &mut NodeContext<'_, '_>, log_probabilities: ValueRef) -> Result<ValueRef, Fault> {
    let words = [("mean", Some(ReduceKind::Mean)), ("sum", Some(ReduceKind::Sum)), ("none", None)];
    let reduction = node.attrs.choice("reduction", &words)?;
    let (dtype, rank) = (node.dtype(0)?, node.rank(1)?);
    let mut classes = node.required(1)?;
    // Where samples are ignored: their class may be no index at all, their loss and weight are 0.
    let mut ignored = None;
    if let Some(class) = node.attrs.int("ignore_index")? {
        let index_dtype = node.dtype(1)?;
        let class = index_tensor(index_dtype, &[], &[class])
            .ok_or_else(|| fault("ignore_index", format!("{class} does not fit {index_dtype}")))?;
        let class = node.constant_part("ignore_index", class)?;
        let is_ignored = node.binary("ignored", BinaryOp::Equal, classes, class)?;
        let first = node.scalar_part("first_class", index_dtype, 0.0)?;
        classes = node.select("classes", is_ignored, first, classes)?;
        ignored = Some(is_ignored);
    }
    let column = node.unsqueeze("column", classes, &[CLASSES])?;
    let picked = node.helper("picked", GatherElements { axis: CLASSES }, [log_probabilities, column])?;
    let picked = node.squeeze("log_probability", picked, &[CLASSES])?;
    let weights = match node.input(2) {
        Some(weights) => Some(node.gather("weight", weights, classes, 0)?),
        None => None,
    };

    let zero = node.scalar_part("zero", dtype, 0.0)?;
    // Steps from the log-probability to the loss of each sample, the output itself where nothing is reduced.
    let mut steps: Vec<(Op, Vec<ValueRef>)> = vec![(Op::Unary(UnaryOp::Neg), Vec::new())];
    steps.extend(weights.map(|weights| (Op::Binary(BinaryOp::Mul), vec![weights])));
    steps.extend(ignored.map(|ignored| (Op::Where, vec![ignored, zero])));
    let count = steps.len();
    let mut losses = picked;
    for (at, (op, mut inputs)) in steps.into_iter().enumerate() {
        inputs.push(losses);
        losses = match reduction {
            None if at + 1 == count => node.output(0, op, inputs)?,
            _ => node.helper("loss", op, inputs)?,
        };
    }
    let Some(kind) = reduction else { return Ok(losses) };

    let axes: Vec<i64> = (0..rank as i64).collect();
    let total = |kind| crate::import::formula::reduction(kind, &axes, false);
    let averaged: Option<ValueRef> = match (kind, weights, ignored) {
        (ReduceKind::Mean, Some(weights), None) => Some(weights),
        (ReduceKind::Mean, weights, Some(ignored)) => {
            let counted = match weights {
                Some(weights) => weights,
                None => node.scalar_part("one", dtype, 1.0)?,
            };
            Some(node.select("counted", ignored, zero, counted)?)
        }
        _ => None,
    };
    let Some(weights) = averaged else { return node.output(0, total(kind), [losses]) };
    let sum: Reduce = total(ReduceKind::Sum);
    let loss = node.helper("sum", sum.clone(), [losses])?;
    let weight = node.helper("total_weight", sum, [weights])?;
    node.output(0, Op::Binary(BinaryOp::Div), [loss, weight])
}
