//! README's table of operators. It is written from the importer's list of operators, from what `operators.tsv` says of
//! ONNX's own tests, and from the networks that these tests become. Without the tests, which `make operators` gets, only
//! the names are compared. `RECORD=1 cargo test --test readme` writes the table anew.

mod common;

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use common::fetched;
use onnx_protobuf as onnx;
use onnx_protobuf::Message as _;
use trt_fuse::import::{ImportOptions, Model, import_bytes, operators};
use trt_fuse::ir::{Capabilities, DType};
use trt_fuse::{Options, optimize, record};

const BEGIN: &str = "<!-- written by tests/readme.rs -->\n";
const END: &str = "<!-- until here -->\n";

const DTYPES: &[DType] = {
    use DType::*;
    &[
        F32, F16, BF16, F64, I8, U8, I16, U16, I32, U32, I64, U64, Bool, F8E4M3, F8E4M3Fnuz, F8E5M2, F8E5M2Fnuz,
        F8E8M0, F4E2M1, I4, U4, I2, U2, Complex64, Complex128, String,
    ]
};

fn root(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// What `operators.tsv` says of a test.
struct TestResult<'t> {
    name: &'t str,
    right: bool,
    built: bool,
    reason: &'t str,
}

fn results(tsv: &str) -> Vec<TestResult<'_>> {
    let result = |line| {
        let [name, eval, build, reason] = str::split(line, '\t').collect::<Vec<_>>()[..] else { panic!("{line}") };
        TestResult { name, right: eval == "pass", built: build == "pass", reason }
    };
    tsv.lines().skip(1).map(result).collect()
}

/// What ONNX's tests tell of an operator.
#[derive(Default)]
struct Measured {
    tests: usize,
    right: usize,
    built: usize,
    /// Element types of the first inputs of the tests that are built.
    types: BTreeSet<DType>,
    /// Kinds of layer in each network that a test becomes.
    networks: Vec<BTreeSet<&'static str>>,
    reasons: Vec<String>,
}

/// The one operator of a model, if all of its nodes are of one type.
fn operator(model: &Model) -> Option<String> {
    let types: BTreeSet<&str> = model.graph.sources().iter().map(|source| &*source.op_type).collect();
    let mut types = types.into_iter().filter(|op| *op != "Constant");
    let op = types.next()?;
    types.next().is_none().then(|| op.to_string())
}

/// The model with all inputs but the first as constants, as models in use have them.
fn with_constants(model: &onnx::ModelProto, data: &Path) -> Option<onnx::ModelProto> {
    let mut model = model.clone();
    let graph = model.graph.as_mut()?;
    let inputs = graph.input.split_off(graph.input.len().min(1));
    for (at, input) in (1..).zip(&inputs) {
        let bytes = std::fs::read(data.join(format!("input_{at}.pb"))).ok()?;
        let tensor = onnx::TensorProto::parse_from_bytes(&bytes).ok()?;
        graph.initializer.push(onnx::TensorProto { name: input.name.clone(), ..tensor });
    }
    Some(model)
}

fn layers(model: Model) -> Option<BTreeSet<&'static str>> {
    let options = Options::default();
    let (network, _) = record(&optimize(model, &options).ok()?.graph, &options).ok()?;
    Some(network.layer_kinds().into_keys().filter(|kind| *kind != "constant").collect())
}

