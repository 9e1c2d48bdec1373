//! Operators on images that are others in disguise: crops, unpooling, sampling grids.

use trt_fuse_ir::op::{Expand, MatMul, Pad, PadMode, Reshape, ScatterElements, ScatterReduction, Slice, UnaryOp};
use trt_fuse_ir::{Dim, Ints, Op, Shape};

use super::Row;
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::formula::{front_axis, to_shape};
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[
    Row::new("AffineGrid", (2, 2), 1, affine_grid),
    Row::new("CenterCropPad", (2, 2), 1, center_crop_pad),
    Row::new("MaxUnpool", (2, 3), 1, max_unpool),
];

/// Sizes that an input holds: known ones, else those that the model states of the output's axes that `stated` picks.
pub(super) fn sizes(
    node: &mut NodeContext<'_, '_>,
    slot: usize,
    stated: impl Fn(&[Dim]) -> Option<Vec<Dim>>,
) -> Result<Vec<Dim>, Fault> {
    let known = node.input_info(slot)?.known_elements();
    let known = known.or_else(|| stated(&node.stated_dims(0)?));
    known.ok_or_else(|| Fault::Unsupported(format!("the sizes of input {slot} are known only at run time")))
}

/// Zeros at the beginning and at the end of each axis, before and after in this order.
pub(super) fn zero_padding(pads: Ints) -> Pad {
    Pad { mode: PadMode::Constant, pads: Some(pads) }
}

/// The middle of each axis, or zeros around it.
fn center_crop_pad(node: &mut NodeContext<'_, '_>) -> Imported {
    let (data, shape) = (node.required(0)?, node.shape(0)?);
    let rank = shape.len();
    let axes: Vec<usize> = match node.attrs.ints("axes")? {
        None => (0..rank).collect(),
        Some(axes) => axes.iter().map(|axis| front_axis("axes", *axis, rank)).collect::<Result<_, _>>()?,
    };
    let wanted = sizes(node, 1, |dims| axes.iter().map(|axis| dims.get(*axis).cloned()).collect())?;
    if wanted.len() != axes.len() {
        let reason = format!("{} sizes found for {} axes", wanted.len(), axes.len());
        return Err(ImportError::Operands { reason }.into());
    }
    for size in wanted.iter().filter_map(Dim::value) {
        let size = u64::try_from(size).map_err(|_| ImportError::Operands { reason: format!("a size of {size}") })?;
        node.importer.limits.check_elements(size, &node.name)?;
    }
    let mut pads = Ints::from_elem(0, 2 * rank);
    let (mut cut, mut starts, mut ends) = (Ints::new(), Shape::new(), Shape::new());
    for (axis, wanted) in axes.iter().zip(&wanted) {
        let Some(size) = shape.get(*axis) else { continue };
        let more = wanted - size;
        if let Some(more) = more.value().filter(|more| *more >= 0) {
            for (at, count) in [(*axis, more / 2), (*axis + rank, more - more / 2)] {
                if let Some(pad) = pads.get_mut(at) {
                    *pad = count;
                }
            }
        } else if (-&more).at_least(0) {
            let start = (-&more).floor_div(&Dim::fixed(2)).unwrap_or(Dim::fixed(0));
            cut.push(*axis as i64);
            ends.push(&start + wanted);
            starts.push(start);
        } else {
            let reason =
                format!("whether axis {axis} of {size} is cut or padded to {wanted} is known only at run time");
            return Err(Fault::Unsupported(reason));
        }
    }
    let steps = Some(Ints::from_elem(1, cut.len()));
    let is_cut = !cut.is_empty();
    let slice = Slice { axes: Some(cut), starts: Some(starts), ends: Some(ends), steps };
    match (is_cut, pads.iter().any(|pad| *pad != 0)) {
        (false, false) => node.emit(Op::Unary(UnaryOp::Identity), [Some(data)]),
        (true, false) => node.emit(slice, [Some(data)]),
        (false, true) => node.emit(zero_padding(pads), [Some(data)]),
        (true, true) => {
            let middle = node.helper("middle", slice, [data])?;
            node.emit(zero_padding(pads), [Some(middle)])
        }
    }
}

