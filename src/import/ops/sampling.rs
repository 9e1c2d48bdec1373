//! What samples images at positions that are data, and is written out: a deformable convolution is a sampling of its
//! windows and a matrix product, an aligned region is four gathers and their weights, a pooled one is masked maxima.

use trt_fuse_ir::op::{BinaryOp, GridSample, MatMul, ReduceKind, SampleKind, SamplePadding, Transpose, UnaryOp};
use trt_fuse_ir::{DType, Dim, Ints, Op, ValueRef};

use super::Row;
use crate::import::ImportError;
use crate::import::attrs::fault;
use crate::import::formula::{Part, to_shape};
use crate::import::node::{Fault, Imported, NodeContext, Outputs};

pub(super) const ROWS: &[Row] = &[
    Row::new("DeformConv", (3, 5), 1, deform_conv),
    Row::new("MaxRoiPool", (2, 2), 1, max_roi_pool),
    Row::new("RoiAlign", (3, 3), 1, roi_align),
];

/// The dimensions of an input of rank 4.
fn four(node: &NodeContext<'_, '_>, slot: usize) -> Result<[Dim; 4], Fault> {
    let dims = node.input_info(slot)?.shape.and_then(|shape| shape.into_vec().try_into().ok());
    dims.ok_or_else(|| Fault::Unsupported(format!("input {slot} is not known to have rank 4")))
}

fn number(dim: &Dim, what: &str) -> Result<i64, Fault> {
    dim.value().ok_or_else(|| Fault::Unsupported(format!("its {what} is known only at run time")))
}

/// Most places along an axis whose numbers are written out.
const MAX_PLACES: i64 = 1 << 20;

/// A number of places, of which constants are made.
fn places(count: Option<i64>, what: &str) -> Result<usize, Fault> {
    let sensible = count.filter(|count| *count <= MAX_PLACES).and_then(|count| usize::try_from(count).ok());
    sensible.ok_or_else(|| Fault::Unsupported(format!("its {what} are more than {MAX_PLACES}, the most written out")))
}

/// The windows of a convolution along one axis.
struct Line {
    name: &'static str,
    /// Size of the data.
    size: i64,
    /// Number of windows.
    windows: usize,
    stride: i64,
    /// Where each tap lies in the first window.
    taps: Vec<f64>,
}

impl Line {
    /// Where the elements of all windows lie, moved by `moves` `[images, taps, rows, columns]`, counted as a grid
    /// counts that does not align corners.
    fn positions(&self, node: &mut NodeContext<'_, '_>, moves: ValueRef, is_row: bool) -> Part {
        let name = |what: &str| format!("{}.{what}", self.name);
        let dtype = node.info(moves).dtype;
        let taps = node.numbers_part(&name("taps"), dtype, &[self.taps.len(), 1, 1], &self.taps)?;
        let starts: Vec<f64> = (0..self.windows).map(|window| window as f64 * self.stride as f64).collect();
        let dims = if is_row { [starts.len(), 1] } else { [1, starts.len()] };
        let starts = node.numbers_part(&name("starts"), dtype, &dims, &starts)?;
        let lies = node.binary(&name("lies"), BinaryOp::Add, taps, starts)?;
        let place = node.binary(self.name, BinaryOp::Add, moves, lies)?;
        // (2 place + 1) / size - 1
        let scaled = node.with_number(&name("scaled"), BinaryOp::Mul, place, 2.0 / self.size as f64)?;
        node.with_number(&name("grid"), BinaryOp::Add, scaled, 1.0 / self.size as f64 - 1.0)
    }
}

