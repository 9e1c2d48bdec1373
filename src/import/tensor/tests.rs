use half::{bf16, f16};

use super::super::proto::{Segment, StringStringEntryProto};
use super::*;

fn reader() -> TensorReader {
    TensorReader::new(Limits::default(), ExternalFiles::none())
}

fn read(proto: TensorProto) -> Result<Tensor, ImportError> {
    reader().read(proto, "t")
}

fn proto(data_type: i32, dims: &[i64]) -> TensorProto {
    TensorProto { data_type, dims: dims.to_vec(), ..Default::default() }
}

fn line(proto: TensorProto) -> String {
    read(proto).unwrap_err().to_string()
}

#[test]
fn raw_data_is_not_copied() {
    let raw = Bytes::from(vec![0, 0, 128, 63, 0, 0, 0, 192]);
    let tensor = read(TensorProto { raw_data: raw.clone(), ..proto(1, &[2, 1]) }).unwrap();
    assert_eq!(tensor.view::<f32>().unwrap().as_ref(), [1.0, -2.0]);
    assert_eq!(tensor.dims(), [2, 1]);
    assert_eq!(tensor.bytes().as_ptr(), raw.as_ptr());
}

#[test]
fn wide_typed_fields_are_taken_as_they_are() {
    let tensor = read(TensorProto { float_data: vec![1.5, -0.0, f32::INFINITY], ..proto(1, &[3]) }).unwrap();
    assert_eq!(tensor.view::<f32>().unwrap().as_ref(), [1.5, -0.0, f32::INFINITY]);
    let tensor = read(TensorProto { double_data: vec![0.1], ..proto(11, &[]) }).unwrap();
    assert_eq!(tensor.view::<f64>().unwrap().as_ref(), [0.1]);
    let tensor = read(TensorProto { int64_data: vec![i64::MIN, 7], ..proto(7, &[2]) }).unwrap();
    assert_eq!(tensor.view::<i64>().unwrap().as_ref(), [i64::MIN, 7]);
    let tensor = read(TensorProto { uint64_data: vec![u64::MAX], ..proto(13, &[1]) }).unwrap();
    assert_eq!(tensor.view::<u64>().unwrap().as_ref(), [u64::MAX]);
    let tensor = read(TensorProto { int32_data: vec![i32::MIN], ..proto(6, &[1]) }).unwrap();
    assert_eq!(tensor.view::<i32>().unwrap().as_ref(), [i32::MIN]);
    // Complex numbers are pairs.
    let tensor = read(TensorProto { float_data: vec![1.0, 2.0, 3.0, 4.0], ..proto(14, &[2]) }).unwrap();
    assert_eq!((tensor.dtype(), tensor.bytes().len()), (DType::Complex64, 16));
}

#[test]
fn narrow_types_come_from_wider_fields() {
    let int32 = |code, dims: &[i64], data: &[i32]| {
        read(TensorProto { int32_data: data.to_vec(), ..proto(code, dims) }).unwrap()
    };
    assert_eq!(int32(3, &[2], &[-128, 127]).view::<i8>().unwrap().as_ref(), [-128, 127]);
    assert_eq!(int32(2, &[2], &[0, 255]).view::<u8>().unwrap().as_ref(), [0, 255]);
    assert_eq!(int32(5, &[1], &[-32768]).view::<i16>().unwrap().as_ref(), [-32768]);
    assert_eq!(int32(4, &[1], &[65535]).view::<u16>().unwrap().as_ref(), [65535]);
    assert_eq!(int32(9, &[2], &[1, 0]).view::<bool>().unwrap().as_ref(), [true, false]);
    // 0x3c00 is 1.0 and 0xc000 is -2.0 in binary16; 0x3f80 is 1.0 in bfloat16.
    let expected = [f16::from_f32(1.0), f16::from_f32(-2.0)];
    assert_eq!(int32(10, &[2], &[0x3c00, 0xc000]).view::<f16>().unwrap().as_ref(), expected);
    assert_eq!(int32(16, &[1], &[0x3f80]).view::<bf16>().unwrap().as_ref(), [bf16::from_f32(1.0)]);
    // Packed: two elements of 4 bits a value, four of 2 bits.
    assert_eq!(int32(22, &[3], &[0xf1, 0x07]).bytes().as_ref(), [0xf1, 0x07]);
    assert_eq!(int32(25, &[5], &[0b11_10_01_00, 1]).bytes().as_ref(), [0b11_10_01_00, 1]);
    for code in [17, 18, 19, 20, 24] {
        assert_eq!(int32(code, &[2], &[0x38, 0xff]).bytes().as_ref(), [0x38, 0xff]);
    }
    let tensor = read(TensorProto { uint64_data: vec![u64::from(u32::MAX)], ..proto(12, &[1]) }).unwrap();
    assert_eq!(tensor.view::<u32>().unwrap().as_ref(), [u32::MAX]);
}

#[test]
fn every_data_type_code_has_the_width_of_the_specification() {
    // onnx.proto, TensorProto.DataType, in the order of the codes.
    let bits = [32, 8, 8, 16, 16, 32, 64, 0, 8, 16, 64, 32, 64, 64, 128, 16, 8, 8, 8, 8, 4, 4, 4, 8, 2, 2];
    for (code, bits) in (1..).zip(bits) {
        assert_eq!(dtype(code).unwrap().bits(), bits, "data type {code}");
    }
    assert_eq!(dtype(0), None);
    assert_eq!(dtype(27), None);
}