/// Zeros, with each element at the flat index that its maximum had.
fn max_unpool(node: &mut NodeContext<'_, '_>) -> Imported {
    let (data, indices, shape, dtype) = (node.required(0)?, node.required(1)?, node.shape(0)?, node.dtype(0)?);
    let kernel = node.attrs.ints("kernel_shape")?.ok_or_else(|| fault("kernel_shape", "it is missing"))?;
    let axes = kernel.len();
    if shape.len() != axes + 2 {
        return Err(fault("kernel_shape", format!("{axes} sizes found for rank {}", shape.len())).into());
    }
    let strides = node.attrs.ints_of("strides", axes, 1, 1)?;
    let pads = node.attrs.ints_of("pads", 2 * axes, 0, 0)?;
    let mut pooled: Shape = shape.iter().take(2).cloned().collect();
    for (axis, (size, side)) in shape.iter().skip(2).zip(&kernel).enumerate() {
        let at = |list: &[i64], axis: usize| Dim::fixed(list.get(axis).copied().unwrap_or(0));
        let outside = at(&pads, axis) + at(&pads, axis + axes);
        pooled.push((size - &Dim::fixed(1)) * at(&strides, axis) + Dim::fixed(*side) - outside);
    }
    let wanted: Option<Shape> = match node.input(2) {
        None => None,
        Some(_) => Some(sizes(node, 2, |dims| Some(dims.to_vec()))?.into_iter().collect()),
    };
    let count = Dim::product(&shape);
    let zero = node.numbers_part("zero", dtype, &[1], &[0.0])?;
    let zeros = Expand { shape: Some(Shape::from_elem(Dim::product(&pooled), 1)) };
    let zeros = node.helper("zeros", zeros, [zero])?;
    let indices = node.reshape("indices", indices, [count.clone()])?;
    let updates = node.reshape("maxima", data, [count])?;
    let scatter = ScatterElements { axis: 0, reduction: ScatterReduction::None };
    let unpooled = node.helper("unpooled", scatter, [zeros, indices, updates])?;
    let reshape: Reshape = to_shape(pooled.iter().cloned());
    let Some(wanted) = wanted.filter(|wanted| *wanted != pooled) else {
        return node.emit(reshape, [Some(unpooled)]);
    };
    let more = |(wanted, pooled): (&Dim, &Dim)| (wanted - pooled).value().filter(|more| *more >= 0);
    let more: Option<Vec<i64>> = wanted.iter().zip(&pooled).map(more).collect();
    let Some(more) = more.filter(|more| more.len() == pooled.len()) else {
        return Err(Fault::Unsupported("its output_shape is not surely as large as the unpooled data".to_owned()));
    };
    let pads = std::iter::repeat_n(0, pooled.len()).chain(more).collect();
    let unpooled = node.helper("image", reshape, [unpooled])?;
    node.emit(zero_padding(pads), [Some(unpooled)])
}

/// The positions of a grid between -1 and 1, as rows `(x, y, 1)`, times the transposed matrices.
fn affine_grid(node: &mut NodeContext<'_, '_>) -> Imported {
    let align_corners = node.attrs.flag("align_corners", false)?;
    let (theta, dtype) = (node.required(0)?, node.dtype(0)?);
    // `[N, C, H, W]`, or the output's `[N, H, W, 2]`.
    let between = |dims: &[Dim]| Some(dims.get(1..dims.len().checked_sub(1)?)?.to_vec());
    let size = match node.input_info(1)?.known_elements() {
        Some(size) => size.get(2..).map(<[Dim]>::to_vec).unwrap_or_default(),
        None => sizes(node, 1, between)?,
    };
    let sides: Option<Vec<usize>> = size.iter().map(|side| usize::try_from(side.value()?).ok()).collect();
    let Some(sides) = sides.filter(|sides| matches!(sides.len(), 2 | 3)) else {
        return Err(Fault::Unsupported("the sizes of its grid are known only at run time".to_owned()));
    };
    let count = sides.iter().try_fold(1_usize, |count, side| count.checked_mul(*side));
    let count = count.filter(|count| *count <= MAX_GRID).ok_or_else(|| {
        Fault::Unsupported(format!("a grid of {sides:?} is larger than constants made for it may be"))
    })?;
    let coordinate = |at: usize, side: usize| match (align_corners, side) {
        (true, 1) => 0.0,
        (true, side) => 2.0 * at as f64 / (side - 1) as f64 - 1.0,
        (false, side) => (2 * at + 1) as f64 / side as f64 - 1.0,
    };
    let mut rows = Vec::with_capacity(count * (sides.len() + 1));
    for flat in 0..count {
        // The last axis is x.
        let mut rest = flat;
        for side in sides.iter().rev() {
            rows.push(coordinate(rest % side, *side));
            rest /= side;
        }
        rows.push(1.0);
    }
    let rows = node.numbers_part("positions", dtype, &[1, count, sides.len() + 1], &rows)?;
    let op = MatMul::new(false, true);
    let grid = node.helper("sampled", op, [rows, theta])?;
    let batch = node.shape(0)?.first().cloned().unwrap_or(Dim::fixed(1));
    let coordinates = Dim::from(sides.len());
    let shape = std::iter::once(batch).chain(sides.into_iter().map(Dim::from)).chain([coordinates]);
    node.emit(to_shape(shape), [Some(grid)])
}

/// Most positions of a grid that is written out.
const MAX_GRID: usize = 1 << 24;
