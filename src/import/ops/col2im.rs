//! Columns back to images.

use trt_fuse_ir::op::{BinaryOp, ConvTranspose, ReduceKind, UnaryOp};
use trt_fuse_ir::{DType, Dim, Epilogue, Ints, Op, Padding, ValueRef};

use super::Row;
use super::spatial::{sizes, zero_padding};
use crate::import::ImportError;
use crate::import::formula::Part;
use crate::import::node::{Fault, Imported, NodeContext};

pub(super) const ROWS: &[Row] = &[Row::new("Col2Im", (3, 3), 1, col2im)];

/// How blocks lie on the image.
struct Layout {
    image: Vec<i64>,
    strides: Ints,
    dilations: Ints,
    pads: Ints,
    channels: i64,
}

/// Blocks of one size on it.
struct Placement {
    block: Vec<i64>,
    /// Blocks along each axis.
    counts: Vec<i64>,
    /// The padding that remains, less what the blocks leave over at its end.
    pads: Ints,
    /// What they leave over of the image itself.
    extra: Ints,
}

impl Layout {
    /// `None` if a block is larger than the padded image.
    fn place(&self, block: &[i64]) -> Option<Placement> {
        let axes = block.len();
        let (mut counts, mut pads) = (Vec::new(), self.pads.clone());
        let mut extra = Ints::from_elem(0, 2 * (axes + 2));
        for (axis, side) in block.iter().enumerate() {
            let (stride, dilation, image) =
                (*self.strides.get(axis)?, *self.dilations.get(axis)?, *self.image.get(axis)?);
            let before = *pads.get(axis)?;
            let after = pads.get_mut(axes + axis)?;
            let reach = dilation.checked_mul(side - 1)?.checked_add(1)?;
            let room = image.checked_add(before)?.checked_add(*after)?.checked_sub(reach)?;
            if room < 0 {
                return None;
            }
            counts.push(room / stride + 1);
            let left = room % stride;
            let taken = left.min(*after);
            *after -= taken;
            *extra.get_mut(axes + 2 + 2 + axis)? = left - taken;
        }
        Some(Placement { block: block.to_vec(), counts, pads, extra })
    }
}

/// All ways to write a number as a product of `axes` factors, in order.
fn factors(number: i64, axes: usize) -> Vec<Vec<i64>> {
    match axes {
        0 => Vec::new(),
        1 => vec![vec![number]],
        _ => {
            let first = (1..=number).filter(|side| number % side == 0);
            let with =
                |side: i64| factors(number / side, axes - 1).into_iter().map(move |rest| [vec![side], rest].concat());
            first.flat_map(with).collect()
        }
    }
}

/// The largest block whose possible sides are tried, where run time gives them.
const MAX_AREA: i64 = 1 << 12;

/// Most elements of the kernel that places the columns.
const MAX_KERNEL: i64 = 1 << 26;

/// A block that run time gives is one that makes the image of these columns; where several do, all are computed.
fn col2im(node: &mut NodeContext<'_, '_>) -> Imported {
    let (data, shape) = (node.required(0)?, node.shape(0)?);
    let fixed = |dims: Vec<Dim>| dims.iter().map(Dim::value).collect::<Option<Vec<i64>>>();
    let wrong = |reason: String| Fault::Invalid(ImportError::Operands { reason });
    let at_run_time = |what: &str| Fault::Unsupported(format!("{what} is known only at run time"));
    let image = fixed(sizes(node, 1, |dims| Some(dims.get(2..)?.to_vec()))?);
    let image = image.ok_or_else(|| at_run_time("the size of the image"))?;
    let block = node.input_info(2)?.known_ints();
    let [_, columns, length] = &shape[..] else { return Err(wrong(format!("columns of rank {}", shape.len()))) };
    let columns = columns.value().ok_or_else(|| at_run_time("the number of its channels"))?;
    let axes = image.len();
    let area = |block: &[i64]| block.iter().try_fold(1_i64, |area, side| area.checked_mul(*side));
    let channels = match &block {
        Some(block) => area(block)
            .filter(|area| *area > 0 && block.iter().all(|side| *side > 0))
            .map(|area| if columns % area == 0 { columns / area } else { 0 }),
        None => node.stated_dims(0).and_then(|dims| dims.get(1)?.value()),
    };
    let channels = channels.ok_or_else(|| at_run_time("the size of its blocks"))?;
    if channels < 1 || columns < 1 || columns % channels != 0 || image.iter().any(|size| *size < 1) {
        return Err(wrong(format!("an image of {image:?} from columns of {columns}, blocks of {block:?}")));
    }
    let layout = Layout {
        strides: node.attrs.ints_of("strides", axes, 1, 1)?,
        dilations: node.attrs.ints_of("dilations", axes, 1, 1)?,
        pads: node.attrs.ints_of("pads", 2 * axes, 0, 0)?,
        image,
        channels,
    };
    let blocks = match block {
        Some(block) if block.len() != axes => return Err(wrong(format!("blocks of {block:?} for {axes} axes"))),
        Some(block) => vec![block],
        None if columns / channels > MAX_AREA => return Err(at_run_time("the size of its blocks")),
        None => factors(columns / channels, axes),
    };
    let fits = |placed: &Placement| match (length.value(), area(&placed.counts)) {
        (Some(length), count) => count == Some(length),
        (None, _) => true,
    };
    let placed: Vec<Placement> = blocks.iter().filter_map(|block| layout.place(block)).filter(fits).collect();
    let mut image: Option<ValueRef> = None;
    for placement in &placed {
        let folded = fold(node, data, &layout, placement)?;
        image = Some(match image {
            None => folded,
            Some(others) => {
                let is_this = is_block(node, &placement.block)?;
                node.select("of_block", is_this, folded, others)?
            }
        });
    }
    match image {
        Some(image) => node.emit(Op::Unary(UnaryOp::Identity), [Some(image)]),
        None => Err(wrong(format!("an image of {:?} from {length} blocks of {blocks:?}", layout.image))),
    }
}

