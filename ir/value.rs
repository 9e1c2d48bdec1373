//! What is known of a tensor before it exists.

use std::fmt;
use std::sync::Arc;

use crate::{DType, Dim, Shape, Tensor};

/// Largest number of elements whose symbolic values are followed through shape arithmetic.
pub const MAX_KNOWN_ELEMENTS: usize = 1024;

/// What is known of a tensor's elements.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Known {
    /// Nothing.
    #[default]
    Nothing,
    /// All: it is a constant.
    Constant(Box<Tensor>),
    /// Each element of a small integer tensor, as an expression over the graph's symbols, row-major.
    Elements(Arc<[Dim]>),
}

/// The elements that an input of integers or booleans (0 and 1) always has.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum InputValues {
    /// Each element, row-major.
    Each(Vec<i64>),
    /// The same one everywhere, however many there are.
    All(i64),
}

/// Type, shape and known elements of a tensor.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ValueInfo {
    /// Element type.
    pub dtype: DType,
    /// Dimensions; `None` if not even their number is known.
    pub shape: Option<Shape>,
    /// What is known of the elements.
    pub known: Known,
}

impl ValueInfo {
    /// A tensor of a known shape.
    pub fn new(dtype: DType, shape: impl IntoIterator<Item = impl Into<Dim>>) -> Self {
        Self { dtype, shape: Some(shape.into_iter().map(Into::into).collect()), known: Known::Nothing }
    }

    /// A tensor of an unknown shape.
    pub fn unshaped(dtype: DType) -> Self {
        Self { dtype, shape: None, known: Known::Nothing }
    }

    /// A constant.
    pub fn constant(tensor: Tensor) -> Self {
        let shape = tensor.dims().iter().map(|dim| Dim::from(*dim)).collect();
        Self { dtype: tensor.dtype(), shape: Some(shape), known: Known::Constant(tensor.into()) }
    }

    /// A small integer tensor whose elements are known as expressions; elements too many to follow are dropped.
    pub fn elements(dtype: DType, shape: Shape, elements: Vec<Dim>) -> Self {
        let known = if elements.len() > MAX_KNOWN_ELEMENTS { Known::Nothing } else { Known::Elements(elements.into()) };
        Self { dtype, shape: Some(shape), known }
    }

    /// Number of dimensions.
    pub fn rank(&self) -> Option<usize> {
        self.shape.as_ref().map(|shape| shape.len())
    }

    /// Every dimension as a number, if all are.
    pub fn fixed_dims(&self) -> Option<crate::Dims> {
        self.shape.as_ref()?.iter().map(|dim| usize::try_from(dim.value()?).ok()).collect()
    }

    /// The number of elements.
    pub fn numel(&self) -> Option<Dim> {
        self.shape.as_ref().map(Dim::product)
    }

    /// The constant's data.
    pub fn as_constant(&self) -> Option<&Tensor> {
        match &self.known {
            Known::Constant(tensor) => Some(tensor),
            _ => None,
        }
    }

    /// Every element of a small integer or Bool tensor, as an expression.
    pub fn known_elements(&self) -> Option<Vec<Dim>> {
        match &self.known {
            Known::Nothing => None,
            Known::Elements(elements) => Some(elements.to_vec()),
            Known::Constant(tensor) if tensor.numel() <= MAX_KNOWN_ELEMENTS => {
                Some(tensor.to_i64s()?.into_iter().map(Dim::fixed).collect())
            }
            Known::Constant(_) => None,
        }
    }

    /// Every element of a small integer or Bool tensor, if all are numbers.
    pub fn known_ints(&self) -> Option<Vec<i64>> {
        self.known_elements()?.iter().map(Dim::value).collect()
    }

    /// Whether a value of this description may stand where `other` is expected: dtype and rank equal and no dimension
    /// certainly different, as far as both are known.
    pub fn is_compatible(&self, other: &Self) -> bool {
        let dtypes = self.dtype == other.dtype || self.dtype == DType::Unknown || other.dtype == DType::Unknown;
        let shapes = match (&self.shape, &other.shape) {
            (Some(a), Some(b)) => {
                a.len() == b.len() && a.iter().zip(b).all(|(a, b)| (a - b).value().is_none_or(|gap| gap == 0))
            }
            _ => true,
        };
        dtypes && shapes
    }

