//! The sink that makes a TensorRT network.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;
use std::pin::Pin;

use bytes::Bytes;
use cxx::UniquePtr;
use trt_fuse_ir::{DType, Tensor};

use super::EngineError;
use super::dtype;
use super::ffi::NO_TENSOR;
use super::ffi::bridge::{self, RawDims, RawWeights};
use super::library::{Library, Version};
use crate::emit::EmitError;
use crate::emit::layers::{DimsArg, Operand};
use crate::emit::sink::{Label, Outputs, Weights, output_name};

mod layers;

/// A tensor of a [`TrtNetwork`]. Of another network, it is an error or another tensor, never unsound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TrtTensor(pub(super) u32);

/// Weights of one layer that are written out at most: a few bytes of a model can ask for any number of equal elements.
const MOST_WEIGHT_BYTES: usize = 16 << 30;

/// A builder and the network that it is to build.
///
/// TensorRT keeps pointers to the weights until the engine is built, so the network borrows them:
///
/// ```compile_fail,E0597
/// # use std::borrow::Cow;
/// # use trt_fuse::emit::sink::{Label, NetworkSink};
/// # use trt_fuse::tensorrt::{Library, TrtNetwork};
/// # use trt_fuse_ir::Tensor;
/// # fn f(library: &Library) {
/// let mut network = TrtNetwork::new(library).unwrap();
/// {
///     let weights = Tensor::scalar(1.0_f32);
///     network.constant(Label::new("one"), Cow::Borrowed(&weights)).unwrap();
/// }
/// drop(network);
/// # }
/// ```
pub struct TrtNetwork<'w> {
    // Goes before what it points to.
    pub(super) inner: UniquePtr<bridge::Network>,
    pub(super) version: Version,
    /// Weights that had to be written out, and those given to keep.
    arena: Vec<Bytes>,
    weights: PhantomData<&'w Tensor>,
}

impl fmt::Debug for TrtNetwork<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let counts = self.inner.layer_counts();
        write!(f, "TrtNetwork of {} layers", counts.all)
    }
}

/// Weights ready for C++, before a `RawWeights` borrows them.
struct Held<'w> {
    dtype: i32,
    count: i64,
    bytes: Cow<'w, Bytes>,
}

impl Held<'_> {
    /// No weights; `dtype` is that of the weights they stand beside.
    fn none(dtype: i32) -> Self {
        Self { dtype, count: 0, bytes: Cow::Owned(Bytes::new()) }
    }

    fn raw(&self) -> RawWeights<'_> {
        RawWeights { dtype: self.dtype, count: self.count, bytes: &self.bytes }
    }
}

impl<'w> TrtNetwork<'w> {
    /// An empty network, strongly typed where the version has the choice.
    ///
    /// # Errors
    /// If TensorRT makes none.
    pub fn new(library: &Library) -> Result<Self, EngineError> {
        let fail = |why: cxx::Exception| EngineError::Network { message: why.what().to_owned() };
        let inner = library.inner.create_network().map_err(fail)?;
        Ok(Self { inner, version: library.version(), arena: Vec::new(), weights: PhantomData })
    }

    /// Names of the inputs whose values decide shapes.
    ///
    /// # Errors
    /// If TensorRT does not tell.
    pub fn shape_inputs(&self) -> Result<Vec<String>, EngineError> {
        self.inner.shape_inputs().map_err(|why| EngineError::Network { message: why.what().to_owned() })
    }

    fn network(&mut self) -> Pin<&mut bridge::Network> {
        self.inner.pin_mut()
    }