/// Offset groups are images of their own, whose windows are sampled one tap below the other; what is sampled are the
/// columns that the weight is multiplied with.
fn deform_conv(node: &mut NodeContext<'_, '_>) -> Imported {
    let ([batch, channels, height, width], [maps, taken, rows, columns]) = (four(node, 0)?, four(node, 1)?);
    let [_, _, out_height, out_width] = four(node, 2)?;
    let (rows, columns) = (number(&rows, "kernel")?, number(&columns, "kernel")?);
    let area = places(rows.checked_mul(columns), "kernel's elements")?;
    let attrs = &node.attrs;
    if attrs.has("kernel_shape") && attrs.ints_of("kernel_shape", 2, 1, 1)?.as_slice() != [rows, columns] {
        return Err(fault("kernel_shape", format!("the weight is {rows} by {columns}")).into());
    }
    let (strides, dilations) = (attrs.ints_of("strides", 2, 1, 1)?, attrs.ints_of("dilations", 2, 1, 1)?);
    let pads = attrs.ints_of("pads", 4, 0, 0)?;
    let groups = Dim::fixed(attrs.int_at_least("group", 1, 1)?);
    let offset_groups = Dim::fixed(attrs.int_at_least("offset_group", 1, 1)?);
    let split = |channels: &Dim, groups: &Dim, what: &str| {
        channels.exact_div(groups).ok_or_else(|| match channels.value() {
            Some(_) => ImportError::Operands { reason: format!("the channels are no multiple of the {what}") }.into(),
            None => Fault::Unsupported(format!("its channels are not known to be a multiple of the {what}")),
        })
    };
    let shared = split(&channels, &offset_groups, "offset groups")?;
    let maps_a_group = split(&maps, &groups, "groups")?;
    let line = |axis: usize, size: &Dim, windows: &Dim| {
        let at = |values: &Ints| values.get(axis).copied().unwrap_or(0);
        let tap = |tap: i64| if axis == 0 { tap / columns } else { tap % columns };
        let place = |index: i64| tap(index) as f64 * at(&dilations) as f64 - at(&pads) as f64;
        let taps = (0..area as i64).map(place).collect();
        let (name, what) = if axis == 0 { ("y", "height") } else { ("x", "width") };
        Ok::<_, Fault>(Line {
            name,
            size: number(size, what)?,
            windows: places(Some(number(windows, what)?), "windows along an axis")?,
            stride: at(&strides),
            taps,
        })
    };
    let lines = [line(0, &height, &out_height)?, line(1, &width, &out_width)?];

    let taps = Dim::from(area);
    let images = &batch * &offset_groups;
    let all_rows = &taps * &out_height;
    let offset = node.required(2)?;
    let parts = [images.clone(), taps.clone(), Dim::fixed(2), out_height.clone(), out_width.clone()];
    let offset = node.reshape("offset", offset, parts)?;
    let mut positions = Vec::new();
    // A grid has the last axis first.
    for (axis, line) in lines.iter().enumerate().rev() {
        let at = axis as i64;
        let moves = node.slice(&format!("{}.offset", line.name), offset, 2, Dim::fixed(at), Dim::fixed(at + 1))?;
        let moves = node.squeeze(&format!("{}.moves", line.name), moves, &[2])?;
        let place = line.positions(node, moves, axis == 0)?;
        let flat = [images.clone(), all_rows.clone(), out_width.clone(), Dim::fixed(1)];
        positions.push(node.reshape(&format!("{}.flat", line.name), place, flat)?);
    }
    let grid = node.concat("grid", 3, &positions)?;
    let data = node.required(0)?;
    let data = node.reshape("images", data, [images.clone(), shared, height, width])?;
    let sample = GridSample { kind: SampleKind::Linear, padding: SamplePadding::Zeros, align_corners: false };
    let mut windows = node.helper("windows", sample, [data, grid])?;
    if let Some(mask) = node.input(4) {
        let mask = node.reshape("mask", mask, [images, Dim::fixed(1), all_rows, out_width.clone()])?;
        windows = node.binary("masked", BinaryOp::Mul, windows, mask)?;
    }
    let depth = &taken * &taps;
    let columns = [batch.clone(), groups.clone(), depth.clone(), &out_height * &out_width];
    let columns = node.reshape("columns", windows, columns)?;
    let weight = node.required(1)?;
    let weight = node.reshape("weight", weight, [groups, maps_a_group, depth])?;
    let product = node.helper("product", MatMul::new(false, false), [weight, columns])?;
    let shape = to_shape([batch, maps, out_height, out_width]);
    let Some(bias) = node.input(3) else {
        return node.emit(shape, [Some(product)]);
    };
    let output = node.helper("output", shape, [product])?;
    let bias = node.unsqueeze("bias", bias, &[1, 2])?;
    node.emit(Op::Binary(BinaryOp::Add), [Some(output), Some(bias)])
}

