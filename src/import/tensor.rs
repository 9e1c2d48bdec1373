//! Tensors of the model: `onnx.TensorProto` to [`Tensor`].
//!
//! Raw and external data stay where they are; data in typed fields is converted once, without a copy where the field
//! has the element's own width.

use bytes::Bytes;
use trt_fuse_ir::{DType, Element, Tensor};

use super::error::ImportError;
use super::external::ExternalFiles;
use super::limits::{Limits, check};
use super::proto::{DataLocation, TensorProto};

/// The element type of an `onnx.TensorProto.DataType`; `None` for undefined codes and the 6-bit floats.
pub(crate) fn dtype(code: i32) -> Option<DType> {
    Some(match code {
        1 => DType::F32,
        2 => DType::U8,
        3 => DType::I8,
        4 => DType::U16,
        5 => DType::I16,
        6 => DType::I32,
        7 => DType::I64,
        8 => DType::String,
        9 => DType::Bool,
        10 => DType::F16,
        11 => DType::F64,
        12 => DType::U32,
        13 => DType::U64,
        14 => DType::Complex64,
        15 => DType::Complex128,
        16 => DType::BF16,
        17 => DType::F8E4M3,
        18 => DType::F8E4M3Fnuz,
        19 => DType::F8E5M2,
        20 => DType::F8E5M2Fnuz,
        21 => DType::U4,
        22 => DType::I4,
        23 => DType::F4E2M1,
        24 => DType::F8E8M0,
        25 => DType::U2,
        26 => DType::I2,
        _ => return None,
    })
}

/// Reads tensors within limits.
#[derive(Debug)]
pub(crate) struct TensorReader {
    limits: Limits,
    external: ExternalFiles,
    /// Bytes of the tensors read so far.
    bytes: u64,
}

impl TensorReader {
    /// A reader for one model, with the files that its external data may be in.
    pub(crate) fn new(limits: Limits, external: ExternalFiles) -> Self {
        Self { limits, external, bytes: 0 }
    }

    /// The tensor of a message; `label` names it in errors if the message does not.
    ///
    /// # Errors
    /// If type, dimensions and data do not fit each other, or the data cannot be read.
    pub(crate) fn read(&mut self, mut proto: TensorProto, label: &str) -> Result<Tensor, ImportError> {
        let tensor = if proto.name.is_empty() { label.to_owned() } else { std::mem::take(&mut proto.name) };
        let Some(dtype) = dtype(proto.data_type) else {
            return Err(ImportError::DataType { tensor, code: proto.data_type });
        };
        if proto.segment.is_some() {
            return Err(ImportError::Segment { tensor });
        }
        if dtype == DType::String {
            return Err(ImportError::StringTensor { tensor });
        }
        let sizes = self.sizes(&proto.dims, &tensor)?;
        let head = Head { tensor, dtype, dims: std::mem::take(&mut proto.dims) };
        let (field, bytes) = if proto.data_location == DataLocation::External as i32 {
            head.expect_no_other("external_data", &proto)?;
            ("external data", self.external.read(&head.tensor, &proto.external_data)?)
        } else if !proto.raw_data.is_empty() {
            head.expect_no_other("raw_data", &proto)?;
            ("raw_data", proto.raw_data)
        } else {
            head.convert(proto)?
        };
        self.finish(&head, &sizes, field, bytes)
    }

    /// Dimensions, each at least 0, within limits.
    fn sizes(&self, dims: &[i64], tensor: &str) -> Result<Vec<usize>, ImportError> {
        self.limits.check_rank(dims.len(), tensor)?;
        let mut sizes = Vec::with_capacity(dims.len());
        for (axis, &dim) in dims.iter().enumerate() {
            let size =
                usize::try_from(dim).map_err(|_| ImportError::NegativeDim { tensor: tensor.to_owned(), axis, dim })?;
            sizes.push(size);
        }
        let count = sizes.iter().try_fold(1_u64, |count, size| count.checked_mul(*size as u64)).unwrap_or(u64::MAX);
        self.limits.check_elements(count, tensor)?;
        Ok(sizes)
    }

    fn finish(
        &mut self,
        head: &Head,
        sizes: &[usize],
        field: &'static str,
        bytes: Bytes,
    ) -> Result<Tensor, ImportError> {
        let found = bytes.len() as u64;
        let expected = trt_fuse_ir::numel(sizes).and_then(|count| head.dtype.byte_len(count));
        let expected = expected.map_or(u64::MAX, |len| len as u64);
        if found != expected {
            return Err(head.wrong_length(expected, found, field));
        }
        self.bytes = self.bytes.saturating_add(found);
        check(self.bytes, self.limits.max_weight_bytes, || "bytes of weights".to_owned())?;
        let tensor = |error| ImportError::Tensor { tensor: head.tensor.clone(), error };
        Tensor::new(head.dtype, sizes, bytes).map_err(tensor)
    }
}

