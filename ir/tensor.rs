//! Tensor data: typed, shared, never copied without being asked.
//!
//! A [`Tensor`] is a dtype, fixed dimensions and either the bytes of all elements or one element that fills the whole
//! (a splat). Bytes are reference counted and may lie in a memory-mapped file, so a clone costs nothing and a
//! 1 GiB `ConstantOfShape` costs a few bytes. Bytes from a file have no alignment.

use std::borrow::Cow;
use std::fmt;
use std::sync::OnceLock;

use bytemuck::{NoUninit, Pod};
use bytes::Bytes;
use half::{bf16, f16};
use ndarray::{ArrayD, CowArray, IxDyn};
use smallvec::SmallVec;

use crate::DType;

/// Fixed dimensions.
pub type Dims = SmallVec<[usize; 4]>;

/// What is wrong with the parts of a tensor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum TensorError {
    /// The dimensions' product or the byte count does not fit.
    #[error("shape {dims:?} of {dtype} overflows")]
    Overflow {
        /// Element type.
        dtype: DType,
        /// Dimensions asked for.
        dims: Dims,
    },
    /// Bytes and shape disagree.
    #[error("{found} bytes of data where {dtype}{dims:?} needs {expected}")]
    Length {
        /// Element type.
        dtype: DType,
        /// Dimensions asked for.
        dims: Dims,
        /// Bytes needed.
        expected: usize,
        /// Bytes given.
        found: usize,
    },
    /// A typed read of another type.
    #[error("tensor holds {found}, not {expected}")]
    Type {
        /// Type asked for.
        expected: DType,
        /// Type held.
        found: DType,
    },
}

/// A Rust type that tensors hold.
pub trait Element: Copy + Default + PartialEq + fmt::Debug + Send + Sync + 'static {
    /// Its element type.
    const DTYPE: DType;
    /// Elements of little-endian bytes, borrowed where alignment allows.
    fn read(bytes: &[u8]) -> Cow<'_, [Self]>;
    /// The bytes of elements, without a copy.
    fn into_bytes(elements: Vec<Self>) -> Bytes;
}

/// Keeps a `Vec<T>` alive as bytes, with T's alignment.
struct Owner<T>(Vec<T>);

impl<T: NoUninit> AsRef<[u8]> for Owner<T> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}

fn read_pod<T: Pod>(bytes: &[u8]) -> Cow<'_, [T]> {
    match bytemuck::try_cast_slice(bytes) {
        Ok(slice) => Cow::Borrowed(slice),
        Err(_) => Cow::Owned(bytes.chunks_exact(size_of::<T>()).map(bytemuck::pod_read_unaligned).collect()),
    }
}

macro_rules! element {
    ($($rust:ty => $dtype:ident),* $(,)?) => {$(
        impl Element for $rust {
            const DTYPE: DType = DType::$dtype;
            fn read(bytes: &[u8]) -> Cow<'_, [Self]> {
                read_pod(bytes)
            }
            fn into_bytes(elements: Vec<Self>) -> Bytes {
                Bytes::from_owner(Owner(elements))
            }
        }
    )*};
}

element! {
    f32 => F32, f64 => F64, f16 => F16, bf16 => BF16, i8 => I8, u8 => U8, i16 => I16, u16 => U16,
    i32 => I32, u32 => U32, i64 => I64, u64 => U64,
}

impl Element for bool {
    const DTYPE: DType = DType::Bool;
    fn read(bytes: &[u8]) -> Cow<'_, [Self]> {
        Cow::Owned(bytes.iter().map(|byte| *byte != 0).collect())
    }
    fn into_bytes(elements: Vec<Self>) -> Bytes {
        Bytes::from_owner(Owner(elements))
    }
}

#[derive(Clone)]
enum Data {
    /// All elements, little-endian, row-major.
    Dense(Bytes),
    /// One element; the whole tensor repeats it. `all` holds the written-out form once somebody asked for it.
    Splat { element: Bytes, all: std::sync::Arc<OnceLock<Bytes>> },
}