/// Where the samples of all regions lie along one axis.
struct Samples {
    /// The elements before and after, `[regions, samples]`, as whole f32.
    places: [ValueRef; 2],
    /// Their weights, 0 for a sample that lies outside.
    weights: [ValueRef; 2],
}

/// Samples of each region of interest at the centres of a grid in each bin.
fn roi_align(node: &mut NodeContext<'_, '_>) -> Imported {
    let [_, channels, height, width] = four(node, 0)?;
    let regions = node.input_info(1)?.shape.and_then(|shape| shape.first().cloned());
    let regions = regions.ok_or_else(|| Fault::Unsupported("the rank of its regions is not known".to_owned()))?;
    let (height, width) = (number(&height, "height")?, number(&width, "width")?);
    let attrs = &node.attrs;
    let (rows, columns) = (attrs.int_at_least("output_height", 1, 1)?, attrs.int_at_least("output_width", 1, 1)?);
    let grid = attrs.int_at_least("sampling_ratio", 0, 0)?;
    if grid == 0 {
        let reason = "its number of samples follows from each region: sampling_ratio is 0";
        return Err(Fault::attribute("sampling_ratio", reason));
    }
    let largest = attrs.choice("mode", &[("avg", false), ("max", true)])?;
    // Opset 10 has no shift.
    let shifts = [("half_pixel", true), ("output_half_pixel", false)];
    let shifted = attrs.choice("coordinate_transformation_mode", &shifts)? && node.opset >= 16;
    let scale = f64::from(attrs.float("spatial_scale", 1.0)?);
    let dtype = node.dtype(0)?;

    let bounds = node.required(1)?;
    let bounds = node.cast("regions", bounds, DType::F32)?;
    let mut bounds = node.with_number("scaled", BinaryOp::Mul, bounds, scale)?;
    if shifted {
        bounds = node.with_number("shifted", BinaryOp::Sub, bounds, 0.5)?;
    }
    let x = samples(node, ("x", 0), bounds, [columns, grid, width], shifted)?;
    let y = samples(node, ("y", 1), bounds, [rows, grid, height], shifted)?;

    // Images as rows of elements, each of all channels.
    let data = node.required(0)?;
    let last = node.transpose("channels_last", data, &[0, 2, 3, 1])?;
    let elements = node.info(last).shape.map(|shape| Dim::product(shape.iter().take(3))).unwrap_or(Dim::fixed(0));
    let data = node.reshape("elements", last, [elements, channels.clone()])?;
    let images = node.required(2)?;
    let images = node.cast("images", images, DType::I64)?;
    let images = node.with_number("starts", BinaryOp::Mul, images, (height * width) as f64)?;
    let images = node.unsqueeze("image", images, &[1, 2])?;

    // ONNX takes the largest of the weighed elements, not of what they sum to.
    let join = if largest { BinaryOp::Max } else { BinaryOp::Add };
    let mut sampled = None;
    for (row, row_weight) in y.places.iter().zip(&y.weights) {
        let row = node.cast("row", *row, DType::I64)?;
        let row = node.with_number("row.start", BinaryOp::Mul, row, width as f64)?;
        let row = node.unsqueeze("row.place", row, &[2])?;
        let row = node.binary("row.image", BinaryOp::Add, images, row)?;
        let row_weight = node.unsqueeze("row.weight", *row_weight, &[2])?;
        for (column, column_weight) in x.places.iter().zip(&x.weights) {
            let column = node.cast("column", *column, DType::I64)?;
            let column = node.unsqueeze("column.place", column, &[1])?;
            let place = node.binary("place", BinaryOp::Add, row, column)?;
            let element = node.gather("element", data, place, 0)?;
            let column_weight = node.unsqueeze("column.weight", *column_weight, &[1])?;
            let weight = node.binary("weight", BinaryOp::Mul, row_weight, column_weight)?;
            let weight = node.cast("weight.narrow", weight, dtype)?;
            let weight = node.unsqueeze("weight.channels", weight, &[3])?;
            let corner = node.binary("corner", BinaryOp::Mul, element, weight)?;
            sampled = Some(match sampled {
                None => corner,
                Some(others) => node.binary("sample", join, others, corner)?,
            });
        }
    }
    let sampled = sampled.ok_or_else(|| Fault::Unsupported("it has no sample".to_owned()))?;
    let bins = [regions, Dim::fixed(rows), Dim::fixed(grid), Dim::fixed(columns), Dim::fixed(grid), channels];
    let bins = node.reshape("bins", sampled, bins)?;
    let kind = if largest { ReduceKind::Max } else { ReduceKind::Mean };
    let pooled = node.reduce("pooled", kind, bins, &[2, 4], false)?;
    let perm = Ints::from_slice(&[0, 3, 1, 2]);
    Ok(Outputs::from_iter([node.result(0, Transpose { perm }, [pooled])?]))
}