/// What the tests tell of each operator that has tests of its own.
fn measured(results: &[TestResult<'_>], tests: &Path) -> BTreeMap<String, Measured> {
    let mut found: BTreeMap<String, Measured> = BTreeMap::new();
    let import = |bytes: Vec<u8>| import_bytes(bytes, &ImportOptions::default()).ok();
    for result in results {
        let case = tests.join(result.name);
        let bytes = std::fs::read(case.join("model.onnx")).unwrap();
        let Some(model) = import(bytes.clone()) else { continue };
        let Some(op) = operator(&model) else { continue };
        let entry = found.entry(op).or_default();
        entry.tests += 1;
        entry.right += usize::from(result.right);
        entry.built += usize::from(result.built);
        if result.built {
            let first = model.graph.inputs().first().and_then(|id| model.graph.info((*id).into()));
            entry.types.extend(first.map(|info| info.dtype));
        } else {
            entry.reasons.push(result.reason.to_string());
        }
        entry.networks.extend(layers(model));
        let proto = onnx::ModelProto::parse_from_bytes(&bytes).unwrap();
        let constant = with_constants(&proto, &case.join("test_data_set_0"));
        let constant = constant.and_then(|model| import(model.write_to_bytes().unwrap()));
        entry.networks.extend(constant.and_then(layers));
    }
    found
}

/// The network of the fewest kinds, of several the most frequent one, and what others have besides.
fn layers_cell(networks: &[BTreeSet<&str>]) -> String {
    let count = |kinds| networks.iter().filter(|other| *other == kinds).count();
    let Some(smallest) = networks.iter().min_by_key(|kinds| (kinds.len(), Reverse(count(*kinds)), (*kinds).clone()))
    else {
        return String::new();
    };
    let list = |kinds: Vec<&str>| kinds.join(", ");
    let own = if smallest.is_empty() { "none".to_string() } else { list(smallest.iter().copied().collect()) };
    let all: BTreeSet<&str> = networks.iter().flatten().copied().collect();
    let others: Vec<&str> = all.difference(smallest).copied().collect();
    if others.is_empty() { own } else { format!("{own}; with {}", list(others)) }
}

/// Reasons without node names, those that differ in types, tensors or numbers alone as one.
fn reasons_cell(op: &str, reasons: &[String]) -> String {
    let mut groups: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for reason in reasons {
        // Tests whose data are no tensors have no data that could be read.
        if reason.starts_with("test_data_set_0/") {
            groups.entry("values".to_string()).or_default().insert("sequences, optionals and strings".to_string());
            continue;
        }
        let listed = reason.strip_prefix("a node is unsupported: ").or(reason.strip_prefix("nodes are unsupported: "));
        for part in listed.unwrap_or(reason).split("; '") {
            // `'node' (Type): why`, or `Type: why`, or only why. Another type is that of a node in a body.
            let why = match part.split_once(": ") {
                Some((place, why)) if listed.is_some() || place == op => why,
                _ => part,
            };
            groups.entry(without_details(why)).or_default().insert(why.to_string());
        }
    }
    let cell = |parts: &BTreeSet<String>| {
        let first = parts.first().cloned().unwrap_or_default();
        if parts.len() > 1 { format!("{first} (and {} alike)", parts.len() - 1) } else { first }
    };
    groups.values().map(cell).collect::<Vec<_>>().join("; ").replace('|', "\\|")
}

fn without_details(reason: &str) -> String {
    let is_detail = |word: &&str| word.parse::<DType>().is_err() && !word.contains('`') && word.parse::<i64>().is_err();
    reason.split(' ').filter(is_detail).collect::<Vec<_>>().join(" ")
}

fn types_line() -> String {
    let capabilities = Capabilities::default();
    let mut native = Vec::new();
    let mut nearest: BTreeMap<DType, Vec<String>> = BTreeMap::new();
    let mut none = Vec::new();
    for dtype in DTYPES {
        match capabilities.computed_in(*dtype) {
            Some(to) if to != *dtype => nearest.entry(to).or_default().push(dtype.to_string()),
            Some(_) => native.push(dtype.to_string()),
            None => none.push(dtype.to_string()),
        }
    }
    let nearest: Vec<String> = nearest.iter().map(|(to, from)| format!("{} in {to}", from.join(", "))).collect();
    format!(
        "Types, where a row says nothing else (TensorRT-RTX): {} as they are; computed in the nearest, with a warning: {}; \
         not taken: {}.\n",
        native.join(", "),
        nearest.join("; "),
        none.join(", ")
    )
}

/// Operators of tests that have no internal form; those of a domain without any as the domain.
fn missing_line(results: &[TestResult<'_>]) -> String {
    let domain = |op: &str| op.split_once("::").map(|(domain, _)| format!("all of `{domain}`"));
    let mut names = BTreeSet::new();
    for reason in results.iter().map(|result| result.reason) {
        if let Some((op, _)) = reason.split_once(": no form in a network is known for it") {
            names.insert(op.to_string());
        } else if let Some((op, _)) = reason.split_once(": no operator of domain") {
            names.extend(domain(op));
        }
    }
    // The record may be older than the importer.
    let taken = operators();
    let domains: BTreeSet<String> = taken.iter().filter_map(|op| domain(op)).collect();
    names.retain(|name| !taken.contains(name) && !domains.contains(name));
    format!("Not taken: {}.\n", names.into_iter().collect::<Vec<_>>().join(", "))
}

fn section(results: &[TestResult<'_>], tests: &Path) -> String {
    let measured = measured(results, tests);
    let taken = operators();
    let mut text = String::new();
    let _ = write!(text, "\n{}\n{}", types_line(), missing_line(results));
    let _ = write!(
        text,
        "\n<details><summary>The {} operators taken</summary>\n\n\
         Measured on ONNX's own tests of each operator alone: on how many the evaluator is right, how many TensorRT-RTX \
         1.7.1 builds, the types of their first inputs, and why the others are not built. Layers: the kinds in the \
         smallest network of a test (with its further inputs as constants, or as they are), which is the native layer \
         where TensorRT has one; then those that other forms need besides, as a lowering. `none`: a constant is left.\n\n\
         | operator | evaluator | built | types | layers | not built |\n|---|---|---|---|---|---|\n",
        taken.len()
    );
    for op in taken {
        let _ = match measured.get(&op) {
            None => writeln!(text, "| {op} | no test | | | | |"),
            Some(found) => writeln!(
                text,
                "| {op} | {}/{} | {} | {} | {} | {} |",
                found.right,
                found.tests,
                found.built,
                found.types.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "),
                layers_cell(&found.networks),
                reasons_cell(&op, &found.reasons)
            ),
        };
    }
    text.push_str("\n</details>\n\n");
    text
}

/// README before the section, the section, and the rest.
fn split(readme: &str) -> (&str, &str, &str) {
    let (before, rest) = readme.split_once(BEGIN).expect("README has the mark of the section's beginning");
    let (section, after) = rest.split_once(END).expect("README has the mark of the section's end");
    (before, section, after)
}

#[test]
fn every_operator_has_its_row() {
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let rows = split(&readme).1.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next());
    let rows: BTreeSet<String> = rows.skip(1).map(str::to_string).collect();
    assert_eq!(rows, operators());
}

#[test]
fn the_table_says_what_is_measured() {
    let Some(tests) = fetched("onnx-tests-1.23.2", "operators") else { return };
    let tsv = std::fs::read_to_string(root("tests/operators.tsv")).unwrap();
    let readme = std::fs::read_to_string(root("README.md")).unwrap();
    let (before, recorded, after) = split(&readme);
    let found = section(&results(&tsv), &tests);
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(root("README.md"), format!("{before}{BEGIN}{found}{END}{after}")).unwrap();
        return;
    }
    let (recorded, found): (Vec<&str>, Vec<&str>) = (recorded.lines().collect(), found.lines().collect());
    let differences: Vec<String> = recorded
        .iter()
        .filter(|line| !found.contains(line))
        .map(|line| format!("- {line}"))
        .chain(found.iter().filter(|line| !recorded.contains(line)).map(|line| format!("+ {line}")))
        .collect();
    assert!(differences.is_empty(), "README's table differs (RECORD=1 writes it anew):\n{}", differences.join("\n"));
}
