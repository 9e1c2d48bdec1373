//! Sizes that the values of an input decide at run time.
//!
//! Inference names such a dimension by a symbol of its own. Here the symbol is bound to the arithmetic on the input's
//! elements, so that the family emits the node as it emits any symbolic shape.

use trt_fuse_ir::{Dim, Shape};

use super::super::error::EmitError;
use super::super::layers::{DimsArg, Slice as SliceLayer};
use super::super::sink::NetworkSink;
use super::super::site::Site;
use super::super::terms::{ElementwiseKind as K, SampleMode};

impl<'g, S: NetworkSink<'g>> Site<'_, '_, 'g, S> {
    /// Element `index` of an integer vector (or the one number of rank 0) as a tensor `[1]` of the type of shapes.
    fn element(&mut self, slot: usize, index: usize) -> Result<S::Tensor, EmitError> {
        let mut x = self.tensor(slot)?;
        let index_dtype = self.capabilities().index_dtype();
        if self.info(slot).is_some_and(|info| self.emitted(info.dtype) != index_dtype) {
            x = self.layer("index", |sink, label| sink.cast(label, x, index_dtype))?;
        }
        if self.rank(slot)? == 0 {
            return self.shuffle(x, None, Some(DimsArg::Fixed(&[1])), None, "element");
        }
        let layer = SliceLayer {
            start: DimsArg::Fixed(&[index as i64]),
            size: DimsArg::Fixed(&[1]),
            stride: DimsArg::Fixed(&[1]),
            mode: SampleMode::StrictBounds,
            fill: None,
        };
        self.layer("element", |sink, label| sink.slice(label, x, &layer))
    }

    /// Element `index` of a vector as a dimension: its value where inference knows it, else a symbol bound to it.
    fn element_dim(&mut self, slot: usize, index: usize, what: &str) -> Result<Dim, EmitError> {
        if let Some(dim) = self.info(slot).and_then(|info| info.known_elements()?.get(index).cloned()) {
            return Ok(dim);
        }
        let tensor = self.element(slot, index)?;
        Ok(self.bound(&format!("{what}{index}"), tensor))
    }

    /// A symbol of this node, bound to a tensor.
    fn bound(&mut self, what: &str, tensor: S::Tensor) -> Dim {
        let dim = Dim::symbol(format!("{}.{what}", self.node.name));
        self.bind(&dim, tensor);
        dim
    }

    /// Binds each dimension of an output that nothing tells yet.
    fn bind_output(
        &mut self,
        output: usize,
        mut size: impl FnMut(&mut Self, usize) -> Result<S::Tensor, EmitError>,
    ) -> Result<(), EmitError> {
        let shape = self.node.outputs.get(output).and_then(|value| value.info.shape.clone());
        for (axis, dim) in shape.iter().flatten().enumerate() {
            if self.is_unbound(dim) {
                let tensor = size(self, axis)?;
                self.bind(dim, tensor);
            }
        }
        Ok(())
    }

    fn input_dim(&self, slot: usize, axis: usize) -> Dim {
        let shape = self.info(slot).and_then(|info| info.shape.as_ref());
        shape.and_then(|shape| shape.get(axis)).cloned().unwrap_or(Dim::fixed(1))
    }
}

/// Output sizes that are elements of input `slot`, counted from the last axis: of `resize`, `constant_of_shape`.
pub(super) fn sizes<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    slot: usize,
    axes: Option<&[i64]>,
) -> Result<(), EmitError> {
    let Some(rank) = site.output().and_then(|info| info.rank()) else { return Ok(()) };
    let count = site.info(slot).and_then(|info| info.fixed_dims()?.first().copied());
    site.bind_output(0, |site, axis| {
        let index = match axes {
            Some(axes) => axes.iter().position(|named| (*named + rank as i64) % rank as i64 == axis as i64),
            None => (axis + count.unwrap_or(rank)).checked_sub(rank),
        };
        match index {
            Some(index) => site.element(slot, index),
            None => site.unsupported(format!("the size of axis {axis} is not known")),
        }
    })
}

