//! Elements of small integer and Bool tensors, as arrays of expressions.

use ndarray::{ArrayD, IxDyn};

use crate::{DType, Dim, Dims, Known, MAX_KNOWN_ELEMENTS, Shape, ValueInfo, numel};

/// Every element of a tensor as an expression.
pub(super) type Elements = ArrayD<Dim>;

/// The elements of a value, if all are known.
pub(super) fn elements(info: &ValueInfo) -> Option<Elements> {
    let dims = info.fixed_dims()?;
    Elements::from_shape_vec(IxDyn(&dims), info.known_elements()?).ok()
}

/// The only element of a value of one element.
pub(super) fn single(info: &ValueInfo) -> Option<Dim> {
    let mut elements = info.known_elements()?;
    if elements.len() == 1 { elements.pop() } else { None }
}

/// A value of a shape and, if they are known, few and surely representable, elements.
pub(super) fn known(dtype: DType, shape: Option<Shape>, elements: Option<Elements>) -> ValueInfo {
    let follows = |elements: &Elements| {
        (dtype.is_integer() || dtype == DType::Bool)
            && elements.len() <= MAX_KNOWN_ELEMENTS
            && elements.iter().all(|dim| fits(dtype, dim))
    };
    match elements.filter(follows) {
        Some(elements) => {
            let shape = elements.shape().iter().map(|dim| Dim::from(*dim)).collect();
            ValueInfo { dtype, shape: Some(shape), known: Known::Elements(elements.iter().cloned().collect()) }
        }
        None => super::shaped(dtype, shape),
    }
}

/// Whether an element of this type surely holds the value. Expressions are taken to fit 32 bits, as dimensions do.
fn fits(dtype: DType, dim: &Dim) -> bool {
    let within = |low: i64, high: i64| dim.value().is_some_and(|value| (low..=high).contains(&value));
    match dtype {
        DType::I64 => true,
        DType::U64 => dim.at_least(0),
        DType::I32 => dim.value().is_none_or(|value| i32::try_from(value).is_ok()),
        DType::U32 => dim.at_least(0) && dim.value().is_none_or(|value| u32::try_from(value).is_ok()),
        DType::I16 => within(i16::MIN.into(), i16::MAX.into()),
        DType::U16 => within(0, u16::MAX.into()),
        DType::I8 => within(i8::MIN.into(), i8::MAX.into()),
        DType::U8 => within(0, u8::MAX.into()),
        DType::Bool => within(0, 1),
        _ => false,
    }
}

/// A shape's dimensions, if all are numbers and their product is small enough to follow elements.
pub(super) fn few(shape: &Shape) -> Option<Dims> {
    let dims: Dims = shape.iter().map(|dim| usize::try_from(dim.value()?).ok()).collect::<Option<_>>()?;
    (numel(&dims)? <= MAX_KNOWN_ELEMENTS).then_some(dims)
}

/// Each element mapped; `None` if one cannot be.
pub(super) fn map(a: &Elements, f: impl Fn(&Dim) -> Option<Dim>) -> Option<Elements> {
    let items: Vec<Dim> = a.iter().map(f).collect::<Option<_>>()?;
    Elements::from_shape_vec(a.raw_dim(), items).ok()
}

/// Elements broadcast to the shape and combined; `None` if one pair cannot be.
pub(super) fn zip(
    shape: &Shape,
    a: &Elements,
    b: &Elements,
    f: impl Fn(&Dim, &Dim) -> Option<Dim>,
) -> Option<Elements> {
    let dims = IxDyn(&few(shape)?);
    let (a, b) = (a.broadcast(dims.clone())?, b.broadcast(dims.clone())?);
    let items: Vec<Dim> = a.iter().zip(b.iter()).map(|(a, b)| f(a, b)).collect::<Option<_>>()?;
    Elements::from_shape_vec(dims, items).ok()
}

/// The same elements in another shape.
pub(super) fn reshaped(elements: &Elements, shape: &Shape) -> Option<Elements> {
    let dims = few(shape)?;
    Elements::from_shape_vec(IxDyn(&dims), elements.iter().cloned().collect()).ok()
}
