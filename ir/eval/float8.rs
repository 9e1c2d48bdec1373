//! Floats of 8 and 4 bits: their values and the rounding to them.

use crate::DType;

/// How a narrow float type lays out its bits, and what stands for NaN and infinity.
#[derive(Debug, Clone, Copy)]
struct Format {
    mantissa_bits: u32,
    bias: i32,
    /// Bits of the largest finite value.
    largest: u8,
    /// Bits of infinity, if there is one.
    infinity: Option<u8>,
    /// Bits of NaN, if there is one.
    nan: Option<u8>,
    sign: u8,
    /// The sign bit alone is NaN and not a negative zero.
    unsigned_zero: bool,
}

const E4M3: Format = Format {
    mantissa_bits: 3,
    bias: 7,
    largest: 0x7E,
    infinity: None,
    nan: Some(0x7F),
    sign: 0x80,
    unsigned_zero: false,
};
const E4M3_FNUZ: Format = Format { bias: 8, largest: 0x7F, nan: Some(0x80), unsigned_zero: true, ..E4M3 };
const E5M2: Format =
    Format { mantissa_bits: 2, bias: 15, largest: 0x7B, infinity: Some(0x7C), nan: Some(0x7E), ..E4M3 };
const E5M2_FNUZ: Format = Format { mantissa_bits: 2, bias: 16, ..E4M3_FNUZ };
const E2M1: Format = Format { mantissa_bits: 1, bias: 1, largest: 0x07, nan: None, sign: 0x08, ..E4M3 };

fn format(dtype: DType) -> Option<Format> {
    match dtype {
        DType::F8E4M3 => Some(E4M3),
        DType::F8E4M3Fnuz => Some(E4M3_FNUZ),
        DType::F8E5M2 => Some(E5M2),
        DType::F8E5M2Fnuz => Some(E5M2_FNUZ),
        DType::F4E2M1 => Some(E2M1),
        _ => None,
    }
}

/// The value of an element's bits; `None` if `dtype` is no float of 8 or 4 bits.
pub(super) fn decode(dtype: DType, bits: u8) -> Option<f32> {
    if dtype == DType::F8E8M0 {
        return Some(if bits == 0xFF { f32::NAN } else { 2_f64.powi(i32::from(bits) - 127) as f32 });
    }
    let format = format(dtype)?;
    let magnitude = bits & (format.sign - 1);
    let is_nan = if format.unsigned_zero {
        bits == format.sign
    } else {
        format.nan.is_some() && magnitude > format.infinity.unwrap_or(format.largest)
    };
    let value = if is_nan {
        f32::NAN
    } else if format.infinity == Some(magnitude) {
        f32::INFINITY
    } else {
        magnitude_of(format, magnitude)
    };
    Some(if bits & format.sign != 0 { -value } else { value })
}

fn magnitude_of(format: Format, bits: u8) -> f32 {
    let mantissa = f32::from(bits & ((1 << format.mantissa_bits) - 1));
    let exponent = i32::from(bits >> format.mantissa_bits);
    let one = f32::from(1_u8 << format.mantissa_bits);
    let significand = if exponent == 0 { mantissa } else { one + mantissa };
    significand / one * 2_f32.powi(exponent.max(1) - format.bias)
}

/// The bits of the nearest element, halves to even. Values too large become the largest with `saturate` (which says
/// the same of infinity), else infinity or NaN, as the type has them. `None` if `dtype` is no such type.
pub(super) fn encode(dtype: DType, value: f32, saturate: bool) -> Option<u8> {
    if dtype == DType::F8E8M0 {
        return Some(encode_scale(value, saturate));
    }
    let format = format(dtype)?;
    let sign = if value.is_sign_negative() { format.sign } else { 0 };
    let signed = |bits: u8| if format.unsigned_zero && bits == 0 { 0 } else { bits | sign };
    let Some(nan) = format.nan else {
        // No NaN to give: as ONNX's own conversions have it, a negative zero stands for one.
        let bits = round(format, value.abs()).unwrap_or(format.largest);
        return Some(if value.is_nan() { format.sign } else { signed(bits) });
    };
    let nan = if format.unsigned_zero { nan } else { nan | sign };
    if value.is_nan() {
        return Some(nan);
    }
    Some(match round(format, value.abs()) {
        Some(bits) => signed(bits),
        None if saturate => signed(format.largest),
        None => format.infinity.map_or(nan, signed),
    })
}

/// The bits of the nearest magnitude; `None` beyond the largest.
fn round(format: Format, value: f32) -> Option<u8> {
    if !value.is_finite() {
        return None;
    }
    // Exact: powers of two of a range that f64 has to spare.
    let value = f64::from(value);
    let least = 1 - format.bias;
    let exponent = if value == 0.0 { least } else { exponent_of(value).max(least) };
    let quantum = 2_f64.powi(exponent - format.mantissa_bits as i32);
    let steps = (value / quantum).round_ties_even();
    // Steps of 2^(mantissa_bits + 1) carry into the exponent by themselves.
    let bits = i64::from(exponent - least) * (1 << format.mantissa_bits) + steps as i64;
    u8::try_from(bits).ok().filter(|bits| *bits <= format.largest)
}