/// Sizes of `expand`: the elements of its shape, counted from the last axis, but the data's own where they are 1.
pub(super) fn expand<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<(), EmitError> {
    let Some(rank) = site.output().and_then(|info| info.rank()) else { return Ok(()) };
    let own = site.rank(0)?;
    let count = site.info(1).and_then(|info| info.fixed_dims()?.first().copied()).unwrap_or(rank);
    site.bind_output(0, |site, axis| {
        let Some(index) = (axis + count).checked_sub(rank) else {
            return site.unsupported(format!("the size of axis {axis} is not known"));
        };
        let wanted = site.element(1, index)?;
        let own = (axis + own).checked_sub(rank).map(|axis| site.input_dim(0, axis));
        let Some(own) = own.filter(|own| !own.is(1)) else { return Ok(wanted) };
        let (own, one) = (site.dim_tensor(&own)?, site.int_vector(&[1], "one")?);
        let keeps = site.elementwise(wanted, one, K::Equal, "keeps")?;
        site.layer("size", |sink, label| sink.select(label, keeps, own, wanted))
    })
}

/// Sizes of `split`: each part has its own along the axis.
pub(super) fn split<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<(), EmitError> {
    if site.source(1).is_none() {
        return Ok(());
    }
    for part in 0..site.node.outputs.len() {
        site.bind_output(part, |site, _| site.element(1, part))?;
    }
    Ok(())
}

/// Sizes of `tile`: products with the repeats.
pub(super) fn tile<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<(), EmitError> {
    site.bind_output(0, |site, axis| {
        let repeats = site.element(1, axis)?;
        let dim = site.input_dim(0, axis);
        let dim = site.dim_tensor(&dim)?;
        site.elementwise(dim, repeats, K::Prod, "size")
    })
}

/// The padding before each axis, where the pads are an input; binds the output's sizes.
pub(super) fn pad<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<Shape, EmitError> {
    let rank = site.rank(0)?;
    let axes = match site.source(3) {
        None => (0..rank as i64).collect(),
        Some(_) => match site.info(3).and_then(|info| info.known_ints()) {
            Some(axes) => axes,
            None => return site.unsupported("axes that are known only at run time"),
        },
    };
    let mut before = Shape::from_elem(Dim::fixed(0), rank);
    let mut added = vec![None; rank];
    for (index, axis) in axes.iter().enumerate() {
        let at = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).unwrap_or(usize::MAX);
        let first = site.element_dim(1, index, "pad")?;
        let last = site.element_dim(1, index + axes.len(), "pad")?;
        if let (Some(before), Some(added)) = (before.get_mut(at), added.get_mut(at)) {
            *added = Some(&first + &last);
            *before = &Dim::fixed(-1) * &first;
        }
    }
    site.bind_output(0, |site, axis| {
        let size = site.input_dim(0, axis);
        let size = added.get(axis).cloned().flatten().map_or(size.clone(), |added| &size + &added);
        site.dim_tensor(&size)
    })?;
    Ok(before)
}

/// The first element and the step along each axis, where the bounds of a slice are inputs; binds the output's sizes.
pub(super) fn slice<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<(Shape, Shape), EmitError> {
    let rank = site.rank(0)?;
    let Some(count) = site.info(1).and_then(|info| info.fixed_dims()?.first().copied()) else {
        return site.unsupported("a number of bounds that is known only at run time");
    };
    let axes = match site.source(3) {
        None => (0..count as i64).collect(),
        Some(_) => match site.info(3).and_then(|info| info.known_ints()).filter(|axes| axes.len() == count) {
            Some(axes) => axes,
            None => return site.unsupported("axes that are known only at run time"),
        },
    };
    let mut start = Shape::from_elem(Dim::fixed(0), rank);
    let mut stride = Shape::from_elem(Dim::fixed(1), rank);
    let mut sizes = vec![None; rank];
    for (index, axis) in axes.iter().enumerate() {
        let at = usize::try_from(if *axis < 0 { axis + rank as i64 } else { *axis }).unwrap_or(usize::MAX);
        let step = match site.source(4) {
            None => Dim::fixed(1),
            Some(_) => site.element_dim(4, index, "step")?,
        };
        let bounds = along(site, index, at, &step)?;
        if let (Some(start), Some(stride), Some(size)) = (start.get_mut(at), stride.get_mut(at), sizes.get_mut(at)) {
            (*start, *stride, *size) = (bounds.0, step, Some(bounds.1));
        }
    }
    site.bind_output(0, |site, axis| match sizes.get(axis).copied().flatten() {
        Some(size) => Ok(size),
        None => site.dim_tensor(&site.input_dim(0, axis)),
    })?;
    Ok((start, stride))
}

