//! Random models against onnxruntime: operators with random attributes, shapes and data, and small graphs. The outputs
//! must be onnxruntime's as imported, after the passes, and in operators that targets have layers for; a network is made.
//!
//! `PROPTEST_CASES` is the number of models of each family; the seeds are fixed. Without python3 or the packages the
//! test prints why and passes: `make oracle` gets them.

#[path = "../common/mod.rs"]
mod common;
mod elementwise;
mod graphs;
mod layers;
mod maker;
mod movement;
mod regions;
#[path = "../../src/import/tests/write.rs"]
#[allow(dead_code, reason = "the importer's own tests use the rest")]
mod write;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;
use std::process::Command;

use maker::Maker;
use trt_fuse::import::{ImportOptions, import_file, read_tensor};
use trt_fuse::ir::eval::eval_graph;
use trt_fuse::ir::{Capabilities, DType, Graph, Tensor};
use trt_fuse::passes::Pipeline;
use trt_fuse::{ErrorKind, Options, optimize, record, unsupported_nodes};

/// Models of each family if nobody asks for more.
const CASES: u64 = 16;

/// What makes a random model of a family.
type Family = (&'static str, fn(&mut Maker));

/// How a model compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Verdict {
    Same,
    /// onnxruntime refuses it.
    Refused,
    /// The import has no form for it, and says so.
    Unsupported,
}