fn exponent_of(value: f64) -> i32 {
    ((value.to_bits() >> 52) & 0x7FF) as i32 - 1023
}

/// A power of two as its exponent, rounded up in magnitude.
fn encode_scale(value: f32, saturate: bool) -> u8 {
    const NAN: u8 = 0xFF;
    const LARGEST: i32 = 254;
    if value.is_nan() {
        return NAN;
    }
    let value = f64::from(value.abs());
    if value == 0.0 || value.is_infinite() {
        return match (saturate, value == 0.0) {
            (true, true) => 0,
            (true, false) => LARGEST as u8,
            (false, _) => NAN,
        };
    }
    let below = exponent_of(value);
    let exponent = if 2_f64.powi(below) < value { below + 1 } else { below } + 127;
    match exponent {
        exponent if (0..=LARGEST).contains(&exponent) => exponent as u8,
        _ if !saturate => NAN,
        exponent => exponent.clamp(0, LARGEST) as u8,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Values of the formats' tables in the OCP 8-bit floating point specification and ONNX's float8 page.
    #[test]
    fn extreme_values() {
        let decode = |dtype, bits| decode(dtype, bits).unwrap();
        assert_eq!(decode(DType::F8E4M3, 0x7E), 448.0);
        assert_eq!(decode(DType::F8E4M3, 0x08), 2_f32.powi(-6));
        assert_eq!(decode(DType::F8E4M3, 0x01), 2_f32.powi(-9));
        assert!(decode(DType::F8E4M3, 0xFF).is_nan());
        assert_eq!(decode(DType::F8E4M3Fnuz, 0x7F), 240.0);
        assert!(decode(DType::F8E4M3Fnuz, 0x80).is_nan());
        assert_eq!(decode(DType::F8E5M2, 0x7B), 57344.0);
        assert_eq!(decode(DType::F8E5M2, 0xFC), f32::NEG_INFINITY);
        assert!(decode(DType::F8E5M2, 0x7D).is_nan());
        assert_eq!(decode(DType::F8E5M2, 0x01), 2_f32.powi(-16));
        assert_eq!(decode(DType::F8E5M2Fnuz, 0x7F), 57344.0);
        assert_eq!(decode(DType::F8E8M0, 0), 2_f32.powi(-127));
        assert_eq!(
            (0..8).map(|bits| decode(DType::F4E2M1, bits)).collect::<Vec<_>>(),
            [0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0]
        );
        assert_eq!(decode(DType::F4E2M1, 0x0F), -6.0);
    }

    #[test]
    fn every_finite_value_is_encoded_back() {
        for dtype in [DType::F8E4M3, DType::F8E4M3Fnuz, DType::F8E5M2, DType::F8E5M2Fnuz, DType::F8E8M0] {
            for bits in 0..=255_u8 {
                let value = decode(dtype, bits).unwrap();
                if value.is_finite() {
                    assert_eq!(encode(dtype, value, false), Some(bits), "{dtype} {value}");
                } else if value.is_nan() {
                    assert!(decode(dtype, encode(dtype, value, true).unwrap()).unwrap().is_nan());
                }
            }
        }
    }

    #[test]
    fn halves_go_to_even_and_overflow_follows_saturate() {
        let round = |dtype, value, saturate| decode(dtype, encode(dtype, value, saturate).unwrap()).unwrap();
        // Neighbours of 17 in E4M3 are 16 (even) and 18; of 19, 18 and 20 (even).
        assert_eq!(round(DType::F8E4M3, 17.0, true), 16.0);
        assert_eq!(round(DType::F8E4M3, 19.0, true), 20.0);
        // 448 + half a step of 32 ties to even, which would be 480: above the largest.
        assert_eq!(round(DType::F8E4M3, 463.0, false), 448.0);
        assert!(round(DType::F8E4M3, 465.0, false).is_nan());
        assert_eq!(round(DType::F8E4M3, f32::INFINITY, true), 448.0);
        assert_eq!(round(DType::F8E5M2, -1e9, false), f32::NEG_INFINITY);
        assert_eq!(encode(DType::F8E4M3Fnuz, -0.0, true), Some(0));
        assert_eq!(encode(DType::F8E4M3, -0.0, true), Some(0x80));
        assert_eq!(round(DType::F4E2M1, 100.0, false), 6.0);
        // 2.5 lies between 2 (even mantissa) and 3.
        assert_eq!(round(DType::F4E2M1, 2.5, false), 2.0);
        assert_eq!(round(DType::F8E8M0, 3.0, true), 4.0);
    }
}