/// The samples along one axis of regions `[x, y, x, y]`.
fn samples(
    node: &mut NodeContext<'_, '_>,
    (part, axis): (&str, i64),
    bounds: ValueRef,
    [bins, grid, size]: [i64; 3],
    shifted: bool,
) -> Result<Samples, Fault> {
    use BinaryOp::{Add, And, GreaterOrEqual, LessOrEqual, Max, Min, Mul, Sub};
    let name = |what: &str| format!("{part}.{what}");
    let start = node.slice(&name("start"), bounds, 1, Dim::fixed(axis), Dim::fixed(axis + 1))?;
    let end = node.slice(&name("end"), bounds, 1, Dim::fixed(axis + 2), Dim::fixed(axis + 3))?;
    let mut length = node.binary(&name("length"), Sub, end, start)?;
    if !shifted {
        // A region that is malformed has a size of 1.
        length = node.with_number(&name("at_least_1"), Max, length, 1.0)?;
    }
    let count = places(bins.checked_mul(grid), "samples along an axis")?;
    let centres: Vec<f64> = (0..count).map(|at| (at as f64 + 0.5) / count as f64).collect();
    let centres = node.numbers_part(&name("centres"), DType::F32, &[1, count], &centres)?;
    let inside = node.binary(&name("inside"), Mul, length, centres)?;
    let at = node.binary(part, Add, start, inside)?;

    let above = node.with_number(&name("above"), GreaterOrEqual, at, -1.0)?;
    let below = node.with_number(&name("below"), LessOrEqual, at, size as f64)?;
    let valid = node.binary(&name("valid"), And, above, below)?;
    let valid = node.cast(&name("mask"), valid, DType::F32)?;
    let last = (size - 1) as f64;
    let at = node.with_number(&name("from_0"), Max, at, 0.0)?;
    let at = node.with_number(&name("to_last"), Min, at, last)?;
    let first = node.unary(&name("first"), UnaryOp::Floor, at)?;
    let next = node.with_number(&name("next"), Add, first, 1.0)?;
    let second = node.with_number(&name("second"), Min, next, last)?;
    let rest = node.binary(&name("rest"), Sub, at, first)?;
    let second_weight = node.binary(&name("second_weight"), Mul, rest, valid)?;
    let first_weight = node.binary(&name("first_weight"), Sub, valid, second_weight)?;
    Ok(Samples { places: [first, second], weights: [first_weight, second_weight] })
}

