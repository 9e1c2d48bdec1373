//! Rewrites are counted, traced, and made up to a number.

use std::path::PathBuf;

use trt_fuse_ir::{Capabilities, Graph};
use trt_fuse_passes::{Pipeline, Rewrite};

const BLOCK: &str = "graph g(%x: f32[1, 2, 3, 3], %w: f32[2, 2, 1, 1], %r: f32[1, 2, 3, 3]) -> (%y) {
    %one = constant() value=f32[] {1}
    %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
    %same = mul(%c, %one)
    %sum = add(%same, %r)
    %y = relu(%sum)
    %dead = exp(%r)
}";

fn standard() -> Pipeline {
    Pipeline::standard(&Capabilities::default())
}

fn block() -> Graph {
    BLOCK.parse().unwrap()
}

fn words(rewrite: &Rewrite) -> String {
    let names = |nodes: &[trt_fuse_passes::TracedNode]| {
        nodes.iter().map(|node| format!("{} {}", node.op, node.name)).collect::<Vec<_>>().join(" + ")
    };
    let Rewrite { number, rule, ordinal, round, node, before, after, instead, .. } = rewrite;
    format!(
        "{number} {rule}.{ordinal} round {round} at {node}: {} -> {} | {}",
        names(before),
        names(after),
        names(instead)
    )
    .trim_end()
    .to_string()
}

#[test]
fn every_rewrite_is_written_down_if_asked_for() {
    let (_, report) = standard().trace(block(), usize::MAX).unwrap();
    let trace: Vec<String> = report.trace.iter().map(words).collect();
    insta::assert_snapshot!(trace.join("\n"), @"
    0 drop_dead.0 round 1 at dead: exp dead ->  |
    1 drop_identity.1 round 1 at same: mul same ->  | conv c
    2 fuse_residual.1 round 1 at c: conv c + add sum -> conv c |
    3 fuse_activation.1 round 1 at c: conv c + relu y -> conv c |
    ");
    let fused = &report.trace[3];
    assert_eq!(
        fused.before[0].line,
        "%sum = conv(%x, %w, _, %r) strides=[1, 1] dilations=[1, 1] groups=1 epilogue=[add] : f32[1, 2, 3, 3]"
    );
    assert_eq!(*fused.after[0].onnx_nodes, ["c".into(), "sum".into(), "y".into()]);
    assert_eq!(report.rewrites, 3);
    let (_, report) = standard().run(block()).unwrap();
    assert_eq!((report.rewrites, report.trace), (3, Vec::new()));
}

#[test]
fn a_pipeline_stops_after_any_number_of_rewrites() {
    let (all, report) = standard().trace(block(), usize::MAX).unwrap();
    let mut last = String::new();
    for most in 0..=report.rewrites {
        let (graph, stopped) = standard().trace(block(), most).unwrap();
        assert_eq!(stopped.rewrites, most);
        let numbered = |trace: &[Rewrite]| trace.iter().filter(|step| !step.is_drop()).cloned().collect::<Vec<_>>();
        assert_eq!(numbered(&stopped.trace), numbered(&report.trace)[..most]);
        assert_ne!(graph.to_string(), last);
        last = graph.to_string();
    }
    assert_eq!(last, all.to_string());
    let (none, _) = standard().trace(block(), 0).unwrap();
    // What nothing reads goes anyway.
    assert_eq!(none.operation_count(), 4);
}

#[test]
fn rewrites_in_bodies_are_counted_and_stopped_too() {
    let then = "graph t(%a: f32[2]) -> (%b) { %k = relu(%a) %i = identity(%k) %b = identity(%i) }";
    let other = "graph e(%a: f32[2]) -> (%b) { %b = exp(%a) }";
    let text = format!(
        "graph g(%c: bool[], %x: f32[2]) -> (%y) {{
            %y = if(%c, %x) then_branch={then:?} else_branch={other:?}
        }}"
    );
    let graph: Graph = text.parse().unwrap();
    let (after, report) = standard().run(graph.clone()).unwrap();
    assert_eq!(report.rewrites, 2);
    let (one, stopped) = standard().trace(graph, 1).unwrap();
    assert_eq!(stopped.rewrites, 1);
    assert_ne!(one.to_string(), after.to_string());
}

/// A change that goes another way is neither counted nor traced, and bisecting would miss it.
#[test]
fn passes_change_graphs_through_their_context_only() {
    let files = std::fs::read_dir(env!("CARGO_MANIFEST_DIR")).unwrap();
    let paths: Vec<PathBuf> = files.map(|file| file.unwrap().path()).collect();
    let passes = paths.iter().filter(|path| path.extension().is_some_and(|end| end == "rs"));
    let mut seen = 0;
    for path in passes.filter(|path| !path.ends_with("trace.rs") && !path.ends_with("pipeline.rs")) {
        let text = std::fs::read_to_string(path).unwrap();
        let code = text.split("#[cfg(test)]\nmod tests").next().unwrap();
        assert!(!code.contains("graph.apply(") && !code.contains(".prune_dead("), "{}", path.display());
        seen += 1;
    }
    assert!(seen > 50);
}
