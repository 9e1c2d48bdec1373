//! Arithmetic on axes that are known only at run time.

use trt_fuse_ir::op::{BinaryOp, UnaryOp};
use trt_fuse_ir::{DType, ValueRef};

use crate::formula::Formula;
use crate::pass::Miss;

/// Whether each of `rank` axes is named by input 1 of the node, a vector of `count`: a vector of booleans.
pub(crate) fn named_axes(f: &mut Formula<'_>, rank: usize, count: usize) -> Result<ValueRef, Miss> {
    let axes = f.input(1)?;
    let axes = if f.info(1)?.dtype == DType::I64 { axes } else { f.cast(axes, DType::I64) };
    let axes = f.with_number(BinaryOp::Mod, axes, DType::I64, rank as f64)?;
    let numbers = f.ints(&(0..rank as i64).collect::<Vec<_>>());
    let mut named = None;
    for at in 0..count as i64 {
        let axis = f.cut(axes, at, at + 1);
        let here = f.binary(BinaryOp::Equal, numbers, axis);
        named = Some(match named {
            Some(others) => f.binary(BinaryOp::Or, others, here),
            None => here,
        });
    }
    named.ok_or(Miss::NoMatch)
}

/// The sizes of the axes that are not named, in order: a vector of `rank - count`.
pub(crate) fn unnamed_dims(
    f: &mut Formula<'_>,
    named: ValueRef,
    dims: ValueRef,
    rank: usize,
    count: usize,
) -> Result<ValueRef, Miss> {
    let kept = f.unary(UnaryOp::Not, named);
    let kept = f.cast(kept, DType::I64);
    let zero = f.ints(&[0]);
    let mut place = zero;
    let mut sizes = vec![None; rank.saturating_sub(count)];
    for axis in 0..rank {
        let is_kept = f.cut(kept, axis as i64, axis as i64 + 1);
        let size = f.cut(dims, axis as i64, axis as i64 + 1);
        let size = f.binary(BinaryOp::Mul, size, is_kept);
        // No more than `count` axes before this one are left out, so that its place is one of few.
        let first = axis.saturating_sub(count);
        let places = sizes.iter_mut().enumerate().take(axis + 1).skip(first);
        let is_told = places.len() == 1;
        for (at, sum) in places {
            let part = if is_told {
                size
            } else {
                let is_here = f.with_number(BinaryOp::Equal, place, DType::I64, at as f64)?;
                f.select(is_here, size, zero)
            };
            *sum = Some(match *sum {
                Some(sum) => f.binary(BinaryOp::Add, sum, part),
                None => part,
            });
        }
        place = f.binary(BinaryOp::Add, place, is_kept);
    }
    let sizes: Vec<ValueRef> = sizes.into_iter().flatten().collect();
    Ok(if sizes.is_empty() { f.ints(&[]) } else { f.concat(&sizes, 0) })
}