/// The maxima of bins of whole elements. Each region has bins of its own size: what lies in a bin is told by a mask.
fn max_roi_pool(node: &mut NodeContext<'_, '_>) -> Imported {
    let [_, _, height, width] = four(node, 0)?;
    let (height, width) = (number(&height, "height")?, number(&width, "width")?);
    let bins = node.attrs.ints_of("pooled_shape", 2, 1, 0)?;
    let [rows, columns] = bins[..] else { return Err(fault("pooled_shape", "it is missing").into()) };
    let scale = f64::from(node.attrs.float("spatial_scale", 1.0)?);
    if rows < 1 || columns < 1 {
        return Err(fault("pooled_shape", "it is missing").into());
    }
    let dtype = node.dtype(0)?;
    let regions = node.required(1)?;
    let regions = node.cast("regions", regions, DType::F32)?;
    let images = node.slice("images", regions, 1, Dim::fixed(0), Dim::fixed(1))?;
    let images = node.squeeze("image", images, &[1])?;
    let images = node.cast("image.index", images, DType::I64)?;
    let data = node.required(0)?;
    let data = node.gather("data", data, images, 0)?;
    let bounds = node.slice("bounds", regions, 1, Dim::fixed(1), Dim::fixed(5))?;
    let bounds = node.with_number("scaled", BinaryOp::Mul, bounds, scale)?;
    let bounds = node.with_number("shifted", BinaryOp::Add, bounds, 0.5)?;
    let bounds = node.unary("rounded", UnaryOp::Floor, bounds)?;
    let hidden = node.scalar_part("hidden", dtype, f64::NEG_INFINITY)?;

    // [regions, channels, height, 1, width] by a mask of columns, then [regions, channels, 1, height, columns] by rows.
    let inside = bin_mask(node, ("x", 0), bounds, columns, width)?;
    let inside = node.unsqueeze("x.mask", inside, &[1, 2])?;
    let apart = node.unsqueeze("x.apart", data, &[3])?;
    let kept = node.select("x.kept", inside, apart, hidden)?;
    let lines = node.reduce("x.max", ReduceKind::Max, kept, &[4], false)?;
    let inside = bin_mask(node, ("y", 1), bounds, rows, height)?;
    let inside = node.unsqueeze("y.mask", inside, &[1, 4])?;
    let apart = node.unsqueeze("y.apart", lines, &[2])?;
    let kept = node.select("y.kept", inside, apart, hidden)?;
    let most = node.reduce("y.max", ReduceKind::Max, kept, &[3], false)?;
    // An empty bin gives 0.
    let empty = node.binary("empty", BinaryOp::Equal, most, hidden)?;
    let zero = node.scalar_part("zero", dtype, 0.0)?;
    Ok(Outputs::from_iter([node.result(0, Op::Where, [empty, zero, most])?]))
}

/// Which elements of an axis each bin of each region holds, `[regions, bins, size]`.
fn bin_mask(node: &mut NodeContext<'_, '_>, (part, axis): (&str, i64), bounds: ValueRef, bins: i64, size: i64) -> Part {
    use BinaryOp::{Add, And, Div, GreaterOrEqual, Less, Max, Mul, Sub};
    let name = |what: &str| format!("{part}.{what}");
    let start = node.slice(&name("start"), bounds, 1, Dim::fixed(axis), Dim::fixed(axis + 1))?;
    let end = node.slice(&name("end"), bounds, 1, Dim::fixed(axis + 2), Dim::fixed(axis + 3))?;
    let length = node.binary(&name("length"), Sub, end, start)?;
    let length = node.with_number(&name("elements"), Add, length, 1.0)?;
    let length = node.with_number(&name("at_least_1"), Max, length, 1.0)?;
    let bin = node.with_number(&name("bin"), Div, length, bins as f64)?;
    let (count, size) = (places(Some(bins), "bins along an axis")?, places(Some(size), "elements along an axis")?);
    let edge = |node: &mut NodeContext<'_, '_>, what: &str, first: usize, round| {
        let numbers: Vec<f64> = (first..first + count).map(|at| at as f64).collect();
        let numbers = node.numbers_part(&name(&format!("{what}.bins")), DType::F32, &[1, count], &numbers)?;
        let edge = node.binary(&name(&format!("{what}.edge")), Mul, bin, numbers)?;
        let whole = node.unary(&name(&format!("{what}.whole")), round, edge)?;
        let place = node.binary(&name(what), Add, whole, start)?;
        node.unsqueeze(&name(&format!("{what}.column")), place, &[2])
    };
    let first = edge(node, "first", 0, UnaryOp::Floor)?;
    let beyond = edge(node, "beyond", 1, UnaryOp::Ceil)?;
    let places: Vec<f64> = (0..size).map(|at| at as f64).collect();
    let places = node.numbers_part(&name("places"), DType::F32, &[1, 1, places.len()], &places)?;
    let after = node.binary(&name("after"), GreaterOrEqual, places, first)?;
    let before = node.binary(&name("before"), Less, places, beyond)?;
    node.binary(&name("inside"), And, after, before)
}
