//! Writes resizes that the target's layer does not do as gathers and products with interpolation matrices.
//!
//! ```text
//! %y = resize(%x, _, %scales) mode=linear antialias=true .. : f32[1, 3, 4, 6]
//! ```
//! becomes, for data of 8 by 12,
//! ```text
//! %1 = matmul(constant f32[4, 8], %x) : f32[1, 3, 4, 12]
//! %y = matmul(%1, constant f32[12, 6]) : f32[1, 3, 4, 6]
//! ```
//!
//! Fires on what the layer has no form for: antialiasing, an aspect ratio that is kept, coordinates of a region or with
//! a symmetric correction, scales or regions that are known only at run time, more than three axes. Resampling is
//! separable: one product an axis, or a gather for the nearest element. Where scales are computed, so is the matrix.
//! Integers of sizes that are no numbers go through the layer as floats that hold them: wide ones in parts of 24 bits
//! where elements are only moved.
//!
//! Refuses: "the sizes are known only at run time", "its matrices of interpolation are too large"
//!
//! Order: any.
//!
//! Numerics: constant matrices are made in f64 and rounded; computed ones are of f32. 1e-6 in f32.

use trt_fuse_ir::eval::{Taps, resize_taps};
use trt_fuse_ir::op::{
    AspectPolicy, BinaryOp, CoordinateMode, Gather, MatMul, NearestMode, ReduceKind, Resize, ResizeMode, Squeeze,
    Transpose, UnaryOp,
};
use trt_fuse_ir::{DType, Dims, Graph, Ints, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

/// Axes that the layer interpolates along, counted from the last.
const LAYER_AXES: usize = 3;

/// Bits of an integer that an f32 holds.
const PART: usize = 24;
/// Elements of all matrices of one resize, and of what they are made from.
const MAX_MATRICES: usize = 1 << 24;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct LowerResize;

impl Rule for LowerResize {
    fn name(&self) -> &'static str {
        "lower_resize"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Resize]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Resize(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        let resize = Resized { graph, root, op };
        let blocked = Miss::Blocked { reason: "the sizes are known only at run time", at: root };
        let x = graph.input(root, 0).ok_or(Miss::NoMatch)?;
        let fixed = |value| graph.info(value).and_then(|info| info.fixed_dims());
        let sizes = fixed(x).zip(fixed(root.into()));
        if resize.fits_layer() {
            let dtype = graph.info(x).map_or(DType::Unknown, |info| info.dtype);
            if dtype.is_float() {
                return Err(Miss::NoMatch);
            }
            // Of known sizes, elements are moved by gathers, whatever their type.
            if op.mode != ResizeMode::Nearest || sizes.is_none() {
                return resize.of_integers(dtype);
            }
        }
        let Some((from, to)) = sizes else { return Err(blocked) };
        let elements = from.iter().zip(&to).filter(|(from, to)| from != to).try_fold(0_usize, |sum, (from, to)| {
            sum.checked_add(if op.mode == ResizeMode::Nearest { *to } else { from.checked_mul(*to)? })
        });
        if elements.is_none_or(|elements| elements > MAX_MATRICES) {
            return Err(Miss::Blocked { reason: "its matrices of interpolation are too large", at: root });
        }
        let mut f = Formula::new(self.name(), graph, root);
        let (own, wide) = (f.info(0)?.dtype, computed_in(op, f.info(0)?.dtype));
        let x = if own == wide { x } else { f.cast(x, wide) };
        let y = match resize.taps(&from, &to) {
            Some(taps) => by_constants(&mut f, op, x, wide, &from, &taps)?,
            None => by_formula(&mut f, op, x, wide, &from, &to)?,
        };
        Ok(if own == wide {
            f.result(y)
        } else {
            let rounded = f.unary(UnaryOp::Round, y);
            let y = f.cast(rounded, own);
            f.result(y)
        })
    }
}

