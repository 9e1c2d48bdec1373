//! A pass is found by its name: its file, what it calls itself, and the pipeline agree.

use std::collections::BTreeSet;

use trt_fuse_ir::Capabilities;
use trt_fuse_passes::Pipeline;

const VERBS: &[&str] = &["fold", "drop", "merge", "fuse", "sink", "split", "canonicalize", "lower"];

/// Files that are no pass.
const OTHERS: &[&str] = &[
    "axes",
    "channels",
    "formula",
    "layout",
    "lib",
    "normal",
    "parts",
    "pass",
    "pattern",
    "pipeline",
    "progression",
    "random",
    "report",
    "siblings",
    "testing",
    "trace",
];

fn stems() -> BTreeSet<String> {
    let files = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let paths = files.map(|file| file.unwrap().path()).filter(|path| path.extension().is_some_and(|end| end == "rs"));
    paths.map(|path| path.file_stem().unwrap().to_str().unwrap().to_string()).collect()
}

#[test]
fn every_pass_is_named_as_its_file_and_runs_in_the_pipeline() {
    let files: BTreeSet<String> = stems().into_iter().filter(|stem| !OTHERS.contains(&stem.as_str())).collect();
    let mut all = BTreeSet::new();
    for pipeline in [Pipeline::standard(&Capabilities::default()), Pipeline::lowering(&Capabilities::default())] {
        let names = pipeline.rules();
        let set: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
        assert_eq!(set.len(), names.len(), "a pass runs twice a round: {names:?}");
        all.extend(set);
    }
    assert_eq!(files, all);
}

#[test]
fn every_name_begins_with_a_verb_of_the_closed_list() {
    let capabilities = Capabilities::default();
    let pipelines = [Pipeline::standard(&capabilities), Pipeline::lowering(&capabilities)];
    for name in pipelines.iter().flat_map(Pipeline::rules) {
        let verb = name.split('_').next().unwrap();
        assert!(VERBS.contains(&verb), "`{name}`");
    }
}

/// The text of a pass.
fn text_of(stem: &str) -> String {
    std::fs::read_to_string(format!("{}/{stem}.rs", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// The documentation of a pass's module, as one line.
fn documentation(text: &str) -> String {
    let lines = text.lines().map_while(|line| line.strip_prefix("//!"));
    lines.flat_map(str::split_whitespace).collect::<Vec<_>>().join(" ")
}

#[test]
fn every_pass_states_what_its_readers_need_in_order() {
    for stem in stems().iter().filter(|stem| !OTHERS.contains(&stem.as_str())) {
        let documentation = documentation(&text_of(stem));
        let refusals = ["Refuses", "Never refuses", "Leaves alone"];
        let mut from = 0;
        for parts in [&["```text"][..], &["Fires"], &refusals, &["Order:"], &["Numerics:"]] {
            let at = parts.iter().filter_map(|part| documentation[from..].find(part)).min();
            from += at
                .unwrap_or_else(|| panic!("{stem}.rs: the module's documentation has none of {parts:?} in its place"));
        }
    }
}

#[test]
fn every_refusal_is_documented_and_tested() {
    let mut count = 0;
    for stem in stems().iter().filter(|stem| !OTHERS.contains(&stem.as_str())) {
        let text = text_of(stem);
        let documentation = documentation(&text).replace('`', "");
        let (code, tests) = text.split_once("#[cfg(test)]").unwrap();
        let apart = std::fs::read_to_string(format!("{}/{stem}/tests.rs", env!("CARGO_MANIFEST_DIR")));
        let tests = tests.to_string() + &apart.unwrap_or_default();
        for before in ["reason: \"", "reason = \"", "blocked(\"", "Err(\""] {
            for phrase in code.split(before).skip(1).filter_map(|rest| rest.split('"').next()) {
                assert!(documentation.contains(phrase), "{stem}.rs does not document `{phrase}`");
                assert!(tests.contains(phrase), "no test of {stem}.rs expects `{phrase}`");
                count += 1;
            }
        }
    }
    assert!(count > 30, "only {count} refusals were found");
}