/// A dense tensor of fixed shape.
#[derive(Clone)]
pub struct Tensor {
    dtype: DType,
    dims: Dims,
    data: Data,
}

/// The product of dimensions; `None` on overflow.
pub fn numel(dims: &[usize]) -> Option<usize> {
    dims.iter().try_fold(1_usize, |product, dim| product.checked_mul(*dim))
}

impl Tensor {
    /// A tensor of little-endian, row-major bytes.
    ///
    /// # Errors
    /// If the byte count is not what dtype and dimensions need.
    pub fn new(dtype: DType, dims: impl AsRef<[usize]>, bytes: Bytes) -> Result<Self, TensorError> {
        let dims = Dims::from_slice(dims.as_ref());
        let expected = Self::byte_count(dtype, &dims)?;
        if bytes.len() != expected {
            return Err(TensorError::Length { dtype, dims, expected, found: bytes.len() });
        }
        Ok(Self { dtype, dims, data: Data::Dense(bytes) })
    }

    /// A tensor that repeats one element.
    ///
    /// # Errors
    /// If the element is not one element of dtype or the shape overflows.
    pub fn splat(dtype: DType, dims: impl AsRef<[usize]>, element: Bytes) -> Result<Self, TensorError> {
        let dims = Dims::from_slice(dims.as_ref());
        Self::byte_count(dtype, &dims)?;
        if dtype.bits() < 8 || element.len() != dtype.bits() / 8 {
            let expected = dtype.bits() / 8;
            return Err(TensorError::Length { dtype, dims, expected, found: element.len() });
        }
        Ok(Self { dtype, dims, data: Data::Splat { element, all: Default::default() } })
    }

    fn byte_count(dtype: DType, dims: &Dims) -> Result<usize, TensorError> {
        numel(dims)
            .filter(|count| isize::try_from(*count).is_ok())
            .and_then(|count| dtype.byte_len(count))
            .filter(|bytes| isize::try_from(*bytes).is_ok())
            .ok_or_else(|| TensorError::Overflow { dtype, dims: dims.clone() })
    }

    /// A tensor of the elements of `data`.
    ///
    /// # Errors
    /// If the count is not the dimensions' product.
    pub fn from_vec<T: Element>(dims: impl AsRef<[usize]>, data: Vec<T>) -> Result<Self, TensorError> {
        Self::new(T::DTYPE, dims, T::into_bytes(data))
    }

    /// A tensor that repeats `value`.
    ///
    /// # Errors
    /// If the shape overflows.
    pub fn full<T: Element>(dims: impl AsRef<[usize]>, value: T) -> Result<Self, TensorError> {
        Self::splat(T::DTYPE, dims, T::into_bytes(vec![value]))
    }

    /// A tensor of rank 0.
    pub fn scalar<T: Element>(value: T) -> Self {
        Self { dtype: T::DTYPE, dims: Dims::new(), data: Data::Dense(T::into_bytes(vec![value])) }
    }

    /// A number as a tensor of rank 0, rounded to a float type; `None` for an integer type that does not hold it, and
    /// for types without numbers.
    pub fn number(dtype: DType, value: f64) -> Option<Self> {
        macro_rules! integer {
            ($type:ty) => {{
                let whole = value.fract() == 0.0 && value >= <$type>::MIN as f64 && value <= <$type>::MAX as f64;
                whole.then(|| Self::scalar(value as $type))
            }};
        }
        match dtype {
            DType::F32 => Some(Self::scalar(value as f32)),
            DType::F16 => Some(Self::scalar(half::f16::from_f64(value))),
            DType::BF16 => Some(Self::scalar(half::bf16::from_f64(value))),
            DType::F64 => Some(Self::scalar(value)),
            DType::I8 => integer!(i8),
            DType::U8 => integer!(u8),
            DType::I16 => integer!(i16),
            DType::U16 => integer!(u16),
            DType::I32 => integer!(i32),
            DType::U32 => integer!(u32),
            DType::I64 => integer!(i64),
            DType::U64 => integer!(u64),
            DType::Bool => Some(Self::scalar(value != 0.0)),
            _ => None,
        }
    }

