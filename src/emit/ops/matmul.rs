//! Matrix products.

use trt_fuse_ir::op::{Einsum, MatMul};

use super::super::error::EmitError;
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::MatrixOp;
use super::conv::epilogue;

pub(super) fn matmul<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &MatMul,
) -> Result<S::Tensor, EmitError> {
    let (rank_a, rank_b) = (site.rank(0)?, site.rank(1)?);
    // A vector has one axis less than the batch that it is multiplied in.
    let batch = rank_a.saturating_sub(2).max(rank_b.saturating_sub(2));
    let mut operand = |slot: usize, rank: usize, transpose: bool| {
        let (rank, kind) = match (rank, transpose) {
            (1, _) => (batch + 1, MatrixOp::Vector),
            (_, true) => (batch + 2, MatrixOp::Transpose),
            (_, false) => (batch + 2, MatrixOp::None),
        };
        site.aligned(slot, rank).map(|tensor| (tensor, kind))
    };
    let a = operand(0, rank_a, op.transpose_a)?;
    let b = operand(1, rank_b, op.transpose_b)?;
    let y = site.layer("", |sink, label| sink.matrix_multiply(label, a, b))?;
    epilogue(site, y, &op.epilogue, 2)
}

pub(super) fn einsum<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    op: &Einsum,
) -> Result<S::Tensor, EmitError> {
    let mut inputs = Vec::new();
    for slot in 0..site.node.arity as usize {
        inputs.push(site.tensor(slot)?);
    }
    site.layer("", |sink, label| sink.einsum(label, &inputs, &op.equation))
}