/// Whether the block is this one, a Bool of rank 0.
fn is_block(node: &mut NodeContext<'_, '_>, block: &[i64]) -> Part {
    let given = node.required(2)?;
    let this = node.ints_part("block", block)?;
    let equal = node.binary("sides_equal", BinaryOp::Equal, given, this)?;
    let equal = node.cast("sides_equal.number", equal, DType::I32)?;
    let all = node.reduce("all_equal", ReduceKind::Min, equal, &[0], false)?;
    node.cast("is_block", all, DType::Bool)
}

/// A transposed convolution that puts each element of a column at its place in the block: each channel of the image is a
/// group, whose kernels hold a single 1 each.
fn fold(node: &mut NodeContext<'_, '_>, data: ValueRef, layout: &Layout, placement: &Placement) -> Part {
    let (shape, dtype) = (node.shape(0)?, node.dtype(0)?);
    let axes = placement.block.len();
    let area = placement.block.iter().product::<i64>();
    let columns = layout.channels * area;
    if columns.checked_mul(area).is_none_or(|size| size > MAX_KERNEL) {
        return Err(Fault::Unsupported(format!(
            "blocks of {area} elements of {} channels are too many",
            layout.channels
        )));
    }
    let counts = placement.counts.iter().copied().map(Dim::fixed);
    let dims: Vec<Dim> = shape.first().cloned().into_iter().chain([Dim::fixed(columns)]).chain(counts).collect();
    let blocks = node.reshape("blocks", data, dims)?;
    let one_each: Vec<f64> = (0..columns)
        .flat_map(|column| (0..area).map(move |place| if column % area == place { 1.0 } else { 0.0 }))
        .collect();
    let kernel: Vec<usize> = [columns, 1].iter().chain(&placement.block).map(|size| *size as usize).collect();
    let kernel = node.numbers_part("places", dtype, &kernel, &one_each)?;
    let op = ConvTranspose {
        strides: layout.strides.clone(),
        dilations: layout.dilations.clone(),
        padding: Padding::Explicit(placement.pads.clone()),
        output_padding: Ints::from_elem(0, axes),
        output_shape: None,
        groups: layout.channels,
        epilogue: Epilogue::default(),
    };
    let image = node.helper("image", op, [blocks, kernel])?;
    if placement.extra.iter().all(|extra| *extra == 0) {
        return Ok(image);
    }
    // What no block reaches holds zeros.
    node.helper("whole_image", zero_padding(placement.extra.clone()), [image])
}

#[cfg(test)]
mod tests {
    use super::factors;

    #[test]
    fn products_of_sides() {
        assert_eq!(factors(6, 2), [[1, 6], [2, 3], [3, 2], [6, 1]]);
        assert_eq!(factors(4, 3), [[1, 1, 4], [1, 2, 2], [1, 4, 1], [2, 1, 2], [2, 2, 1], [4, 1, 1]]);
    }
}
