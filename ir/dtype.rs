//! Element types.

use std::fmt;
use std::str::FromStr;

/// An element type, by ONNX's names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum DType {
    /// Not known: the output of an operator that has no inference rule.
    Unknown,
    /// IEEE binary32.
    F32,
    /// IEEE binary16.
    F16,
    /// bfloat16.
    BF16,
    /// IEEE binary64.
    F64,
    /// Signed 8-bit integer.
    I8,
    /// Unsigned 8-bit integer.
    U8,
    /// Signed 16-bit integer.
    I16,
    /// Unsigned 16-bit integer.
    U16,
    /// Signed 32-bit integer.
    I32,
    /// Unsigned 32-bit integer.
    U32,
    /// Signed 64-bit integer.
    I64,
    /// Unsigned 64-bit integer.
    U64,
    /// Boolean, one byte an element.
    Bool,
    /// 8-bit float, 4 exponent bits, finite with NaN.
    F8E4M3,
    /// 8-bit float, 4 exponent bits, finite, no negative zero.
    F8E4M3Fnuz,
    /// 8-bit float, 5 exponent bits.
    F8E5M2,
    /// 8-bit float, 5 exponent bits, finite, no negative zero.
    F8E5M2Fnuz,
    /// 8-bit power-of-two scale.
    F8E8M0,
    /// 4-bit float, two a byte.
    F4E2M1,
    /// Signed 4-bit integer, two a byte.
    I4,
    /// Unsigned 4-bit integer, two a byte.
    U4,
    /// Signed 2-bit integer, four a byte.
    I2,
    /// Unsigned 2-bit integer, four a byte.
    U2,
    /// Two binary32.
    Complex64,
    /// Two binary64.
    Complex128,
    /// UTF-8 strings; no tensor of them holds data here.
    String,
}

/// Every type with its name in the text form and its width in bits.
const NAMES: &[(DType, &str, usize)] = &[
    (DType::Unknown, "unknown", 0),
    (DType::F32, "f32", 32),
    (DType::F16, "f16", 16),
    (DType::BF16, "bf16", 16),
    (DType::F64, "f64", 64),
    (DType::I8, "i8", 8),
    (DType::U8, "u8", 8),
    (DType::I16, "i16", 16),
    (DType::U16, "u16", 16),
    (DType::I32, "i32", 32),
    (DType::U32, "u32", 32),
    (DType::I64, "i64", 64),
    (DType::U64, "u64", 64),
    (DType::Bool, "bool", 8),
    (DType::F8E4M3, "f8e4m3", 8),
    (DType::F8E4M3Fnuz, "f8e4m3fnuz", 8),
    (DType::F8E5M2, "f8e5m2", 8),
    (DType::F8E5M2Fnuz, "f8e5m2fnuz", 8),
    (DType::F8E8M0, "f8e8m0", 8),
    (DType::F4E2M1, "f4e2m1", 4),
    (DType::I4, "i4", 4),
    (DType::U4, "u4", 4),
    (DType::I2, "i2", 2),
    (DType::U2, "u2", 2),
    (DType::Complex64, "complex64", 64),
    (DType::Complex128, "complex128", 128),
    (DType::String, "string", 0),
];

impl DType {
    fn row(self) -> (&'static str, usize) {
        NAMES.iter().find(|row| row.0 == self).map_or(("unknown", 0), |row| (row.1, row.2))
    }

    /// The name in the text form.
    pub fn name(self) -> &'static str {
        self.row().0
    }

    /// Bits an element; 0 for strings and unknown types.
    pub fn bits(self) -> usize {
        self.row().1
    }

    /// Bytes that `count` elements take, packed for types below a byte; `None` on overflow and for types without data.
    pub fn byte_len(self, count: usize) -> Option<usize> {
        match self.bits() {
            0 => None,
            bits if bits >= 8 => count.checked_mul(bits / 8),
            bits => Some(count.div_ceil(8 / bits)),
        }
    }

    /// Real floating-point types of any width.
    pub fn is_float(self) -> bool {
        use DType::*;
        matches!(self, F32 | F16 | BF16 | F64 | F8E4M3 | F8E4M3Fnuz | F8E5M2 | F8E5M2Fnuz | F8E8M0 | F4E2M1)
    }

    /// The smallest and the largest positive normal number of a float type that is computed in.
    pub fn normal_range(self) -> Option<(f64, f64)> {
        Some(match self {
            DType::F64 => (f64::MIN_POSITIVE, f64::MAX),
            DType::F32 => (f32::MIN_POSITIVE.into(), f32::MAX.into()),
            DType::F16 => (half::f16::MIN_POSITIVE.into(), half::f16::MAX.into()),
            DType::BF16 => (half::bf16::MIN_POSITIVE.into(), half::bf16::MAX.into()),
            _ => return None,
        })
    }

    /// Integer types of any width; not Bool.
    pub fn is_integer(self) -> bool {
        self.is_signed_integer() || self.is_unsigned_integer()
    }

    /// Signed integer types.
    pub fn is_signed_integer(self) -> bool {
        matches!(self, DType::I8 | DType::I16 | DType::I32 | DType::I64 | DType::I4 | DType::I2)
    }

    /// Unsigned integer types.
    pub fn is_unsigned_integer(self) -> bool {
        matches!(self, DType::U8 | DType::U16 | DType::U32 | DType::U64 | DType::U4 | DType::U2)
    }
}

impl fmt::Display for DType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for DType {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        NAMES.iter().find(|row| row.1 == text).map(|row| row.0).ok_or(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_parsed_back() {
        for (dtype, name, _) in NAMES {
            assert_eq!(name.parse(), Ok(*dtype));
        }
    }

    #[test]
    fn types_below_a_byte_are_packed() {
        assert_eq!(DType::I4.byte_len(3), Some(2));
        assert_eq!(DType::U2.byte_len(5), Some(2));
        assert_eq!(DType::F64.byte_len(usize::MAX), None);
    }
}
