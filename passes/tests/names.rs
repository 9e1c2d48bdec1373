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

#[test]
fn every_pass_states_what_its_readers_need() {
    for stem in stems().iter().filter(|stem| !OTHERS.contains(&stem.as_str())) {
        let path = format!("{}/{stem}.rs", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let says = |part: &str| text.lines().take_while(|line| line.starts_with("//!")).any(|line| line.contains(part));
        for part in ["```text", "Fires", "Order:", "Numerics:"] {
            assert!(says(part), "{stem}.rs: the module's documentation has no `{part}`");
        }
        let refusals = ["Refuses", "Never refuses", "Leaves alone"];
        assert!(refusals.iter().any(|part| says(part)), "{stem}.rs does not say when it refuses");
    }
}
