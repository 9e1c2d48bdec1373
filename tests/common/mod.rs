//! What the tests on whole models share.
#![allow(dead_code, reason = "each test binary uses a part")]

use std::fs::File;
use std::io::{BufReader, BufWriter};
use std::path::{Path, PathBuf};

use trt_fuse::import::{ImportOptions, Model, import_file};
use trt_fuse::ir::{DType, Graph, Tensor};
use trt_fuse::tensorrt::{EngineError, Flavour, Library};
use trt_fuse::{Error, Options, open_library};

pub(crate) fn testdata() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata")
}

/// The names of the packed models in a folder of testdata.
pub(crate) fn packed(folder: &str) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(testdata().join(folder))
        .unwrap()
        .filter_map(|entry| Some(entry.unwrap().file_name().to_str()?.strip_suffix(".onnx.xz")?.to_owned()))
        .collect();
    names.sort();
    assert!(!names.is_empty());
    names
}

/// A model of testdata, unpacked once for all test binaries.
pub(crate) fn unpacked(name: &str) -> PathBuf {
    let folder = if name.starts_with("light_") { "light" } else { "zoo" };
    let source = testdata().join(folder).join(format!("{name}.onnx.xz"));
    let target = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.onnx"));
    let fresh = |path: &Path| std::fs::metadata(path).and_then(|metadata| metadata.modified()).ok();
    if fresh(&target) < fresh(&source) {
        let scratch = tempfile::NamedTempFile::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut reader = lzma_rust2::XzReader::new(BufReader::new(File::open(&source).unwrap()), true);
        std::io::copy(&mut reader, &mut BufWriter::new(scratch.as_file())).unwrap();
        scratch.persist(&target).unwrap();
    }
    target
}

pub(crate) fn model(name: &str) -> Model {
    import_file(&unpacked(name), &ImportOptions::default()).unwrap_or_else(|error| panic!("{error}"))
}

pub(crate) fn optimized(name: &str) -> Graph {
    trt_fuse::optimize(model(name), &Options::default()).unwrap_or_else(|error| panic!("{name}: {error}")).graph
}

/// Says that a test is skipped, and why: something is not there that `make` fetches. Where TRT_FUSE_TEST_ALL is set, as
/// `make test` does, the test fails instead.
pub(crate) fn skip(why: impl std::fmt::Display) {
    let all = std::env::var_os("TRT_FUSE_TEST_ALL").is_some_and(|value| !value.is_empty());
    assert!(!all, "TRT_FUSE_TEST_ALL is set, and this cannot be tested: {why}");
    eprintln!("skipped: {why}");
}

/// A file or folder of the cache; skips the test, and names what fetches it, if it is not there.
pub(crate) fn fetched(path: &str, target: &str) -> Option<PathBuf> {
    let path = cache().join(path);
    if path.exists() {
        return Some(path);
    }
    skip(format_args!("{} is not there, run `make {target}`", path.display()));
    None
}

/// The TensorRT library, or a line that says why a test is skipped.
pub(crate) fn library() -> Option<Library> {
    match open_library(&Options::default()) {
        Ok(library) => Some(library),
        Err(Error::Engine(error @ EngineError::NoLibrary { .. })) => {
            skip(error);
            None
        }
        Err(error) => panic!("{error}"),
    }
}

/// The library if it builds without a GPU, as TensorRT-RTX does.
pub(crate) fn rtx_library() -> Option<Library> {
    let library = library()?;
    if library.version().flavour == Flavour::TensorRtRtx {
        return Some(library);
    }
    eprintln!("skipped: {library:?} does not build without a GPU");
    None
}

/// The folder that scripts/fetch.py fills.
pub(crate) fn cache() -> PathBuf {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    variable("TRT_FUSE_CACHE").unwrap_or_else(|| {
        let user = variable("XDG_CACHE_HOME").unwrap_or_else(|| variable("HOME").unwrap().join(".cache"));
        user.join("trt-fuse")
    })
}

/// The input of a shape that scripts/pattern.py makes.
pub(crate) fn pattern(dims: &[usize]) -> Tensor {
    let element = |at: usize| {
        let value = (at as i64 * 1_103_515_245 + 12345) % (1 << 31);
        (value as f64 / f64::from(1 << 29) - 2.0) as f32
    };
    Tensor::from_vec(dims, (0..dims.iter().product()).map(element).collect()).unwrap()
}