/// Integers are interpolated as floats.
fn computed_in(op: &Resize, dtype: DType) -> DType {
    let moves_only = op.mode == ResizeMode::Nearest && op.coordinates != CoordinateMode::TfCropAndResize;
    if dtype.is_float() || moves_only { dtype } else { DType::F32 }
}

/// A resize and its parameters.
struct Resized<'g> {
    graph: &'g Graph,
    root: NodeId,
    op: &'g Resize,
}

impl<'g> Resized<'g> {
    /// An input that has elements.
    fn given(&self, slot: usize) -> Option<ValueRef> {
        let value = self.graph.input(self.root, slot)?;
        let empty = self.graph.info(value).and_then(|info| info.numel()).is_some_and(|count| count.is(0));
        (!empty).then_some(value)
    }

    fn constant(&self, slot: usize) -> Option<&'g Tensor> {
        self.graph.constant(self.given(slot)?)
    }

    /// Whether the target's layer means the same.
    fn fits_layer(&self) -> bool {
        let op = self.op;
        let coordinates = match op.coordinates {
            CoordinateMode::HalfPixel | CoordinateMode::PytorchHalfPixel | CoordinateMode::Asymmetric => true,
            // The layer knows the size alone, and not the fraction that a scale asked for.
            CoordinateMode::AlignCorners => self.scales_are_whole(),
            _ => false,
        };
        let scales_known = self.given(2).is_none() || self.constant(2).is_some();
        let plain = !op.antialias && op.aspect == AspectPolicy::Stretch;
        plain && coordinates && scales_known && self.axes_fit()
    }

    fn scales_are_whole(&self) -> bool {
        let Some(scales) = self.constant(2) else { return true };
        let sizes = self.graph.info(self.root.into()).and_then(|info| info.fixed_dims());
        let from = self.graph.input(self.root, 0).and_then(|x| self.graph.info(x)?.fixed_dims());
        match (scales.to_f64s(), sizes.zip(from)) {
            (Some(scales), _) if scales.iter().all(|scale| scale.fract() == 0.0) => true,
            (Some(scales), Some((_, from))) if self.op.axes.is_none() => {
                from.iter().zip(&scales).all(|(size, scale)| (*size as f64 * scale).fract() == 0.0)
            }
            _ => false,
        }
    }

    /// The layer takes no integers: they become floats and back.
    fn of_integers(&self, dtype: DType) -> Result<Patch, Miss> {
        let mut f = Formula::new("lower_resize", self.graph, self.root);
        let x = f.input(0)?;
        let others: Vec<Option<ValueRef>> = (1..4).map(|slot| self.graph.input(self.root, slot)).collect();
        let resized = |f: &mut Formula<'_>, x: ValueRef| {
            let wide = f.cast(x, DType::F32);
            let inputs: Vec<_> = std::iter::once(Some(wide)).chain(others.iter().copied()).collect();
            f.many(self.op.clone().into(), &inputs, 1).into_iter().next().ok_or(Miss::NoMatch)
        };
        if self.op.mode != ResizeMode::Nearest || dtype.bits() <= PART {
            let y = resized(&mut f, x)?;
            let y = if self.op.mode == ResizeMode::Nearest { y } else { f.unary(UnaryOp::Round, y) };
            let y = f.cast(y, dtype);
            return Ok(f.result(y));
        }
        // x = low + 2^24 (low + 2^24 (..)), each low from 0 on, the last with the sign.
        let modulus = f64::from(1 << PART);
        let (mut rest, mut total, mut weight) = (f.cast(x, DType::I64), None, 1.0);
        for at in 0..dtype.bits().div_ceil(PART) {
            let is_last = at + 1 == dtype.bits().div_ceil(PART);
            let low = if is_last { rest } else { f.with_number(BinaryOp::Mod, rest, DType::I64, modulus)? };
            let y = resized(&mut f, low)?;
            let y = f.cast(y, DType::I64);
            let y = f.with_number(BinaryOp::Mul, y, DType::I64, weight)?;
            total = Some(match total {
                None => y,
                Some(total) => f.binary(BinaryOp::Add, total, y),
            });
            let above = f.binary(BinaryOp::Sub, rest, low);
            rest = f.with_number(BinaryOp::Div, above, DType::I64, modulus)?;
            weight *= modulus;
        }
        let y = f.cast(total.ok_or(Miss::NoMatch)?, dtype);
        Ok(f.result(y))
    }

    /// Whether the axes that change are among those that the layer changes.
    fn axes_fit(&self) -> bool {
        let shape = |value| self.graph.info(value).and_then(|info| info.shape.as_ref());
        let from = self.graph.input(self.root, 0).and_then(shape);
        let (Some(from), Some(to)) = (from, shape(self.root.into())) else { return false };
        let most = match self.op.mode {
            ResizeMode::Nearest => from.len(),
            ResizeMode::Linear => LAYER_AXES,
            _ => 2,
        };
        let kept = from.len().saturating_sub(most);
        from.iter().zip(to).take(kept).all(|(from, to)| from == to)
    }

    /// What each output coordinate reads, if that does not depend on data.
    fn taps(&self, from: &Dims, to: &Dims) -> Option<Vec<Vec<Taps>>> {
        let known = |slot: usize| self.given(slot).is_none() || self.constant(slot).is_some();
        let needs_region = self.op.coordinates == CoordinateMode::TfCropAndResize;
        if needs_region && !known(1) {
            return None;
        }
        let stated = match (self.given(3), &self.op.axes) {
            (Some(_), None) if self.op.aspect == AspectPolicy::Stretch => {
                Some(Tensor::vector(to.iter().map(|size| *size as i64).collect()))
            }
            (Some(_), Some(axes)) if self.op.aspect == AspectPolicy::Stretch => {
                let axes = trt_fuse_ir::infer::resolve_axes(axes, to.len()).ok()?;
                Some(Tensor::vector(axes.iter().filter_map(|axis| Some(*to.get(*axis)? as i64)).collect()))
            }
            _ => None,
        };
        if !known(2) || (stated.is_none() && !known(3)) {
            return None;
        }
        let sizes = stated.as_ref().or(self.constant(3));
        let region = self.constant(1).filter(|_| needs_region);
        let taps = resize_taps(self.op, from, [region, self.constant(2), sizes]).ok()?;
        let fits = taps.iter().zip(to).all(|(taps, size)| taps.len() == *size);
        fits.then_some(taps)
    }
}