    /// A tensor of rank 1.
    pub fn vector<T: Element>(data: Vec<T>) -> Self {
        Self { dtype: T::DTYPE, dims: Dims::from_slice(&[data.len()]), data: Data::Dense(T::into_bytes(data)) }
    }

    /// A tensor of an array; no copy if the array is contiguous in standard layout.
    pub fn from_array<T: Element>(array: ArrayD<T>) -> Self {
        let dims = Dims::from_slice(array.shape());
        let array = if array.is_standard_layout() { array } else { array.as_standard_layout().into_owned() };
        let (mut data, offset) = array.into_raw_vec_and_offset();
        let offset = offset.unwrap_or(0);
        let count: usize = dims.iter().product();
        if offset != 0 {
            data.drain(..offset);
        }
        data.truncate(count);
        Self { dtype: T::DTYPE, dims, data: Data::Dense(T::into_bytes(data)) }
    }

    /// Element type.
    pub fn dtype(&self) -> DType {
        self.dtype
    }

    /// Dimensions.
    pub fn dims(&self) -> &[usize] {
        &self.dims
    }

    /// Number of dimensions.
    pub fn rank(&self) -> usize {
        self.dims.len()
    }

    /// Number of elements.
    pub fn numel(&self) -> usize {
        self.dims.iter().product()
    }

    /// Bytes of all elements, written out or not.
    pub fn byte_len(&self) -> usize {
        self.dtype.byte_len(self.numel()).unwrap_or(0)
    }

    /// Whether this is certainly the same tensor: of the same data, which are not read.
    pub(crate) fn is_same(&self, other: &Self) -> bool {
        let shared = match (&self.data, &other.data) {
            (Data::Dense(a), Data::Dense(b)) => a.as_ptr() == b.as_ptr() && a.len() == b.len(),
            (Data::Splat { element: a, .. }, Data::Splat { element: b, .. }) => a == b,
            _ => false,
        };
        shared && self.dtype == other.dtype && self.dims == other.dims
    }

    /// Bytes that this tensor really holds: one element for a splat.
    pub fn held_bytes(&self) -> usize {
        match &self.data {
            Data::Dense(bytes) => bytes.len(),
            Data::Splat { element, .. } => element.len(),
        }
    }

    /// The repeated element's bytes, if this is a splat.
    pub fn splat_element(&self) -> Option<&[u8]> {
        match &self.data {
            Data::Dense(_) => None,
            Data::Splat { element, .. } => Some(element),
        }
    }

    /// All bytes. A splat is written out the first time, and kept as long as any clone lives.
    pub fn bytes(&self) -> &Bytes {
        match &self.data {
            Data::Dense(bytes) => bytes,
            Data::Splat { element, all } => all.get_or_init(|| Bytes::from(element.repeat(self.numel()))),
        }
    }

