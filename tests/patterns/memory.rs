//! Constants that would fill the memory if they were computed.

use std::io::{Seek as _, SeekFrom, Write as _};
use std::path::Path;
use std::process::Command;

use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use trt_fuse::import::{ImportOptions, import_file};
use trt_fuse::{Options, optimize};

use super::write::Value::{Ints, Tensor as Data};
use super::write::{floats, graph, ints, node, plain};
use super::{operators, with_weights};

/// Address space for the program on a model of a few bytes that stands for gigabytes.
const MEMORY_KIB: u64 = 512 * 1024;
/// Rows and columns of a weight of 16 MiB.
const ROWS: i64 = 2048;

/// The operators that are left after the passes within bounded memory.
#[track_caller]
fn left_of(folder: &Path, model: &onnx::ModelProto) -> Vec<String> {
    let path = folder.join("model.onnx");
    std::fs::write(&path, model.write_to_bytes().unwrap()).unwrap();
    let limited = format!("ulimit -v {MEMORY_KIB} && exec \"$0\" \"$1\"");
    let output = Command::new("sh").args(["-c", &limited, env!("CARGO_BIN_EXE_fuse-report")]).arg(&path).output();
    let output = output.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let model = import_file(&path, &ImportOptions::default()).unwrap();
    operators(&optimize(model, &Options::default()).unwrap().graph)
}

#[test]
fn large_constants_are_not_written_out() {
    let folder = tempfile::tempdir().unwrap();
    let of = |input: &str, nodes: Vec<onnx::NodeProto>, weights: Vec<onnx::TensorProto>| {
        left_of(folder.path(), &with_weights(17, graph(&[input], &["y"], nodes), weights))
    };
    // 16 GiB of one number: adding it needs no more than the number.
    let one = vec![("value", Data(floats("", &[1], &[1.0])))];
    let nodes = vec![node("k = ConstantOfShape(shape)", one), plain("y = Add(x, k)")];
    let left = of("x: 1[1]", nodes, vec![ints("shape", &[65536, 65536])]);
    assert_eq!(left, ["add"]);
    // 128 MiB of 32 numbers.
    let nodes = vec![plain("k = Tile(few, repeats)"), plain("y = Add(x, k)")];
    let few: Vec<f32> = (0..32_i16).map(f32::from).collect();
    let left = of("x: 1[1]", nodes, vec![floats("few", &[8, 4], &few), ints("repeats", &[1, 1_000_000])]);
    assert_eq!(left, ["add", "tile"]);
    // 1 GiB of a row, which the sum broadcasts anyway.
    let row: Vec<f32> = (0..1024_i16).map(f32::from).collect();
    let nodes = vec![plain("k = Expand(row, shape)"), plain("y = Sub(x, k)")];
    let left = of("x: 1[262144, 1024]", nodes, vec![floats("row", &[1024], &row), ints("shape", &[262_144, 1024])]);
    assert_eq!(left, ["add"]);
}

/// A weight in a file of its own. The file has a hole and takes no room; its last element is another, so that the weight
/// is not one repeated number.
fn large_weight(folder: &Path) -> onnx::TensorProto {
    let mut file = std::fs::File::create(folder.join("weights.bin")).unwrap();
    file.seek(SeekFrom::Start((ROWS * ROWS * 4 - 4) as u64)).unwrap();
    file.write_all(&1.0_f32.to_le_bytes()).unwrap();
    let entry =
        onnx::StringStringEntryProto { key: "location".into(), value: "weights.bin".into(), ..Default::default() };
    onnx::TensorProto {
        external_data: vec![entry],
        data_location: onnx::tensor_proto::DataLocation::EXTERNAL.into(),
        ..floats("w", &[ROWS, ROWS], &[])
    }
}

/// A transposed weight is folded where it takes the place of the weight, not where it would lie beside it.
#[test]
fn a_large_weight_is_folded_into_its_own_place_alone() {
    let folder = tempfile::tempdir().unwrap();
    let weight = large_weight(folder.path());
    let turned = || node("t = Transpose(w)", vec![("perm", Ints(&[1, 0]))]);
    let sole = vec![turned(), plain("y = Add(x, t)")];
    let sole = with_weights(17, graph(&["x: 1[1]"], &["y"], sole), vec![weight.clone()]);
    assert_eq!(left_of(folder.path(), &sole), ["add"]);
    let both = vec![turned(), plain("y = Add(x, t)"), plain("z = Mul(x, w)")];
    let both = with_weights(17, graph(&["x: 1[1]"], &["y", "z"], both), vec![weight]);
    assert_eq!(left_of(folder.path(), &both), ["add", "mul", "transpose"]);
}
