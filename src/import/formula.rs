//! Shorthands for the operators that importers build formulas from.
//!
//! Each adds one helper, named after the node and `part`. What would change nothing adds nothing.

use half::{bf16, f16};
use smallvec::SmallVec;
use trt_fuse_ir::op::{
    BinaryOp, Cast, Concat, Gather, Reduce, ReduceKind, Reshape, ShapeOf, Slice, Squeeze, Transpose, UnaryOp, Unsqueeze,
};
use trt_fuse_ir::{DType, Dim, Ints, Op, Shape, Tensor, ValueRef};

use super::attrs::fault;
use super::node::{Fault, NodeContext};

/// Most indices that are written out; more are counted by the network.
const MAX_INDICES: i64 = 1 << 20;

/// What a shorthand gives.
pub(crate) type Part = Result<ValueRef, Fault>;

/// A reduction over `axes`.
pub(crate) fn reduction(kind: ReduceKind, axes: &[i64], keep_dims: bool) -> Reduce {
    Reduce { kind, axes: Some(Ints::from_slice(axes)), keep_dims, noop_if_empty: true }
}

/// The part `start..end` of an axis that counts from the front, bounds inside of it.
pub(crate) fn cut(axis: usize, start: Dim, end: Dim) -> Slice {
    Slice {
        axes: Some(Ints::from_elem(axis as i64, 1)),
        starts: Some(Shape::from_elem(start, 1)),
        ends: Some(Shape::from_elem(end, 1)),
        steps: Some(Ints::from_elem(1, 1)),
    }
}

/// A reshape to dimensions all of which are given.
pub(crate) fn to_shape(shape: impl IntoIterator<Item = Dim>) -> Reshape {
    Reshape { shape: Some(shape.into_iter().collect()), allow_zero: false }
}

/// Numbers rounded to a float type; `None` for other types, and if there are not as many as the dimensions say.
pub(crate) fn numbers(dtype: DType, dims: &[usize], values: &[f64]) -> Option<Tensor> {
    match dtype {
        DType::F64 => Tensor::from_vec(dims, values.to_vec()),
        DType::F32 => Tensor::from_vec(dims, values.iter().map(|value| *value as f32).collect()),
        DType::F16 => Tensor::from_vec(dims, values.iter().map(|value| f16::from_f64(*value)).collect()),
        DType::BF16 => Tensor::from_vec(dims, values.iter().map(|value| bf16::from_f64(*value)).collect()),
        _ => return None,
    }
    .ok()
}

/// An axis counted from the front.
///
/// # Errors
/// If the rank does not have it.
pub(crate) fn front_axis(attribute: &str, axis: i64, rank: usize) -> Result<usize, Fault> {
    let signed = i64::try_from(rank).unwrap_or(i64::MAX);
    let at = if axis < 0 { axis.saturating_add(signed) } else { axis };
    let inside = usize::try_from(at).ok().filter(|at| *at < rank);
    inside.ok_or_else(|| fault(attribute, format!("{axis} is outside of rank {rank}")).into())
}

impl NodeContext<'_, '_> {
    /// The dimensions of an input that must be there.
    ///
    /// # Errors
    /// Unsupported if inference does not know how many there are.
    pub(crate) fn shape(&self, slot: usize) -> Result<Shape, Fault> {
        let shape = self.input_info(slot)?.shape;
        shape.ok_or_else(|| Fault::Unsupported(format!("the rank of input {slot} is not known")))
    }

    /// One operator of one input.
    pub(crate) fn unary(&mut self, part: &str, op: UnaryOp, x: ValueRef) -> Part {
        self.helper(part, Op::Unary(op), [x])
    }

    /// One operator of two inputs, broadcast.
    pub(crate) fn binary(&mut self, part: &str, op: BinaryOp, a: ValueRef, b: ValueRef) -> Part {
        self.helper(part, Op::Binary(op), [a, b])
    }

    /// Numbers as a constant of `dims`, rounded to a float type.
    ///
    /// # Errors
    /// Unsupported for types that are no floats of 16 bits or more.
    pub(crate) fn numbers_part(&mut self, part: &str, dtype: DType, dims: &[usize], values: &[f64]) -> Part {
        let tensor = numbers(dtype, dims, values);
        let tensor = tensor.ok_or_else(|| Fault::Unsupported(format!("it computes in {dtype}")))?;
        self.constant_part(part, tensor)
    }

    /// An operator of a value and a number of the value's type.
    pub(crate) fn with_number(&mut self, part: &str, op: BinaryOp, a: ValueRef, b: f64) -> Part {
        let dtype = self.info(a).dtype;
        let b = self.scalar_part(&format!("{part}.by"), dtype, b)?;
        self.binary(part, op, a, b)
    }

    /// `b` where `condition` is true, else `c`.
    pub(crate) fn select(&mut self, part: &str, condition: ValueRef, b: ValueRef, c: ValueRef) -> Part {
        self.helper(part, Op::Where, [condition, b, c])
    }