    /// Weights as TensorRT may read them until `self` is dropped: borrowed for `'w`, or kept in the arena.
    fn hold(&mut self, label: Label<'_>, value: Weights<'w>) -> Result<Held<'w>, EmitError> {
        let dtype = code(label, value.dtype())?;
        let numel = value.numel();
        let expected = value.dtype().byte_len(numel);
        if expected.is_none_or(|bytes| bytes > MOST_WEIGHT_BYTES) {
            return Err(EmitError::Parameter {
                layer: label.name.to_owned(),
                parameter: "bytes of the weights",
                expected: format!("at most {MOST_WEIGHT_BYTES}"),
                found: format!("{:?}", value.as_ref()),
            });
        }
        let splat = value.splat_element().map(|element| Bytes::from(element.repeat(numel)));
        let bytes = match (splat, value) {
            (Some(bytes), _) => Cow::Owned(bytes),
            (None, Cow::Borrowed(value)) => Cow::Borrowed(value.bytes()),
            (None, Cow::Owned(value)) => Cow::Owned(value.bytes().clone()),
        };
        let count = i64::try_from(numel).ok().filter(|_| expected == Some(bytes.len()));
        let Some(count) = count else {
            return Err(EmitError::Parameter {
                layer: label.name.to_owned(),
                parameter: "bytes of the weights",
                expected: format!("{expected:?}"),
                found: bytes.len().to_string(),
            });
        };
        if let Cow::Owned(bytes) = &bytes {
            self.arena.push(bytes.clone());
        }
        Ok(Held { dtype, count, bytes })
    }

    fn hold_optional(
        &mut self,
        label: Label<'_>,
        value: Option<Weights<'w>>,
        dtype: i32,
    ) -> Result<Held<'w>, EmitError> {
        match value {
            Some(value) => self.hold(label, value),
            None => Ok(Held::none(dtype)),
        }
    }

    /// Weights, or none of them and a tensor.
    fn hold_operand(
        &mut self,
        label: Label<'_>,
        operand: Option<Operand<'w, TrtTensor>>,
        dtype: i32,
    ) -> Result<(Held<'w>, u32), EmitError> {
        match operand {
            Some(Operand::Weights(value)) => Ok((self.hold(label, value)?, NO_TENSOR)),
            Some(Operand::Tensor(tensor)) => Ok((Held::none(dtype), tensor.0)),
            None => Ok((Held::none(dtype), NO_TENSOR)),
        }
    }

    /// Names the layer whose first output is `made`, and its `N` outputs.
    fn finish<const N: usize>(
        &mut self,
        label: Label<'_>,
        made: Result<u32, cxx::Exception>,
    ) -> Result<[TrtTensor; N], EmitError> {
        let first = made.map_err(|why| refused(label.name, &why))?;
        let mut tensors = [TrtTensor(first); N];
        for (slot, tensor) in (0..).zip(&mut tensors) {
            *tensor = TrtTensor(first.saturating_add(slot));
        }
        for (slot, tensor) in tensors.iter().enumerate() {
            let name = output_name(label.name, slot);
            self.network().set_tensor_name(tensor.0, &name).map_err(|why| refused(label.name, &why))?;
        }
        self.network().finish(first, label.name, label.metadata).map_err(|why| refused(label.name, &why))?;
        Ok(tensors)
    }

    fn one(&mut self, label: Label<'_>, made: Result<u32, cxx::Exception>) -> Result<TrtTensor, EmitError> {
        self.finish(label, made).map(|[tensor]| tensor)
    }

    fn two(&mut self, label: Label<'_>, made: Result<u32, cxx::Exception>) -> Result<Outputs<TrtTensor>, EmitError> {
        self.finish::<2>(label, made).map(Outputs::from)
    }

    /// The name of a tensor's element type in TensorRT's numbers, F32 if the tensor is unknown.
    fn dtype_code(&self, tensor: TrtTensor) -> i32 {
        self.inner.dtype(tensor.0).unwrap_or_default()
    }
}

fn refused(layer: &str, why: &cxx::Exception) -> EmitError {
    EmitError::Layer { layer: layer.to_owned(), message: why.what().to_owned() }
}

fn code(label: Label<'_>, dtype: DType) -> Result<i32, EmitError> {
    dtype::code(dtype).ok_or_else(|| EmitError::DType { layer: label.name.to_owned(), dtype })
}

/// A parameter that TensorRT has in 32 bits.
fn small(label: Label<'_>, parameter: &'static str, value: i64) -> Result<i32, EmitError> {
    i32::try_from(value).map_err(|_| EmitError::Parameter {
        layer: label.name.to_owned(),
        parameter,
        expected: "a value of 32 bits".to_owned(),
        found: value.to_string(),
    })
}

/// A bit for each axis.
fn axis_mask(label: Label<'_>, axes: &[i64]) -> Result<u32, EmitError> {
    axes.iter().try_fold(0, |mask, axis| {
        let bit = u32::try_from(*axis).ok().and_then(|axis| 1_u32.checked_shl(axis));
        bit.map(|bit| mask | bit).ok_or_else(|| EmitError::Parameter {
            layer: label.name.to_owned(),
            parameter: "axis",
            expected: "0 to 31".to_owned(),
            found: axis.to_string(),
        })
    })
}

fn dims<'a>(dims: &DimsArg<'a, TrtTensor>) -> RawDims<'a> {
    match dims {
        DimsArg::Fixed(values) => RawDims { fixed: values, tensor: NO_TENSOR },
        DimsArg::Tensor(tensor) => RawDims { fixed: &[], tensor: tensor.0 },
    }
}

fn optional(tensor: Option<TrtTensor>) -> u32 {
    tensor.map_or(NO_TENSOR, |tensor| tensor.0)
}