    /// The elements as `T`, borrowed where alignment allows.
    ///
    /// # Errors
    /// If the tensor holds another type.
    pub fn view<T: Element>(&self) -> Result<Cow<'_, [T]>, TensorError> {
        self.expect_type(T::DTYPE)?;
        if let Data::Splat { element, .. } = &self.data {
            let value = T::read(element).first().copied().unwrap_or_default();
            return Ok(Cow::Owned(vec![value; self.numel()]));
        }
        Ok(T::read(self.bytes()))
    }

    /// The elements as an array, borrowed where alignment allows.
    ///
    /// # Errors
    /// If the tensor holds another type.
    pub fn array<T: Element>(&self) -> Result<CowArray<'_, T, IxDyn>, TensorError> {
        let shape = IxDyn(&self.dims);
        let overflow = |_| TensorError::Overflow { dtype: self.dtype, dims: self.dims.clone() };
        Ok(match self.view::<T>()? {
            Cow::Borrowed(slice) => ndarray::ArrayViewD::from_shape(shape, slice).map_err(overflow)?.into(),
            Cow::Owned(vec) => ArrayD::from_shape_vec(shape, vec).map_err(overflow)?.into(),
        })
    }

    fn expect_type(&self, expected: DType) -> Result<(), TensorError> {
        if self.dtype == expected { Ok(()) } else { Err(TensorError::Type { expected, found: self.dtype }) }
    }

    /// The same data under other dimensions of equal product.
    ///
    /// # Errors
    /// If the products differ.
    pub fn reshaped(&self, dims: impl AsRef<[usize]>) -> Result<Self, TensorError> {
        let dims = Dims::from_slice(dims.as_ref());
        let expected = Self::byte_count(self.dtype, &dims)?;
        if numel(&dims) != Some(self.numel()) {
            return Err(TensorError::Length { dtype: self.dtype, dims, expected, found: self.byte_len() });
        }
        let data = match &self.data {
            Data::Dense(bytes) => Data::Dense(bytes.clone()),
            Data::Splat { element, all } => Data::Splat { element: element.clone(), all: all.clone() },
        };
        Ok(Self { dtype: self.dtype, dims, data })
    }

    /// All elements as i64, if the type is an integer or Bool and all values fit.
    pub fn to_i64s(&self) -> Option<Vec<i64>> {
        macro_rules! cast {
            ($($dtype:ident: $rust:ty),*) => {
                match self.dtype {
                    $(DType::$dtype => {
                        self.view::<$rust>().ok()?.iter().map(|value| i64::try_from(*value).ok()).collect()
                    })*
                    DType::Bool => Some(self.view::<bool>().ok()?.iter().map(|value| i64::from(*value)).collect()),
                    _ => None,
                }
            };
        }
        cast!(I8: i8, U8: u8, I16: i16, U16: u16, I32: i32, U32: u32, I64: i64, U64: u64)
    }

    /// All elements as f64, if the type is a float of 16 bits or more.
    pub fn to_f64s(&self) -> Option<Vec<f64>> {
        match self.dtype {
            DType::F32 => Some(self.view::<f32>().ok()?.iter().map(|value| f64::from(*value)).collect()),
            DType::F16 => Some(self.view::<f16>().ok()?.iter().map(|value| value.to_f64()).collect()),
            DType::BF16 => Some(self.view::<bf16>().ok()?.iter().map(|value| value.to_f64()).collect()),
            DType::F64 => Some(self.view::<f64>().ok()?.into_owned()),
            _ => None,
        }
    }

    /// The element that all elements equal bit by bit, as a tensor of rank 0; `None` for types below a byte and for a
    /// tensor without elements.
    pub fn repeated(&self) -> Option<Self> {
        let width = self.dtype.bits() / 8;
        let element = match &self.data {
            Data::Splat { element, .. } if self.numel() > 0 => element.clone(),
            Data::Dense(bytes) if width > 0 && bytes.len() >= width => {
                let first = bytes.slice(..width);
                bytes.chunks_exact(width).all(|chunk| chunk == first).then_some(first)?
            }
            _ => return None,
        };
        Some(Self { dtype: self.dtype, dims: Dims::new(), data: Data::Dense(element) })
    }

    /// The one value of a tensor whose elements are all equal, as f64; floats and integers.
    pub fn uniform_f64(&self) -> Option<f64> {
        let one = self.repeated()?;
        if self.dtype.is_float() {
            one.to_f64s()?.first().copied()
        } else {
            // Exact up to 2^53; larger integers are no use as a float constant.
            one.to_i64s()?.first().filter(|value| value.unsigned_abs() <= 1 << 53).map(|value| *value as f64)
        }
    }

    /// A hash of type, dimensions and content (XXH3, stable between runs and machines).
    pub fn content_hash(&self) -> u64 {
        let mut hasher = xxhash_rust::xxh3::Xxh3::new();
        hasher.update(self.dtype.name().as_bytes());
        for dim in &self.dims {
            hasher.update(&(*dim as u64).to_le_bytes());
        }
        match &self.data {
            Data::Dense(bytes) => hasher.update(bytes),
            // Written out in pieces, so that a splat hashes like its dense twin without its memory.
            Data::Splat { element, .. } => {
                let piece = element.repeat(4096.min(self.numel().max(1)));
                let mut left = self.byte_len();
                while left > 0 {
                    let take = left.min(piece.len());
                    hasher.update(&piece[..take]);
                    left -= take;
                }
            }
        }
        hasher.digest()
    }
}