/// What a tensor is, apart from its data.
struct Head {
    tensor: String,
    dtype: DType,
    dims: Vec<i64>,
}

/// Name of the field that holds elements of a type.
fn field_of(dtype: DType) -> &'static str {
    match dtype {
        DType::F32 | DType::Complex64 => "float_data",
        DType::F64 | DType::Complex128 => "double_data",
        DType::I64 => "int64_data",
        DType::U32 | DType::U64 => "uint64_data",
        _ => "int32_data",
    }
}

/// Fields with data, typed and raw.
fn filled(proto: &TensorProto) -> impl Iterator<Item = &'static str> {
    [
        ("float_data", proto.float_data.is_empty()),
        ("int32_data", proto.int32_data.is_empty()),
        ("string_data", proto.string_data.is_empty()),
        ("int64_data", proto.int64_data.is_empty()),
        ("raw_data", proto.raw_data.is_empty()),
        ("double_data", proto.double_data.is_empty()),
        ("uint64_data", proto.uint64_data.is_empty()),
    ]
    .into_iter()
    .filter_map(|(field, empty)| (!empty).then_some(field))
}

impl Head {
    /// Refuses data beside that in `field`.
    fn expect_no_other(&self, field: &'static str, proto: &TensorProto) -> Result<(), ImportError> {
        match filled(proto).find(|other| *other != field) {
            Some(second) => Err(ImportError::DataTwice { tensor: self.tensor.clone(), first: field, second }),
            None => Ok(()),
        }
    }

    fn wrong_length(&self, expected: u64, found: u64, field: &'static str) -> ImportError {
        let (dtype, dims) = (self.dtype, self.dims.clone());
        ImportError::DataLength { tensor: self.tensor.clone(), dtype, dims, expected, found, field }
    }

    /// The bytes of the typed field for this element type, and its name.
    fn convert(&self, proto: TensorProto) -> Result<(&'static str, Bytes), ImportError> {
        let field = field_of(self.dtype);
        if let Some(found) = filled(&proto).find(|other| *other != field) {
            let tensor = self.tensor.clone();
            return Err(if filled(&proto).any(|other| other == field) {
                ImportError::DataTwice { tensor, first: field, second: found }
            } else {
                ImportError::DataField { tensor, dtype: self.dtype, expected: field, found }
            });
        }
        let bytes = match self.dtype {
            DType::F32 | DType::Complex64 => f32::into_bytes(proto.float_data),
            DType::F64 | DType::Complex128 => f64::into_bytes(proto.double_data),
            DType::I64 => i64::into_bytes(proto.int64_data),
            DType::U64 => u64::into_bytes(proto.uint64_data),
            DType::U32 => u32::into_bytes(self.narrow(&proto.uint64_data)?),
            DType::I32 => i32::into_bytes(proto.int32_data),
            DType::I16 => i16::into_bytes(self.narrow(&proto.int32_data)?),
            // Half floats are written as their bit patterns.
            DType::U16 | DType::F16 | DType::BF16 => u16::into_bytes(self.narrow(&proto.int32_data)?),
            DType::I8 => i8::into_bytes(self.narrow(&proto.int32_data)?),
            DType::Bool => match proto.int32_data.iter().position(|value| !matches!(value, 0 | 1)) {
                Some(index) => return Err(self.wrong_value(index, proto.int32_data.get(index).copied().unwrap_or(0))),
                None => u8::into_bytes(self.narrow(&proto.int32_data)?),
            },
            // One element of 8 bits a value, or a byte of packed elements.
            _ => u8::into_bytes(self.narrow(&proto.int32_data)?),
        };
        Ok((field, bytes))
    }

    fn narrow<T: Copy + Into<i128>, U: TryFrom<T>>(&self, values: &[T]) -> Result<Vec<U>, ImportError> {
        let narrow = |(index, value): (usize, &T)| U::try_from(*value).map_err(|_| self.wrong_value(index, *value));
        values.iter().enumerate().map(narrow).collect()
    }

    fn wrong_value(&self, index: usize, value: impl Into<i128>) -> ImportError {
        let (dtype, field) = (self.dtype, field_of(self.dtype));
        ImportError::DataValue { tensor: self.tensor.clone(), dtype, field, index, value: value.into() }
    }
}

#[cfg(test)]
mod tests;