/// First element and number of elements along one axis: bounds counted from the end are made to count from the front,
/// and kept within the input. A negative step starts at the last element at most, and ends before the first.
fn along<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    index: usize,
    axis: usize,
    step: &Dim,
) -> Result<(Dim, S::Tensor), EmitError> {
    let dim = site.input_dim(0, axis);
    let zero = site.dim_tensor(&Dim::fixed(0))?;
    // 0 for a positive step, -1 for a negative one.
    let back = match step.value() {
        Some(step) => Dim::fixed(step.signum().min(0)),
        None => {
            let (step, minus_one) = (site.dim_tensor(step)?, site.dim_tensor(&Dim::fixed(-1))?);
            let step = site.elementwise(step, zero, K::Min, "back")?;
            let back = site.elementwise(step, minus_one, K::Max, "back")?;
            site.bound(&format!("back{index}"), back)
        }
    };
    let start = bound(site, (1, index), &dim, &Dim::fixed(0), &back)?;
    let end = bound(site, (2, index), &dim, &back, &back)?;
    // ceil((end - start) / step), whatever the signs, as floor alone is there.
    let (first, end) = (site.dim_tensor(&start)?, site.dim_tensor(&end)?);
    let mut length = site.elementwise(first, end, K::Sub, "length")?;
    if !step.is(1) {
        let step = site.dim_tensor(step)?;
        length = site.elementwise(length, step, K::FloorDiv, "length")?;
    }
    let length = site.elementwise(zero, length, K::Sub, "length")?;
    let length = site.elementwise(length, zero, K::Max, "length")?;
    Ok((start, length))
}

/// A bound of a slice of `dim` elements, counted from the front and not below `low` nor above `dim + back`.
///
/// What is known is computed here: TensorRT 8.5 fails to fold a comparison of constants among sizes.
fn bound<'g, S: NetworkSink<'g>>(
    site: &mut Site<'_, '_, 'g, S>,
    (slot, index): (usize, usize),
    dim: &Dim,
    low: &Dim,
    back: &Dim,
) -> Result<Dim, EmitError> {
    let known = site.info(slot).and_then(|info| info.known_elements()?.get(index)?.value());
    if let (Some(value), Some(size), Some(low), Some(back)) = (known, dim.value(), low.value(), back.value()) {
        let counted = if value < 0 { value.saturating_add(size) } else { value };
        return Ok(Dim::fixed(counted.max(low).min(size + back)));
    }
    // Beyond any dimension stands for its end, and need not fit the type of sizes.
    let (value, low) = match (known.map(|value| value.clamp(-i64::from(i32::MAX), i32::MAX.into())), low.value()) {
        (Some(value), _) if value < 0 => (site.dim_tensor(&(dim + &Dim::fixed(value)))?, Some(low)),
        (Some(value), Some(least)) => (site.dim_tensor(&Dim::fixed(value.max(least)))?, None),
        (Some(value), None) => (site.dim_tensor(&Dim::fixed(value))?, Some(low)),
        (None, _) => {
            let (value, size) = (site.element(slot, index)?, site.dim_tensor(dim)?);
            let zero = site.dim_tensor(&Dim::fixed(0))?;
            let is_negative = site.elementwise(value, zero, K::Less, "from_end")?;
            let counted = site.elementwise(value, size, K::Sum, "counted")?;
            (site.layer("bound", |sink, label| sink.select(label, is_negative, counted, value))?, Some(low))
        }
    };
    let value = match low {
        Some(low) => {
            let low = site.dim_tensor(low)?;
            site.elementwise(value, low, K::Max, "bound")?
        }
        None => value,
    };
    let last = site.dim_tensor(&(dim + back))?;
    let value = site.elementwise(value, last, K::Min, "bound")?;
    Ok(site.bound(&format!("{}{index}", if slot == 1 { "start" } else { "end" }), value))
}