/// One gather or product an axis, of constants.
fn by_constants(
    f: &mut Formula<'_>,
    op: &Resize,
    x: ValueRef,
    dtype: DType,
    from: &Dims,
    taps: &[Vec<Taps>],
) -> Result<ValueRef, Miss> {
    let rank = from.len();
    let (mut y, mut inside) = (x, None);
    for (axis, (taps, size)) in taps.iter().zip(from).enumerate() {
        let single = |taps: &Taps| match taps.as_deref() {
            Some([(at, 1.0)]) => Some(*at as i64),
            _ => None,
        };
        let picks: Option<Vec<i64>> = taps.iter().map(single).collect();
        if picks.as_ref().is_some_and(|picks| picks.iter().copied().eq(0..*size as i64)) {
            continue;
        }
        y = match picks {
            Some(picks) => {
                let picks = f.ints(&picks);
                f.op(Gather { axis: axis as i64 }, &[y, picks])
            }
            None => {
                let mut matrix = vec![0.0; taps.len() * size];
                for (row, taps) in matrix.chunks_mut((*size).max(1)).zip(taps) {
                    for (at, weight) in taps.iter().flatten() {
                        if let Some(element) = row.get_mut(*at) {
                            *element += weight;
                        }
                    }
                }
                let matrix = matrix_of(dtype, [taps.len(), *size], &matrix)?;
                let matrix = f.constant(matrix);
                along(f, y, matrix, axis, rank)
            }
        };
        if taps.iter().any(Option::is_none) {
            let rows = Tensor::vector(taps.iter().map(Option::is_some).collect());
            let rows = f.constant(rows);
            inside = Some(both(f, inside, rows, axis, rank));
        }
    }
    extrapolated(f, op, y, inside, dtype)
}