    /// A conversion.
    pub(crate) fn cast(&mut self, part: &str, x: ValueRef, to: DType) -> Part {
        if self.info(x).dtype == to {
            return Ok(x);
        }
        self.helper(part, Cast::new(to), [x])
    }

    /// Other dimensions, all given.
    pub(crate) fn reshape(&mut self, part: &str, x: ValueRef, shape: impl IntoIterator<Item = Dim>) -> Part {
        let op = to_shape(shape);
        if op.shape.is_some() && self.info(x).shape == op.shape {
            return Ok(x);
        }
        self.helper(part, op, [x])
    }

    /// Another order of axes.
    pub(crate) fn transpose(&mut self, part: &str, x: ValueRef, perm: &[usize]) -> Part {
        if perm.iter().enumerate().all(|(to, from)| to == *from) {
            return Ok(x);
        }
        let perm = perm.iter().map(|axis| *axis as i64).collect();
        self.helper(part, Transpose { perm }, [x])
    }

    /// With axes of size 1 at these places of the output.
    pub(crate) fn unsqueeze(&mut self, part: &str, x: ValueRef, axes: &[i64]) -> Part {
        self.helper(part, Unsqueeze { axes: Some(Ints::from_slice(axes)) }, [x])
    }

    /// Without these axes of size 1.
    pub(crate) fn squeeze(&mut self, part: &str, x: ValueRef, axes: &[i64]) -> Part {
        self.helper(part, Squeeze { axes: Some(Ints::from_slice(axes)) }, [x])
    }

    /// The part `start..end` of an axis, bounds inside of it.
    pub(crate) fn slice(&mut self, part: &str, x: ValueRef, axis: usize, start: Dim, end: Dim) -> Part {
        let whole = self.info(x).shape.and_then(|shape| shape.get(axis).map(|size| start.is(0) && *size == end));
        if whole == Some(true) {
            return Ok(x);
        }
        self.helper(part, cut(axis, start, end), [x])
    }

    /// Joined along an axis.
    pub(crate) fn concat(&mut self, part: &str, axis: usize, values: &[ValueRef]) -> Part {
        match values {
            [value] => Ok(*value),
            values => self.helper(part, Concat { axis: axis as i64 }, values.iter().copied()),
        }
    }

    /// A reduction over `axes`.
    pub(crate) fn reduce(&mut self, part: &str, kind: ReduceKind, x: ValueRef, axes: &[i64], keep_dims: bool) -> Part {
        self.helper(part, reduction(kind, axes, keep_dims), [x])
    }

    /// Slices of an axis, by index.
    pub(crate) fn gather(&mut self, part: &str, x: ValueRef, indices: ValueRef, axis: usize) -> Part {
        self.helper(part, Gather { axis: axis as i64 }, [x, indices])
    }

    /// The size of one axis, a scalar i64.
    pub(crate) fn size_of(&mut self, part: &str, x: ValueRef, axis: usize) -> Part {
        let axis = axis as i64;
        let size = self.helper(part, ShapeOf { start: axis, end: Some(axis + 1) }, [x])?;
        self.reshape(&format!("{part}.scalar"), size, [])
    }

    /// `[0, 1, .., count - 1]`, where `count` is a scalar integer.
    pub(crate) fn count_up(&mut self, part: &str, count: ValueRef) -> Part {
        let dtype = self.info(count).dtype;
        let start = self.scalar_part(&format!("{part}.start"), dtype, 0.0)?;
        let step = self.scalar_part(&format!("{part}.step"), dtype, 1.0)?;
        self.helper(part, Op::Range, [start, count, step])
    }

    /// The indices of an axis, a vector of i64.
    pub(crate) fn indices_of(&mut self, part: &str, x: ValueRef, axis: usize) -> Part {
        let size = self.info(x).shape.and_then(|shape| shape.get(axis)?.value());
        match size.filter(|size| *size <= MAX_INDICES) {
            Some(size) => self.ints_part(part, &(0..size).collect::<Vec<_>>()),
            None => {
                let size = self.size_of(&format!("{part}.size"), x, axis)?;
                self.count_up(part, size)
            }
        }
    }

    /// One output of a node that has several, under its own name.
    pub(crate) fn output(
        &mut self,
        slot: usize,
        op: impl Into<Op>,
        inputs: impl IntoIterator<Item = ValueRef>,
    ) -> Part {
        match self.outputs.get(slot) {
            None => self.helper(&format!("output{slot}"), op, inputs),
            Some(output) => {
                let value = output.name.clone();
                let node = if slot == 0 { self.name.clone() } else { self.importer.names.claim(&value) };
                let inputs = inputs.into_iter().map(Some).collect();
                let values = self.add(op.into(), inputs, node, SmallVec::from_iter([value]))?;
                values.first().copied().ok_or_else(|| Fault::Unsupported("it has no output".to_owned()))
            }
        }
    }
}
