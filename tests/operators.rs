//! ONNX's own tests: each operator's outputs by the evaluator, and an engine. What each test gives is kept in
//! `operators.tsv`: a test that gets worse fails here, and so does one that gets better and is not recorded. Without the
//! tests or the library, the test prints why and passes: `make operators tensorrt` gets both, and
//! `RECORD=1 cargo test --test operators` writes the file anew.

mod common;

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::Path;

use common::{fetched, library};
use trt_fuse::Options;
use trt_fuse::conformance::{Reach, Verdict, cases, run_case};

const FOLDERS: &[&str] = &["node", "pytorch-converted", "pytorch-operator", "simple"];

#[test]
fn operators_give_what_is_recorded() {
    let Some(tests) = fetched("onnx-tests-1.23.2", "operators") else { return };
    let Some(library) = library() else { return };
    let mut found = String::from("test\teval\tbuild\treason\n");
    let mut counts: BTreeMap<(&str, &str, Verdict), usize> = BTreeMap::new();
    for folder in FOLDERS {
        for case in cases(&tests.join(folder)).unwrap() {
            let result = run_case(&case, Some((&library, Reach::Build)), &Options::default());
            assert_ne!(result.eval, Verdict::Panic, "{result:?}");
            assert_ne!(result.build, Verdict::Panic, "{result:?}");
            *counts.entry((folder, "eval", result.eval)).or_default() += 1;
            *counts.entry((folder, "build", result.build)).or_default() += 1;
            // Paths of the machine are none of the record.
            let mut reason = result.reason.replace(&format!("{}/", case.display()), "");
            if [result.eval, result.build].contains(&Verdict::Wrong) {
                // What NumPy expects differs from CPU to CPU, and so does the first element that is beside it.
                let values = reason.find(": element").unwrap_or(reason.len());
                reason.replace_range(values.., ": other values");
            }
            let name = format!("{folder}/{}", result.name);
            let is_rounded = ROUNDED.contains(&&*name) && [Verdict::Pass, Verdict::Wrong].contains(&result.eval);
            let (eval, reason) = if is_rounded { ("rounded".into(), "") } else { (result.eval.to_string(), &*reason) };
            let _ = writeln!(found, "{name}\t{eval}\t{}\t{reason}", result.build);
        }
    }
    println!("{counts:#?}");
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/operators.tsv");
    if std::env::var_os("RECORD").is_some() {
        std::fs::write(&file, &found).unwrap();
    }
    let recorded = std::fs::read_to_string(&file).unwrap_or_default();
    let differences: Vec<String> = differences(&recorded, &found);
    assert!(
        differences.is_empty(),
        "{} tests differ from tests/operators.tsv (RECORD=1 writes it anew):\n{}",
        differences.len(),
        differences.join("\n")
    );
    for (verdict, least) in [("eval", 1600), ("build", 1350)] {
        let passed = counts.get(&("node", verdict, Verdict::Pass)).copied().unwrap_or_default();
        assert!(passed >= least, "{verdict}: {passed} of the operator tests pass, {least} are the least");
    }
}

/// Tests whose expected values are NumPy's sums in 16 bits, a unit in the last place beside ours on some CPUs: they may pass.
const ROUNDED: &[&str] = &["node/test_attention_4d_causal_fp16_expanded"];

/// Lines that one of two records has and the other has not.
fn differences(recorded: &str, found: &str) -> Vec<String> {
    let by_name = |text: &str| -> BTreeMap<String, String> {
        text.lines().filter_map(|line| Some((line.split('\t').next()?.to_string(), line.to_string()))).collect()
    };
    let (recorded, found) = (by_name(recorded), by_name(found));
    let names: std::collections::BTreeSet<&String> = recorded.keys().chain(found.keys()).collect();
    let none = "none".to_string();
    names
        .into_iter()
        .filter(|name| recorded.get(*name) != found.get(*name))
        .map(|name| format!("- {}\n+ {}", recorded.get(name).unwrap_or(&none), found.get(name).unwrap_or(&none)))
        .collect()
}