/// The number of elements of a `range` of integers, rounded up, not below 0.
pub(super) fn range<'g, S: NetworkSink<'g>>(site: &mut Site<'_, '_, 'g, S>) -> Result<(), EmitError> {
    site.bind_output(0, |site, _| {
        let [start, limit, step] = [site.element(0, 0)?, site.element(1, 0)?, site.element(2, 0)?];
        let length = site.elementwise(start, limit, K::Sub, "length")?;
        // -floor(-length / step) rounds up, whatever the signs.
        let steps = site.elementwise(length, step, K::FloorDiv, "steps")?;
        let zero = site.int_vector(&[0], "zero")?;
        let steps = site.elementwise(zero, steps, K::Sub, "steps")?;
        site.elementwise(steps, zero, K::Max, "steps")
    })
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::{Capabilities, Graph, verify};

    use crate::emit::emit;
    use crate::emit::record::Record;

    /// The layers without those of inputs and outputs.
    fn layers(text: &str) -> String {
        let graph: Graph = text.parse().unwrap();
        let mut record = Record::new();
        emit(verify(&graph).unwrap(), &Capabilities::default(), &mut record).unwrap();
        let text = record.text();
        let is_inner = |line: &&str| !line.contains("= input") && !line.starts_with("output");
        text.lines().filter(is_inner).collect::<Vec<_>>().join("\n")
    }

    #[test]
    fn a_size_of_one_expands_to_the_datas_own() {
        insta::assert_snapshot!(layers("graph g(%x: f32[n], %s: i64[1]) -> (%y) { %y = expand(%x, %s) }"), @r#"
        %y::element_out = slice "y::element" (%s) start=[0] size=[1] stride=[1] ; y
        %y::shape_out = shape "y::shape" (%x) ; y
        %y::n_out = slice "y::n" (%y::shape_out) start=[0] size=[1] stride=[1] ; y
        %y::one_out = constant "y::one" value=i64[1]#50978f4fab7a8e7b ; y
        %y::keeps_out = elementwise "y::keeps" (%y::element_out, %y::one_out) kind=equal ; y
        %y::size_out = select "y::size" (%y::keeps_out, %y::n_out, %y::element_out) ; y
        %y::dim_out = constant "y::dim" value=i64[1]#50978f4fab7a8e7b ; y
        %y::dim.2_out = constant "y::dim.2" value=i64[1]#ad023af20d9ff2a3 ; y
        %y::dim.3_out = elementwise "y::dim.3" (%y::n_out, %y::dim.2_out) kind=sum ; y
        %y::dim.4_out = elementwise "y::dim.4" (%y::dim_out, %y::dim.3_out) kind=min ; y
        %y f32[y.d0] = slice "y" (%x) start=[0] size=%y::size_out stride=%y::dim.4_out
        "#);
    }

    #[test]
    fn bounds_that_are_known_are_numbers() {
        let text = "graph g(%x: f32[n, 4], %e: i64[2]) -> (%y) {
            %s = constant() value=i64[2] {-9223372036854775807, 1}
            %y = slice(%x, %s, %e)
        }";
        insta::assert_snapshot!(layers(text), @r#"
        %y::dim_out = constant "y::dim" value=i64[1]#515aad3460f42a5c ; y
        %y::shape_out = shape "y::shape" (%x) ; y
        %y::n_out = slice "y::n" (%y::shape_out) start=[0] size=[1] stride=[1] ; y
        %y::dim.2_out = constant "y::dim.2" value=i64[1]#4328b656103e5398 ; y
        %y::dim.3_out = elementwise "y::dim.3" (%y::n_out, %y::dim.2_out) kind=sum ; y
        %y::bound_out = elementwise "y::bound" (%y::dim.3_out, %y::dim_out) kind=max ; y
        %y::bound.2_out = elementwise "y::bound.2" (%y::bound_out, %y::n_out) kind=min ; y
        %y::element_out = slice "y::element" (%e) start=[0] size=[1] stride=[1] ; y
        %y::from_end_out = elementwise "y::from_end" (%y::element_out, %y::dim_out) kind=less ; y
        %y::counted_out = elementwise "y::counted" (%y::element_out, %y::n_out) kind=sum ; y
        %y::bound.3_out = select "y::bound.3" (%y::from_end_out, %y::counted_out, %y::element_out) ; y
        %y::bound.4_out = elementwise "y::bound.4" (%y::bound.3_out, %y::dim_out) kind=max ; y
        %y::bound.5_out = elementwise "y::bound.5" (%y::bound.4_out, %y::n_out) kind=min ; y
        %y::length_out = elementwise "y::length" (%y::bound.2_out, %y::bound.5_out) kind=sub ; y
        %y::length.2_out = elementwise "y::length.2" (%y::dim_out, %y::length_out) kind=sub ; y
        %y::length.3_out = elementwise "y::length.3" (%y::length.2_out, %y::dim_out) kind=max ; y
        %y::element.2_out = slice "y::element.2" (%e) start=[1] size=[1] stride=[1] ; y
        %y::dim.4_out = constant "y::dim.4" value=i64[1]#ac8dc30b8f565355 ; y
        %y::from_end.2_out = elementwise "y::from_end.2" (%y::element.2_out, %y::dim_out) kind=less ; y
        %y::counted.2_out = elementwise "y::counted.2" (%y::element.2_out, %y::dim.4_out) kind=sum ; y
        %y::bound.6_out = select "y::bound.6" (%y::from_end.2_out, %y::counted.2_out, %y::element.2_out) ; y
        %y::bound.7_out = elementwise "y::bound.7" (%y::bound.6_out, %y::dim_out) kind=max ; y
        %y::bound.8_out = elementwise "y::bound.8" (%y::bound.7_out, %y::dim.4_out) kind=min ; y
        %y::dim.5_out = constant "y::dim.5" value=i64[1]#50978f4fab7a8e7b ; y
        %y::length.4_out = elementwise "y::length.4" (%y::dim.5_out, %y::bound.8_out) kind=sub ; y
        %y::length.5_out = elementwise "y::length.5" (%y::dim_out, %y::length.4_out) kind=sub ; y
        %y::length.6_out = elementwise "y::length.6" (%y::length.5_out, %y::dim_out) kind=max ; y
        %y::dims_out = concatenation "y::dims" (%y::bound.2_out, %y::dim.5_out) axis=0 ; y
        %y::dims.2_out = concatenation "y::dims.2" (%y::length.3_out, %y::length.6_out) axis=0 ; y
        %y f32[y.d0,y.d1] = slice "y" (%x) start=%y::dims_out size=%y::dims.2_out stride=[1,1] mode=clamp
        "#);
    }

    #[test]
    fn slices_backwards_of_what_may_be_empty_clamp_their_start() {
        let mode = |shape: &str, start: &str| {
            let slice = format!("slice(%x) axes=[0] starts=[{start}] ends=[-1] steps=[-1]");
            layers(&format!("graph g(%x: f32[{shape}]) -> (%y) {{ %y = {slice} }}")).contains("mode=clamp")
        };
        assert!(mode("n", "(n-1)"));
        assert!(!mode("5", "4"));
    }

    #[test]
    fn sizes_that_nothing_is_wanted_of_are_the_datas_own() {
        insta::assert_snapshot!(layers("graph g(%x: f32[n, 1], %s: i64[1]) -> (%y) { %y = expand(%x, %s) }"), @r#"
        %y::element_out = slice "y::element" (%s) start=[0] size=[1] stride=[1] ; y
        %y::shape_out = shape "y::shape" (%x) ; y
        %y::n_out = slice "y::n" (%y::shape_out) start=[0] size=[1] stride=[1] ; y
        %y::dims_out = concatenation "y::dims" (%y::n_out, %y::element_out) axis=0 ; y
        %y f32[n,y.d1] = slice "y" (%x) start=[0,0] size=%y::dims_out stride=[1,0]
        "#);
    }
}
