//! Element types in TensorRT's numbers.

use trt_fuse_ir::DType;

/// TensorRT's value of each type, as `cpp/terms.cc` asserts it.
const CODES: &[(DType, i32)] = &[
    (DType::F32, 0),
    (DType::F16, 1),
    (DType::I8, 2),
    (DType::I32, 3),
    (DType::Bool, 4),
    (DType::U8, 5),
    (DType::F8E4M3, 6),
    (DType::BF16, 7),
    (DType::I64, 8),
    (DType::I4, 9),
    (DType::F4E2M1, 10),
    (DType::F8E8M0, 11),
];

/// TensorRT's value of a type, if TensorRT has it.
pub(super) fn code(dtype: DType) -> Option<i32> {
    CODES.iter().find(|row| row.0 == dtype).map(|row| row.1)
}

/// The type of TensorRT's value.
pub(crate) fn from_code(code: i32) -> Option<DType> {
    CODES.iter().find(|row| row.1 == code).map(|row| row.0)
}