#[test]
fn random_models_give_what_onnxruntime_gives() {
    let Some(packages) = common::fetched("packages-onnxruntime-1.31.1", "oracle") else { return };
    let count = std::env::var("PROPTEST_CASES").ok().and_then(|count| count.parse().ok()).unwrap_or(CASES);
    let folder = tempfile::tempdir().unwrap();
    let families: Vec<Family> =
        [elementwise::FAMILIES, layers::FAMILIES, movement::FAMILIES, regions::FAMILIES, graphs::FAMILIES].concat();
    let mut names = Vec::new();
    for (family, make) in &families {
        for case in 0..count {
            let mut maker = Maker::new(seed(family, case));
            make(&mut maker);
            let name = format!("{family}_{case}");
            maker.write(&folder.path().join(&name));
            names.push((*family, name));
        }
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/oracle.py");
    match Command::new("python3").arg(script).arg(folder.path()).env("PYTHONPATH", &packages).status() {
        Ok(status) => assert!(status.success(), "scripts/oracle.py: {status}"),
        Err(error) => {
            return common::skip(format_args!("python3: {error}"));
        }
    }
    let mut failures = String::new();
    let mut counts: BTreeMap<&str, BTreeMap<Verdict, usize>> = BTreeMap::new();
    for (family, name) in &names {
        match compare(&folder.path().join(name)) {
            Ok(verdict) => *counts.entry(family).or_default().entry(verdict).or_default() += 1,
            Err(reason) => writeln!(failures, "{name}: {reason}").unwrap(),
        }
    }
    let all: usize = names.len();
    let total = |verdict| counts.values().filter_map(|of| of.get(&verdict)).sum::<usize>();
    println!("{all} models: {} refused, {} unsupported", total(Verdict::Refused), total(Verdict::Unsupported));
    if !failures.is_empty() {
        let kept = folder.keep();
        panic!("of {all} models in {}:\n{failures}", kept.display());
    }
    for (family, of) in &counts {
        let same = of.get(&Verdict::Same).copied().unwrap_or_default();
        assert!(2 * same as u64 > count, "{family}: too few were compared: {of:?}");
    }
}

/// FNV-1a of the family's name and the number of the case.
fn seed(family: &str, case: u64) -> u64 {
    let step = |hash: u64, byte: u8| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
    family.bytes().chain(case.to_le_bytes()).fold(0xcbf2_9ce4_8422_2325, step)
}

fn compare(case: &Path) -> Result<Verdict, String> {
    let data = case.join("test_data_set_0");
    if case.join("refused.txt").exists() {
        return Ok(Verdict::Refused);
    }
    let model = import_file(&case.join("model.onnx"), &ImportOptions::default()).map_err(|error| error.to_string())?;
    if let Some(node) = unsupported_nodes(&model.graph).first() {
        println!("{}: {}", node.op, node.reason);
        return Ok(Verdict::Unsupported);
    }
    let read = |kind: &str, count: usize| -> Vec<Tensor> {
        (0..count).map(|at| read_tensor(&data.join(format!("{kind}_{at}.pb"))).unwrap()).collect()
    };
    let inputs = read("input", model.graph.inputs().len());
    let expected = read("output", model.graph.outputs().len());
    check(&model.graph, &inputs, &expected, "as imported", Narrowed::No)?;
    let graph = optimize(model, &Options::default()).map_err(|error| format!("passes: {error}"))?.graph;
    check(&graph, &inputs, &expected, "after the passes", Narrowed::No)?;
    for capabilities in [Capabilities::rtx((1, 7, 1)), Capabilities::tensorrt((8, 6, 1))] {
        let lowering = Pipeline::lowering(&capabilities);
        let (lowered, _) = lowering.run(graph.clone()).map_err(|error| format!("lowering: {error}"))?;
        check(&lowered, &inputs, &expected, "lowered", Narrowed::F64)?;
    }
    match record(&graph, &Options::default()) {
        Err(error) if error.kind() != ErrorKind::Unsupported => Err(format!("as a network: {error}\n{graph}")),
        _ => Ok(Verdict::Same),
    }
}

/// Types that a graph computes in others.
#[derive(Clone, Copy, PartialEq)]
enum Narrowed {
    No,
    /// f64 as f32.
    F64,
}

fn check(graph: &Graph, inputs: &[Tensor], expected: &[Tensor], when: &str, narrowed: Narrowed) -> Result<(), String> {
    let found = eval_graph(graph, inputs).map_err(|error| format!("{when}: {error}\n{graph}"))?;
    for (at, (expected, found)) in expected.iter().zip(&found).enumerate() {
        difference(expected, found, narrowed).map_err(|reason| format!("{when}, output {at}: {reason}\n{graph}"))?;
    }
    Ok(())
}

/// Floats may differ by 1e-4 of themselves and 1e-5 of the largest, integers not at all.
fn difference(expected: &Tensor, found: &Tensor, narrowed: Narrowed) -> Result<(), String> {
    if (expected.dtype(), expected.dims()) != (found.dtype(), found.dims()) {
        return Err(format!("{found:?} where {expected:?} was expected"));
    }
    if let (Some(a), Some(b)) = (expected.to_i64s(), found.to_i64s()) {
        let wrong = a.iter().zip(&b).position(|(a, b)| a != b);
        let wrong =
            wrong.map(|at| format!("element {at} of {:?} is {}, {} was expected", expected.dims(), b[at], a[at]));
        return wrong.map_or(Ok(()), Err);
    }
    let (Some(a), Some(b)) = (expected.to_f64s(), found.to_f64s()) else {
        return if expected == found { Ok(()) } else { Err("other values".to_owned()) };
    };
    let (relative, absolute) = match expected.dtype() {
        DType::F32 => (1e-4, 1e-5),
        DType::F64 if narrowed == Narrowed::F64 => (1e-4, 1e-5),
        DType::F64 => (1e-9, 1e-9),
        DType::F16 => (2e-3, 2e-3),
        _ => (0.0, 0.0),
    };
    let largest = a.iter().filter(|x| x.is_finite()).fold(0.0_f64, |largest, x| largest.max(x.abs()));
    let wrong = a.iter().zip(&b).position(|(a, b)| {
        let same = a == b || (a.is_nan() && b.is_nan());
        let gap = (a - b).abs();
        !same && (gap.is_nan() || gap > relative * a.abs() + absolute * largest)
    });
    match wrong {
        Some(at) => Err(format!("element {at} of {:?} is {}, {} was expected", expected.dims(), b[at], a[at])),
        None => Ok(()),
    }
}