fn matrix_of(dtype: DType, dims: [usize; 2], elements: &[f64]) -> Result<Tensor, Miss> {
    let tensor = match dtype {
        DType::F32 => Tensor::from_vec(dims, elements.iter().map(|x| *x as f32).collect()),
        DType::F16 => Tensor::from_vec(dims, elements.iter().map(|x| half::f16::from_f64(*x)).collect()),
        DType::BF16 => Tensor::from_vec(dims, elements.iter().map(|x| half::bf16::from_f64(*x)).collect()),
        DType::F64 => Tensor::from_vec(dims, elements.to_vec()),
        _ => return Err(Miss::NoMatch),
    };
    tensor.map_err(|_| Miss::NoMatch)
}

/// `matrix` `[output, input]` times the data along an axis.
fn along(f: &mut Formula<'_>, x: ValueRef, matrix: ValueRef, axis: usize, rank: usize) -> ValueRef {
    let matmul = |transpose_b| MatMul::new(false, transpose_b);
    if axis + 1 == rank {
        return f.op(matmul(true), &[x, matrix]);
    }
    if axis + 2 == rank {
        return f.op(matmul(false), &[matrix, x]);
    }
    let swap: Ints = (0..rank as i64).map(|at| swapped(at, axis as i64, rank as i64 - 1)).collect();
    let last = f.op(Transpose { perm: swap.clone() }, &[x]);
    let product = f.op(matmul(true), &[last, matrix]);
    f.op(Transpose { perm: swap }, &[product])
}

fn swapped(at: i64, a: i64, b: i64) -> i64 {
    match at {
        at if at == a => b,
        at if at == b => a,
        at => at,
    }
}

/// Where this axis and the axes before it lie inside.
fn both(f: &mut Formula<'_>, before: Option<ValueRef>, rows: ValueRef, axis: usize, rank: usize) -> ValueRef {
    let after: Vec<i64> = (1..(rank - axis) as i64).collect();
    let rows = if after.is_empty() { rows } else { f.unsqueeze(rows, &after) };
    match before {
        None => rows,
        Some(before) => f.binary(BinaryOp::And, before, rows),
    }
}

fn extrapolated(
    f: &mut Formula<'_>,
    op: &Resize,
    y: ValueRef,
    inside: Option<ValueRef>,
    dtype: DType,
) -> Result<ValueRef, Miss> {
    let Some(inside) = inside else { return Ok(y) };
    let fill = f.number(dtype, f64::from(op.extrapolation.0))?;
    Ok(f.select(inside, y, fill))
}

/// One gather or product an axis, of indices and matrices that are computed from scales or regions.
fn by_formula(
    f: &mut Formula<'_>,
    op: &Resize,
    x: ValueRef,
    dtype: DType,
    from: &Dims,
    to: &Dims,
) -> Result<ValueRef, Miss> {
    let rank = from.len();
    let named = match &op.axes {
        Some(axes) => trt_fuse_ir::infer::resolve_axes(axes, rank).map_err(|_| Miss::NoMatch)?,
        None => (0..rank).collect(),
    };
    let parameters = Parameters::of(f, op, &named, from)?;
    let (mut y, mut inside) = (x, None);
    for (place, axis) in named.iter().enumerate() {
        let (Some(input), Some(output)) = (from.get(*axis), to.get(*axis)) else { return Err(Miss::NoMatch) };
        // Batch and channels are rarely resampled, and models say so by their sizes alone.
        let mut line = Line { f: &mut *f, op, input: *input, output: *output };
        let at = line.coordinates(&parameters, place, named.len())?;
        if op.coordinates == CoordinateMode::TfCropAndResize {
            let rows = line.inside(at)?;
            inside = Some(both(f, inside, rows, *axis, rank));
            line = Line { f: &mut *f, op, input: *input, output: *output };
        }
        y = if op.mode == ResizeMode::Nearest {
            let picks = line.nearest(at)?;
            f.op(Gather { axis: *axis as i64 }, &[y, picks])
        } else {
            let scale = parameters.scale(line.f, place)?;
            let matrix = line.matrix(at, scale)?;
            let matrix = if dtype == DType::F32 { matrix } else { f.cast(matrix, dtype) };
            along(f, y, matrix, *axis, rank)
        };
    }
    extrapolated(f, op, y, inside, dtype)
}