    /// Whether this is the same description, as far as can be told without reading a constant's data.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let known = match (&self.known, &other.known) {
            (Known::Nothing, Known::Nothing) => true,
            (Known::Constant(a), Known::Constant(b)) => a.is_same(b),
            (Known::Elements(a), Known::Elements(b)) => a == b,
            _ => false,
        };
        known && self.dtype == other.dtype && self.shape == other.shape
    }

    /// This description, made more precise where `other` (of the same value) knows more.
    #[must_use]
    pub fn refined(mut self, other: &Self) -> Self {
        if self.dtype == DType::Unknown {
            self.dtype = other.dtype;
        }
        self.shape = match (self.shape.take(), &other.shape) {
            (None, shape) => shape.clone(),
            (Some(mut a), Some(b)) if a.len() == b.len() => {
                for (a, b) in a.iter_mut().zip(b) {
                    if a.value().is_none() && b.value().is_some() {
                        *a = b.clone();
                    }
                }
                Some(a)
            }
            (shape, _) => shape,
        };
        if matches!(self.known, Known::Nothing) {
            self.known = other.known.clone();
        }
        self
    }
}

impl ValueInfo {
    /// As [`refined`](Self::refined), but dimensions that are no more than symbols made up for the data of `node` are
    /// taken from `other` too: a name that the model gave, or that attributes already use.
    pub(crate) fn settled(mut self, other: &Self, node: &str) -> Self {
        let made_up = |dim: &Dim| {
            let rest = dim.as_symbol().and_then(|name| name.strip_prefix(node));
            rest.is_some_and(|rest| rest.starts_with('.'))
        };
        if let (Some(dims), Some(others)) = (&mut self.shape, &other.shape)
            && dims.len() == others.len()
        {
            for (dim, other) in dims.iter_mut().zip(others).filter(|(dim, _)| made_up(dim)) {
                *dim = other.clone();
            }
        }
        self.refined(other)
    }
}

impl fmt::Display for ValueInfo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.dtype)?;
        let Some(shape) = &self.shape else { return f.write_str("[..]") };
        f.write_str("[")?;
        for (at, dim) in shape.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            write!(f, "{dim}")?;
        }
        f.write_str("]")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn info(dims: &[&str]) -> ValueInfo {
        ValueInfo::new(DType::F32, dims.iter().map(|dim| dim.parse::<Dim>().unwrap()))
    }

    #[test]
    fn only_certain_differences_are_incompatible() {
        assert!(info(&["n", "3"]).is_compatible(&info(&["4", "3"])));
        assert!(info(&["n"]).is_compatible(&info(&["m"])));
        assert!(!info(&["n"]).is_compatible(&info(&["n+1"])));
        assert!(!info(&["3"]).is_compatible(&info(&["4"])));
        assert!(!info(&["3"]).is_compatible(&info(&["3", "1"])));
        assert!(info(&["3"]).is_compatible(&ValueInfo::unshaped(DType::F32)));
        assert!(!info(&["3"]).is_compatible(&ValueInfo::unshaped(DType::F16)));
        assert!(info(&["3"]).is_compatible(&ValueInfo::unshaped(DType::Unknown)));
    }

    #[test]
    fn refining_keeps_what_is_more_precise() {
        assert_eq!(info(&["n", "3"]).refined(&info(&["4", "m"])), info(&["4", "3"]));
        assert_eq!(info(&["n"]).refined(&info(&["m"])), info(&["n"]));
        assert_eq!(ValueInfo::unshaped(DType::Unknown).refined(&info(&["n"])), info(&["n"]));
        let known = ValueInfo::constant(Tensor::vector(vec![1_i64, 2]));
        assert_eq!(ValueInfo::new(DType::I64, [2_usize]).refined(&known), known);
    }

    #[test]
    fn made_up_symbols_yield_to_names() {
        let found = info(&["n", "nz.count"]);
        assert_eq!(found.clone().settled(&info(&["m", "detections"]), "nz"), info(&["n", "detections"]));
        assert_eq!(found.clone().settled(&info(&["m", "detections"]), "other"), found);
    }

    #[test]
    fn elements_are_followed_only_while_they_are_few() {
        let many = vec![Dim::fixed(0); MAX_KNOWN_ELEMENTS + 1];
        let shape = |len: usize| Shape::from_iter([Dim::from(len)]);
        assert_eq!(ValueInfo::elements(DType::I64, shape(many.len()), many.clone()).known, Known::Nothing);
        let few = ValueInfo::elements(DType::I64, shape(2), vec![Dim::symbol("n"), Dim::fixed(2)]);
        assert_eq!(few.known_elements().unwrap().len(), 2);
        assert_eq!(few.known_ints(), None);
        let large = ValueInfo::constant(Tensor::full([many.len()], 1_i64).unwrap());
        assert_eq!(large.known_elements(), None);
        assert_eq!(ValueInfo::constant(Tensor::vector(vec![true, false])).known_ints(), Some(vec![1, 0]));
        assert_eq!(ValueInfo::constant(Tensor::vector(vec![1_f32])).known_elements(), None);
    }
}
