//! Random graphs under every pass: they verify, keep their outputs, and do not change a second time.
//!
//! A graph is a list of instructions, each of three numbers that choose an operator, its operands among the values so
//! far, and its parameters. An instruction that fits nothing is skipped, so that any list is a graph and shrinking one
//! means leaving instructions out.

mod control;
mod heads;
mod maker;
mod motifs;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use trt_fuse_ir::eval::eval_graph;
use trt_fuse_ir::{Builder, Capabilities, DType, Dim, Graph, ValueInfo};

use self::maker::Maker;
use crate::Pipeline;
use crate::testing::{difference, random_inputs};

/// Operator, operands, parameters.
type Instruction = (u8, u16, u64);

/// What the symbolic batch is when a graph is evaluated.
const BATCH: i64 = 2;

/// Passes that must keep every bit, besides those that drop something.
const EXACT: &[&str] = &[
    "canonicalize_attributes",
    "canonicalize_gather",
    "canonicalize_padding",
    "canonicalize_reshape",
    "fold_constants",
    "fold_control_flow",
    "merge_common",
    "merge_concats",
    "merge_layouts",
    "merge_reshapes",
    "merge_slices",
    "sink_captures",
];

fn make(instructions: &[Instruction], symbolic: bool) -> Graph {
    let batch = if symbolic { Dim::symbol("n") } else { Dim::fixed(BATCH) };
    let mut builder = Builder::new("random");
    let shapes = [[4, 6, 6], [4, 6, 1]];
    let values = shapes.into_iter().enumerate().map(|(at, shape)| {
        let dims = std::iter::once(batch.clone()).chain(shape.into_iter().map(Dim::fixed));
        builder.input(format!("x{at}"), ValueInfo::new(DType::F32, dims))
    });
    let values = values.collect();
    let mut maker = Maker::new(builder, values);
    for instruction in instructions {
        let _skipped = maker.instruction(*instruction);
    }
    let Maker { mut builder, values, .. } = maker;
    // Every third value, so that most have readers that a pass may take in, and the last.
    for (at, value) in values.iter().rev().step_by(3).enumerate() {
        builder.output(format!("y{at}"), *value);
    }
    builder.finish()
}

fn check(graph: &Graph, pipeline: &Pipeline, exact: bool) -> Result<(), TestCaseError> {
    let names = pipeline.names();
    let inputs = random_inputs(graph, BATCH, 7);
    let expected = match eval_graph(graph, &inputs) {
        Ok(expected) => expected,
        // A symbolic batch may be made to meet another size; the graph is then right for that size only.
        Err(_) if graph.info(graph.inputs()[0].into()).unwrap().fixed_dims().is_none() => return Ok(()),
        Err(error) => return Err(TestCaseError::fail(format!("{error}\n{graph}"))),
    };
    if expected.iter().any(|tensor| tensor.to_f64s().unwrap().iter().any(|value| !value.is_finite())) {
        return Ok(());
    }
    let fail = |what: String| TestCaseError::fail(format!("{names:?}: {what}\n{graph}"));
    let (after, _) = pipeline.run(graph.clone()).map_err(|error| fail(error.to_string()))?;
    let found = eval_graph(&after, &inputs).map_err(|error| fail(format!("{error}\n{after}")))?;
    let tolerance = if exact { 0.0 } else { 1e-4 };
    for ((expected, found), output) in expected.iter().zip(&found).zip(graph.outputs()) {
        let gap = difference(expected, found);
        prop_assert!(gap <= tolerance, "{names:?}: output {} differs by {gap}\n{graph}\n{after}", output.name);
    }
    let (again, report) = pipeline.run(after.clone()).map_err(|error| fail(error.to_string()))?;
    let rewrites: usize = report.passes.iter().map(|pass| pass.rewrites).sum();
    prop_assert!(rewrites == 0, "{names:?}: a second run changes\n{after}\n{again}");
    Ok(())
}

fn graphs() -> impl Strategy<Value = Graph> {
    let instruction = (any::<u8>(), any::<u16>(), any::<u64>());
    (prop::collection::vec(instruction, 1..24), any::<bool>()).prop_map(|(list, symbolic)| make(&list, symbolic))
}

proptest! {
    #[test]
    fn every_pass_keeps_outputs_and_settles(graph in graphs()) {
        let standard = || Pipeline::standard(&Capabilities::default());
        for name in standard().names() {
            let exact = EXACT.contains(&name) || name.starts_with("drop_");
            check(&graph, &standard().only(&[name]).unwrap(), exact)?;
        }
    }

    #[test]
    fn the_pipeline_keeps_outputs_and_settles(graph in graphs()) {
        check(&graph, &Pipeline::standard(&Capabilities::default()), false)?;
    }
}

/// A property that never meets a pass's pattern says nothing of the pass.
#[test]
fn random_graphs_reach_every_pass() {
    let mut runner = TestRunner::deterministic();
    let mut rewrites: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..300 {
        let graph = graphs().new_tree(&mut runner).unwrap().current();
        let (_, report) = Pipeline::standard(&Capabilities::default()).run(graph).unwrap();
        for pass in report.passes {
            *rewrites.entry(pass.name).or_insert(0) += pass.rewrites;
        }
    }
    let unreached: Vec<&str> = rewrites.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert_eq!(unreached, [""; 0]);
}