/// Scales and region as values of f32.
struct Parameters {
    /// One scale an axis, or one for all.
    scales: Option<ValueRef>,
    shared: bool,
    region: Option<ValueRef>,
}

impl Parameters {
    fn of(f: &mut Formula<'_>, op: &Resize, named: &[usize], from: &Dims) -> Result<Self, Miss> {
        let given = |f: &Formula<'_>, slot: usize| {
            let empty = f.info(slot).ok().and_then(|info| info.numel()).is_some_and(|count| count.is(0));
            f.input(slot).ok().filter(|_| !empty)
        };
        let region = match given(f, 1) {
            Some(region) if f.info(1)?.dtype == DType::F32 => Some(region),
            Some(region) => Some(f.cast(region, DType::F32)),
            None => None,
        };
        if let Some(scales) = given(f, 2) {
            return Ok(Self { scales: Some(scales), shared: false, region });
        }
        let sizes = given(f, 3).ok_or(Miss::NoMatch)?;
        let lengths: Vec<f32> = named.iter().filter_map(|axis| Some(*from.get(*axis)? as f32)).collect();
        let (sizes, lengths) = (f.cast(sizes, DType::F32), f.constant(Tensor::vector(lengths)));
        let ratios = f.binary(BinaryOp::Div, sizes, lengths);
        Ok(match op.aspect {
            AspectPolicy::Stretch => Self { scales: Some(ratios), shared: false, region },
            AspectPolicy::NotLarger => {
                Self { scales: Some(f.reduce(ReduceKind::Min, ratios, &[0])), shared: true, region }
            }
            _ => Self { scales: Some(f.reduce(ReduceKind::Max, ratios, &[0])), shared: true, region },
        })
    }

    /// The scale of an axis, of rank 0.
    fn scale(&self, f: &mut Formula<'_>, place: usize) -> Result<ValueRef, Miss> {
        let place = if self.shared { 0 } else { place as i64 };
        let scales = self.scales.ok_or(Miss::NoMatch)?;
        Ok(one_of(f, scales, place))
    }
}

/// An element of a vector, of rank 0.
fn one_of(f: &mut Formula<'_>, vector: ValueRef, at: i64) -> ValueRef {
    let part = f.cut(vector, at, at + 1);
    f.op(Squeeze { axes: Some(Ints::from_slice(&[0])) }, &[part])
}

/// One axis that is resampled, in f32.
struct Line<'f, 'g> {
    f: &'f mut Formula<'g>,
    op: &'f Resize,
    input: usize,
    output: usize,
}

impl Line<'_, '_> {
    fn with(&mut self, op: BinaryOp, x: ValueRef, number: f64) -> Result<ValueRef, Miss> {
        self.f.with_number(op, x, DType::F32, number)
    }

    /// `first + 0, first + 1, ..`
    fn count(&mut self, first: i64, count: usize) -> ValueRef {
        self.f.constant(Tensor::vector((0..count).map(|at| (first + at as i64) as f32).collect::<Vec<_>>()))
    }