impl PartialEq for Tensor {
    fn eq(&self, other: &Self) -> bool {
        if self.dtype != other.dtype || self.dims != other.dims {
            return false;
        }
        match (&self.data, &other.data) {
            (Data::Splat { element: a, .. }, Data::Splat { element: b, .. }) => a == b || self.numel() == 0,
            (Data::Dense(a), Data::Dense(b)) => (a.as_ptr() == b.as_ptr() && a.len() == b.len()) || a == b,
            (Data::Splat { element, .. }, Data::Dense(bytes)) | (Data::Dense(bytes), Data::Splat { element, .. }) => {
                bytes.chunks_exact(element.len().max(1)).all(|chunk| chunk == element)
            }
        }
    }
}

impl Eq for Tensor {}

impl std::hash::Hash for Tensor {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        state.write_u64(self.content_hash());
    }
}

impl fmt::Debug for Tensor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{:?}", self.dtype, self.dims.as_slice())?;
        if let Data::Splat { element, .. } = &self.data {
            write!(f, " splat of {:?}", element.as_ref())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unaligned_bytes_are_read() {
        let mut bytes = vec![0_u8];
        bytes.extend_from_slice(bytemuck::cast_slice(&[1.5_f32, -2.0]));
        let tensor = Tensor::new(DType::F32, [2], Bytes::from(bytes).slice(1..)).unwrap();
        assert_eq!(tensor.view::<f32>().unwrap().as_ref(), [1.5, -2.0]);
    }

    #[test]
    fn a_splat_equals_and_hashes_like_its_dense_twin() {
        let splat = Tensor::full([3, 5000], 7_i32).unwrap();
        let dense = Tensor::from_vec([3, 5000], vec![7_i32; 15000]).unwrap();
        assert_eq!(splat, dense);
        assert_eq!(splat.content_hash(), dense.content_hash());
        assert_eq!(splat.held_bytes(), 4);
        assert_eq!(splat.bytes(), dense.bytes());
    }

    #[test]
    fn a_repeated_element_is_found_in_either_form() {
        let dense = Tensor::from_vec([2], vec![0.5_f32, 0.5]).unwrap();
        assert_eq!(dense.repeated(), Some(Tensor::scalar(0.5_f32)));
        assert_eq!(Tensor::full([3, 3], 0.5_f32).unwrap().uniform_f64(), Some(0.5));
        assert_eq!(Tensor::vector(vec![0.0_f32, -0.0]).repeated(), None);
        assert_eq!(Tensor::vector(Vec::<f32>::new()).repeated(), None);
    }

    #[test]
    fn an_overflowing_shape_is_an_error() {
        assert!(matches!(Tensor::full([usize::MAX, 2, 3], 0_u8), Err(TensorError::Overflow { .. })));
        assert!(Tensor::full([1 << 40, 1 << 20], 0_f32).is_ok() == (usize::BITS > 62));
        assert!(matches!(Tensor::new(DType::F32, [2], Bytes::from_static(&[0; 7])), Err(TensorError::Length { .. })));
    }

    #[test]
    fn arrays_come_back_in_standard_layout() {
        let array = ArrayD::from_shape_vec(IxDyn(&[2, 3]), vec![1, 2, 3, 4, 5, 6_i64]).unwrap();
        let tensor = Tensor::from_array(array.reversed_axes());
        assert_eq!(tensor.dims(), [3, 2]);
        assert_eq!(tensor.view::<i64>().unwrap().as_ref(), [1, 4, 2, 5, 3, 6]);
    }
}