/// The size that scripts/references.py gives a dimension.
fn size(symbol: &str) -> i64 {
    if symbol == "seq" { 16 } else { 2 }
}

/// The inputs that scripts/references.py makes.
pub(crate) fn pattern_inputs(graph: &Graph) -> Vec<Tensor> {
    inputs_of_sizes(graph, size)
}

/// Such inputs with other sizes for the symbols.
pub(crate) fn inputs_of_sizes(graph: &Graph, size: impl Fn(&str) -> i64) -> Vec<Tensor> {
    let input = |id: &trt_fuse::ir::NodeId| {
        let value = graph.value((*id).into()).unwrap();
        let shape = value.info.shape.as_ref().unwrap().iter();
        let dims: Vec<usize> = shape.map(|dim| dim.evaluate(&|name| Some(size(name))).unwrap() as usize).collect();
        let (count, length) = (dims.iter().product(), dims.last().copied().unwrap_or(1));
        let element = |at: usize| match value.name.contains("mask") {
            true => i64::from(at % length < length * 3 / 4),
            false => at as i64 * 7919 % 1000,
        };
        match value.info.dtype {
            DType::F32 => pattern(&dims),
            DType::I64 => Tensor::from_vec(dims, (0..count).map(element).collect()).unwrap(),
            other => panic!("an input of {other}"),
        }
    };
    graph.inputs().iter().map(input).collect()
}

/// The elements of an output that a reference keeps: all of a small one, of others every so-manieth.
pub(crate) fn kept(output: &Tensor) -> Tensor {
    let step = output.numel().div_ceil(65536);
    if step <= 1 {
        return output.clone();
    }
    Tensor::vector(output.view::<f32>().unwrap().iter().step_by(step).copied().collect())
}

/// onnxruntime's first output for [`pattern_inputs`].
pub(crate) fn reference(name: &str) -> Tensor {
    npy(&testdata().join("references").join(format!("{name}.npy")))
}

/// An array of f32 as NumPy saves it.
pub(crate) fn npy(path: &Path) -> Tensor {
    let bytes = std::fs::read(path).unwrap();
    // Version 1: magic, version, u16 header length, header as a Python literal, data.
    assert_eq!(&bytes[..8], b"\x93NUMPY\x01\x00");
    let end = 10 + usize::from(u16::from_le_bytes([bytes[8], bytes[9]]));
    let header = std::str::from_utf8(&bytes[10..end]).unwrap();
    assert!(header.contains("'descr': '<f4'") && header.contains("'fortran_order': False"), "{header}");
    let shape = header.split_once("'shape': (").unwrap().1.split_once(')').unwrap().0;
    let dims: Vec<usize> = shape.split(',').filter_map(|dim| dim.trim().parse().ok()).collect();
    let data = bytes[end..].chunks_exact(4).map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap())).collect();
    Tensor::from_vec(dims, data).unwrap()
}

/// The largest difference relative to the largest magnitude expected.
pub(crate) fn difference(expected: &Tensor, found: &Tensor) -> f64 {
    assert_eq!((expected.dtype(), expected.dims()), (found.dtype(), found.dims()));
    let (expected, found) = (expected.to_f64s().unwrap(), found.to_f64s().unwrap());
    let largest = expected.iter().fold(1e-12_f64, |largest, x| largest.max(x.abs()));
    expected.iter().zip(&found).map(|(a, b)| (a - b).abs() / largest).fold(0.0, |worst, gap| {
        assert!(gap.is_finite());
        worst.max(gap)
    })
}

/// Fails unless outputs are, one after another, those of testdata/references/NAME.npy, within 1e-3 of the largest.
pub(crate) fn assert_outputs(name: &str, outputs: &[Tensor]) {
    let expected = npy(&testdata().join("references").join(format!("{name}.npy"))).to_f64s().unwrap();
    let mut rest = expected.as_slice();
    for output in outputs {
        let found = output.to_f64s().unwrap();
        let (expected, others) = rest.split_at(found.len());
        rest = others;
        let largest = expected.iter().fold(0.0_f64, |largest, x| largest.max(x.abs()));
        for (a, b) in found.iter().zip(expected) {
            assert!((a - b).abs() <= 1e-3 * largest, "{name}: {a} where {b} was expected, of up to {largest}");
        }
    }
    assert!(rest.is_empty(), "{name}: {} elements more were expected", rest.len());
}