    /// The input coordinate of each output coordinate.
    fn coordinates(&mut self, parameters: &Parameters, place: usize, axes: usize) -> Result<ValueRef, Miss> {
        use BinaryOp::{Add, Div, Mul, Sub};
        let (input, output) = (self.input as f64, self.output as f64);
        let at = self.count(0, self.output);
        if self.op.coordinates == CoordinateMode::TfCropAndResize {
            let region = parameters.region.ok_or(Miss::NoMatch)?;
            let (start, end) = (one_of(self.f, region, place as i64), one_of(self.f, region, (place + axes) as i64));
            if self.output == 1 {
                let sum = self.f.binary(Add, start, end);
                let middle = self.with(Mul, sum, 0.5 * (input - 1.0))?;
                let row = self.with(Mul, at, 0.0)?;
                return Ok(self.f.binary(Add, row, middle));
            }
            let range = self.f.binary(Sub, end, start);
            let step = self.with(Mul, range, (input - 1.0) / (output - 1.0))?;
            let moved = self.f.binary(Mul, at, step);
            let start = self.with(Mul, start, input - 1.0)?;
            return Ok(self.f.binary(Add, moved, start));
        }
        let scale = parameters.scale(self.f, place)?;
        let half = self.with(Add, at, 0.5)?;
        let x = match self.op.coordinates {
            CoordinateMode::AlignCorners | CoordinateMode::PytorchHalfPixel if self.output == 1 => {
                return self.with(Mul, at, 0.0);
            }
            CoordinateMode::AlignCorners => {
                let wanted = self.with(Mul, scale, input)?;
                let steps = self.with(Sub, wanted, 1.0)?;
                let moved = self.with(Mul, at, input - 1.0)?;
                self.f.binary(Div, moved, steps)
            }
            CoordinateMode::Asymmetric => self.f.binary(Div, at, scale),
            CoordinateMode::TfHalfPixelForNn => self.f.binary(Div, half, scale),
            mode => {
                let x = self.f.binary(Div, half, scale);
                let x = self.with(Sub, x, 0.5)?;
                if mode == CoordinateMode::HalfPixelSymmetric {
                    // input / 2 * (1 - output / (scale * input))
                    let inverse = self.f.unary(UnaryOp::Reciprocal, scale);
                    let part = self.with(Mul, inverse, -0.5 * output)?;
                    let shift = self.with(Add, part, 0.5 * input)?;
                    self.f.binary(Add, x, shift)
                } else {
                    x
                }
            }
        };
        if self.input != self.output {
            return Ok(x);
        }
        // An axis that is not scaled stays as it is, whatever the coordinates.
        let same = self.with(BinaryOp::Equal, scale, 1.0)?;
        Ok(self.f.select(same, at, x))
    }

    fn inside(&mut self, at: ValueRef) -> Result<ValueRef, Miss> {
        let above = self.with(BinaryOp::GreaterOrEqual, at, 0.0)?;
        let below = self.with(BinaryOp::LessOrEqual, at, self.input as f64 - 1.0)?;
        Ok(self.f.binary(BinaryOp::And, above, below))
    }

    /// The index of the nearest element.
    fn nearest(&mut self, at: ValueRef) -> Result<ValueRef, Miss> {
        let (shift, round) = match self.op.nearest {
            NearestMode::RoundPreferFloor => (-0.5, UnaryOp::Ceil),
            NearestMode::RoundPreferCeil => (0.5, UnaryOp::Floor),
            NearestMode::Floor => (0.0, UnaryOp::Floor),
            _ => (0.0, UnaryOp::Ceil),
        };
        let shifted = if shift == 0.0 { at } else { self.with(BinaryOp::Add, at, shift)? };
        let whole = self.f.unary(round, shifted);
        let least = self.with(BinaryOp::Max, whole, 0.0)?;
        let index = self.with(BinaryOp::Min, least, self.input as f64 - 1.0)?;
        Ok(self.f.cast(index, DType::I64))
    }