#[test]
fn wrong_lengths_name_tensor_expected_and_found() {
    let named = TensorProto { name: "w".into(), raw_data: vec![0; 11].into(), ..proto(1, &[3]) };
    insta::assert_snapshot!(line(named), @"tensor `w` of f32[3] needs 12 bytes, found 11 in raw_data");
    let typed = TensorProto { int32_data: vec![1; 3], ..proto(22, &[3]) };
    insta::assert_snapshot!(line(typed), @"tensor `t` of i4[3] needs 2 bytes, found 3 in int32_data");
    insta::assert_snapshot!(line(proto(1, &[2])), @"tensor `t` of f32[2] needs 8 bytes, found 0 in float_data");
    assert!(read(proto(1, &[2, 0])).is_ok());
}

#[test]
fn values_out_of_range_name_their_place() {
    let int32 =
        |code, data: &[i32]| line(TensorProto { int32_data: data.to_vec(), ..proto(code, &[data.len() as i64]) });
    insta::assert_snapshot!(int32(3, &[1, 128]), @"tensor `t`: value 128 at index 1 of int32_data does not fit i8");
    insta::assert_snapshot!(int32(10, &[-1]), @"tensor `t`: value -1 at index 0 of int32_data does not fit f16");
    insta::assert_snapshot!(int32(9, &[2]), @"tensor `t`: value 2 at index 0 of int32_data does not fit bool");
    let u32 = TensorProto { uint64_data: vec![1 << 32], ..proto(12, &[1]) };
    insta::assert_snapshot!(line(u32), @"tensor `t`: value 4294967296 at index 0 of uint64_data does not fit u32");
}

#[test]
fn data_in_the_wrong_or_in_two_fields_is_refused() {
    let wrong = TensorProto { int32_data: vec![1], ..proto(1, &[1]) };
    insta::assert_snapshot!(line(wrong), @"tensor `t`: f32 data belongs in float_data or raw_data, found in int32_data");
    let twice = TensorProto { raw_data: vec![0; 4].into(), float_data: vec![1.0], ..proto(1, &[1]) };
    insta::assert_snapshot!(line(twice), @"tensor `t` has data both in raw_data and in float_data");
}

#[test]
fn hostile_dimensions_are_refused() {
    insta::assert_snapshot!(line(proto(1, &[2, -3])), @"tensor `t`: dimension 1 is -3");
    insta::assert_snapshot!(
        line(proto(1, &[i64::MAX, i64::MAX])),
        @"tensor `t`: elements: 18446744073709551615 exceeds the limit of 274877906944"
    );
    insta::assert_snapshot!(line(proto(1, &[1; 65])), @"tensor `t`: dimensions: 65 exceeds the limit of 64");
    // A product that is within the limit but has no data behind it.
    insta::assert_snapshot!(
        line(proto(2, &[1 << 37])),
        @"tensor `t` of u8[137438953472] needs 137438953472 bytes, found 0 in int32_data"
    );
}

#[test]
fn what_cannot_be_read_says_so() {
    insta::assert_snapshot!(line(proto(0, &[1])), @"tensor `t`: data type 0 is not supported");
    insta::assert_snapshot!(line(proto(27, &[1])), @"tensor `t`: data type 27 is not supported");
    insta::assert_snapshot!(
        line(TensorProto { string_data: vec![Bytes::from_static(b"a")], ..proto(8, &[1]) }),
        @"tensor `t`: string tensors hold no data that a network could use"
    );
    insta::assert_snapshot!(
        line(TensorProto { segment: Some(Segment::default()), ..proto(1, &[1]) }),
        @"tensor `t`: segmented tensors are not supported"
    );
}

#[test]
fn weights_together_are_limited() {
    let mut reader = TensorReader::new(Limits { max_weight_bytes: 8, ..Limits::default() }, ExternalFiles::none());
    let one = TensorProto { raw_data: vec![0; 5].into(), ..proto(2, &[5]) };
    assert!(reader.read(one.clone(), "a").is_ok());
    assert!(matches!(reader.read(one, "b"), Err(ImportError::Limit { found: 10, limit: 8, .. })));
}

#[test]
fn external_data_is_read_by_byte_count() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("w"), [0, 1, 0, 2, 0]).unwrap();
    let entry = |key: &str, value: &str| StringStringEntryProto { key: key.into(), value: value.into() };
    let external = |offset: &str, length: &str| TensorProto {
        data_location: 1,
        external_data: vec![entry("location", "w"), entry("offset", offset), entry("length", length)],
        ..proto(5, &[2])
    };
    let mut reader = TensorReader::new(Limits::default(), ExternalFiles::in_folder(folder.path()).unwrap());
    assert_eq!(reader.read(external("1", "4"), "t").unwrap().view::<i16>().unwrap().as_ref(), [1, 2]);
    let short = reader.read(external("1", "3"), "t").unwrap_err();
    insta::assert_snapshot!(short, @"tensor `t` of i16[2] needs 4 bytes, found 3 in external data");
}