    /// The interpolation matrix `[output, input]`: the kernel at the distance of each pair, for indices that reach
    /// beyond the edges, which then are added to the edges.
    fn matrix(&mut self, at: ValueRef, scale: ValueRef) -> Result<ValueRef, Miss> {
        let (input, output) = (self.input as f64, self.output as f64);
        let reach = if self.op.mode == ResizeMode::Linear { 1.0 } else { 2.0 };
        // The least scale that gives this size.
        let least = ((output - 0.5) / input).min(1.0);
        let stretch = if self.op.antialias { Some(self.with(BinaryOp::Min, scale, 1.0)?) } else { None };
        let kernel = if self.op.antialias { (reach / least).ceil() } else { reach };
        let beyond = if self.op.exclude_outside { 0 } else { kernel as usize + (input / output).ceil() as usize + 1 };
        let places = self.count(-(beyond as i64), self.input + 2 * beyond);
        let column = self.f.unsqueeze(at, &[1]);
        let mut distance = self.f.binary(BinaryOp::Sub, places, column);
        if let Some(stretch) = stretch {
            distance = self.f.binary(BinaryOp::Mul, distance, stretch);
        }
        let mut weights = self.kernel(distance)?;
        if self.op.antialias || self.op.exclude_outside {
            let total = self.f.reduce(ReduceKind::Sum, weights, &[1]);
            // A row that is outside of the data altogether stays one of zeros.
            let none = self.with(BinaryOp::Equal, total, 0.0)?;
            let one = self.f.number(DType::F32, 1.0)?;
            let total = self.f.select(none, one, total);
            weights = self.f.binary(BinaryOp::Div, weights, total);
        }
        if beyond == 0 {
            return Ok(weights);
        }
        let last = self.input.saturating_sub(1);
        let edges = (0..self.input + 2 * beyond).flat_map(|place| {
            let to = place.saturating_sub(beyond).min(last);
            (0..self.input).map(move |at| if at == to { 1.0 } else { 0.0 })
        });
        let edges = Tensor::from_vec([self.input + 2 * beyond, self.input], edges.collect::<Vec<f32>>());
        let edges = self.f.constant(edges.map_err(|_| Miss::NoMatch)?);
        let matmul = MatMul::new(false, false);
        Ok(self.f.op(matmul, &[weights, edges]))
    }

    /// The weight of an element at a distance.
    fn kernel(&mut self, distance: ValueRef) -> Result<ValueRef, Miss> {
        use BinaryOp::{Add, LessOrEqual, Max, Mul, Sub};
        let d = self.f.unary(UnaryOp::Abs, distance);
        if self.op.mode == ResizeMode::Linear {
            let falling = self.f.unary(UnaryOp::Neg, d);
            let weight = self.with(Add, falling, 1.0)?;
            return self.with(Max, weight, 0.0);
        }
        let a = f64::from(self.op.cubic_coeff.0);
        // ((a + 2) d - (a + 3)) d^2 + 1 up to 1
        let near = self.with(Mul, d, a + 2.0)?;
        let near = self.with(Sub, near, a + 3.0)?;
        let near = self.f.binary(Mul, near, d);
        let near = self.f.binary(Mul, near, d);
        let near = self.with(Add, near, 1.0)?;
        // ((a d - 5 a) d + 8 a) d - 4 a up to 2
        let far = self.with(Mul, d, a)?;
        let far = self.with(Sub, far, 5.0 * a)?;
        let far = self.f.binary(Mul, far, d);
        let far = self.with(Add, far, 8.0 * a)?;
        let far = self.f.binary(Mul, far, d);
        let far = self.with(Sub, far, 4.0 * a)?;
        let (is_near, is_far) = (self.with(LessOrEqual, d, 1.0)?, self.with(LessOrEqual, d, 2.0)?);
        let zero = self.f.number(DType::F32, 0.0)?;
        let far = self.f.select(is_far, far, zero);
        Ok(self.f.select(is_near, near, far))
    }
}

#[cfg(test)]
mod tests;
