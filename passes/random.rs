//! Random graphs under every pass: they verify, keep their outputs, and do not change a second time.
//!
//! A graph is a list of instructions, each of three numbers that choose an operator, its operands among the values so
//! far, and its parameters. An instruction that fits nothing is skipped, so that any list is a graph and shrinking one
//! means leaving instructions out.

mod control;
mod fuzz;
mod heads;
mod maker;
mod masks;
mod motifs;

use std::collections::BTreeMap;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use trt_fuse_ir::eval::{Bindings, eval_graph, eval_with};
use trt_fuse_ir::op::{BinaryOp, Constant};
use trt_fuse_ir::{Builder, Capabilities, DType, Dim, Graph, Op, OpKind, Patch, Tensor, ValueInfo, ValueRef};

use self::maker::Maker;
use crate::testing::{difference, random_inputs};
use crate::{Options, Pipeline, Siblings};

/// Operator, operands, parameters.
type Instruction = (u8, u16, u64);

/// What the symbolic batch is when a graph is evaluated.
const BATCH: i64 = 2;

/// Passes that must keep every bit, besides those that drop something.
const EXACT: &[&str] = &[
    "canonicalize_attributes",
    "canonicalize_gather",
    "canonicalize_loop",
    "canonicalize_padding",
    "canonicalize_reshape",
    "canonicalize_uniform",
    "fold_comparison",
    "fold_constants",
    "fold_control_flow",
    "fuse_split_concat",
    "merge_common",
    "merge_concats",
    "merge_layouts",
    "merge_reshapes",
    "merge_slices",
    "sink_captures",
    "sink_expand",
    "sink_reshape",
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

/// Random inputs of a graph, and what it gives for them.
struct Sample {
    inputs: Vec<Tensor>,
    expected: Vec<Tensor>,
}

/// A sample with a symbolic batch taken as `batch`; nothing where that says nothing.
fn sample(graph: &Graph, batch: i64) -> Result<Option<Sample>, String> {
    let inputs = random_inputs(graph, batch, 7);
    let expected = match eval_graph(graph, &inputs) {
        Ok(expected) => expected,
        // A symbolic batch may be made to meet another size; the graph is then right for that size only.
        Err(_) if graph.info(graph.inputs()[0].into()).unwrap().fixed_dims().is_none() => return Ok(None),
        Err(error) => return Err(format!("{error}\n{graph}")),
    };
    Ok(expected.iter().all(is_finite).then_some(Sample { inputs, expected }))
}

fn is_finite(tensor: &Tensor) -> bool {
    tensor.to_f64s().is_none_or(|values| values.iter().all(|value| value.is_finite()))
}

/// Runs a pipeline: its result has the same outputs within the tolerance, and does not change a second time.
fn keeps(graph: &Graph, pipeline: &Pipeline, batches: &[i64], tolerance: f64) -> Result<Graph, String> {
    let names = || match pipeline.names().as_slice() {
        [name] => name.to_string(),
        names => format!("{} to {}, {} passes", names[0], names[names.len() - 1], names.len()),
    };
    let fail = |what: String| format!("{}: {what}\n{graph}", names());
    let (after, _) = match pipeline.run(graph.clone()) {
        Ok(run) => run,
        // Symbols that are made to meet two sizes at once are a fault that any pass may find.
        Err(_) if (1..=8).all(|batch| matches!(sample(graph, batch), Ok(None))) => return Ok(graph.clone()),
        Err(error) => return Err(fail(error.to_string())),
    };
    for batch in batches {
        let Some(Sample { inputs, expected }) = sample(graph, *batch)? else { continue };
        let found = eval_graph(&after, &inputs).map_err(|error| fail(format!("batch {batch}: {error}\n{after}")))?;
        for ((expected, found), output) in expected.iter().zip(&found).zip(graph.outputs()) {
            let gap = difference(expected, found);
            if gap > tolerance && !is_noise(graph, &inputs, gap) {
                return Err(fail(format!("batch {batch}: output {} differs by {gap}\n{after}", output.name)));
            }
        }
    }
    let (again, report) = pipeline.run(after.clone()).map_err(|error| fail(error.to_string()))?;
    let changed: Vec<&str> = report.passes.iter().filter(|pass| pass.rewrites > 0).map(|pass| pass.name).collect();
    if !changed.is_empty() {
        return Err(fail(format!("a second run changes ({changed:?})\n{after}\n{again}")));
    }
    Ok(after)
}

/// Whether a number on the way is beyond f32 (a rewrite may well stay within it), or outputs differ as much where each
/// number on the way is another in its last bits: what is left of numbers that cancel.
fn is_noise(graph: &Graph, inputs: &[Tensor], gap: f64) -> bool {
    if overflows(graph, inputs) {
        return true;
    }
    let Ok(expected) = eval_graph(graph, inputs) else { return false };
    (1..17_u64).any(|turn| {
        let found = eval_graph(&with_noise(graph, turn), inputs);
        found.is_ok_and(|found| expected.iter().zip(&found).any(|(a, b)| difference(a, b) > gap / 30.0))
    })
}

/// Operators that take the square of their first input, in more than f32 as the evaluator computes them.
const SQUARING: &[OpKind] =
    &[OpKind::RmsNorm, OpKind::LayerNorm, OpKind::GroupNorm, OpKind::LpNorm, OpKind::MeanVarianceNorm];

/// Whether a float that the graph computes is infinite or not a number, or would be if a square on the way were stored.
fn overflows(graph: &Graph, inputs: &[Tensor]) -> bool {
    // Of what the outputs need.
    let pruned = standard(Siblings::Never).only(&["drop_dead"]).map(|pass| pass.run(graph.clone()));
    let Ok(Ok((graph, _))) = pruned else { return false };
    let squared: Vec<ValueRef> = graph.live_of(SQUARING).into_iter().filter_map(|id| graph.input(id, 0)).collect();
    let mut overflows = false;
    let evaluated = eval_with(&graph, inputs, &Bindings::default(), &mut |value, tensor| {
        overflows |= tensor.dtype() == DType::F32 && !is_finite(tensor);
        let beyond = |x: &f64| x * x > f64::from(f32::MAX);
        overflows |= squared.contains(&value) && tensor.to_f64s().is_some_and(|all| all.iter().any(beyond));
    });
    evaluated.is_ok() && overflows
}

/// A graph with each float multiplied by nearly one, those of one batch each by another number.
fn with_noise(graph: &Graph, mut turn: u64) -> Graph {
    let mut noisy = graph.clone();
    for id in graph.live() {
        let Some(info) = graph.info(id.into()).filter(|info| info.dtype == DType::F32) else { continue };
        let dims: Vec<Dim> = info.shape.iter().flatten().cloned().collect();
        let fixed = dims.iter().rev().map_while(Dim::value).map(|size| size as usize).collect::<Vec<_>>();
        let sizes: Vec<usize> = fixed.into_iter().rev().collect();
        let factors = (0..sizes.iter().product::<usize>()).map(|_| {
            turn = turn.wrapping_mul(0x5851_f42d_4c95_7f2d).wrapping_add(0x1405_7b7e_f767_814f);
            1.0 + ((turn >> 40) as f32 / (1 << 24) as f32 - 0.5) * 4e-7
        });
        let factors = Tensor::from_vec(sizes, factors.collect()).unwrap();
        let (inputs, outputs) = (noisy.node_inputs(id), graph.node(id).unwrap().outputs.len());
        let op = graph.op(id).unwrap().clone();
        if matches!(op, Op::Input | Op::Constant(_)) {
            continue;
        }
        let mut patch = Patch::new("noise", id);
        let node = patch.add_many(op, &inputs, outputs);
        let factors = patch.add(Constant { value: factors }, &[]);
        let product = patch.add(Op::Binary(BinaryOp::Mul), &[Some(node.into()), Some(factors)]);
        patch.replace(id.into(), product).absorb([id]);
        for slot in 1..outputs as u32 {
            patch.replace(ValueRef { node: id, slot }, ValueRef { node, slot });
        }
        noisy.apply(&patch).unwrap();
    }
    noisy
}

/// The standard passes, with such siblings merged.
fn standard(siblings: Siblings) -> Pipeline {
    let options = Options { siblings, ..Options::default() };
    Pipeline::standard(&Capabilities::default()).with_options(options).verify_each()
}

/// The standard passes for a target that finds the attention itself where f16 is allowed.
fn standard_for_half() -> Pipeline {
    let options = Options { siblings: Siblings::Always, half: true, ..Options::default() };
    Pipeline::standard(&Capabilities::tensorrt((8, 5, 3))).with_options(options).verify_each()
}

fn check(graph: &Graph, pipeline: &Pipeline, exact: bool) -> Result<(), TestCaseError> {
    let tolerance = if exact { 0.0 } else { 1e-4 };
    keeps(graph, pipeline, &[BATCH], tolerance).map(drop).map_err(TestCaseError::fail)
}

fn graphs() -> impl Strategy<Value = Graph> {
    let instruction = (any::<u8>(), any::<u16>(), any::<u64>());
    (prop::collection::vec(instruction, 1..24), any::<bool>()).prop_map(|(list, symbolic)| make(&list, symbolic))
}

proptest! {
    #[test]
    fn every_pass_keeps_outputs_and_settles(graph in graphs()) {
        let standard = || standard(Siblings::Always);
        for name in standard().names() {
            let exact = EXACT.contains(&name) || name.starts_with("drop_");
            check(&graph, &standard().only(&[name]).unwrap(), exact)?;
        }
    }

    /// The parts of an attention are moved where it is found already.
    #[test]
    fn parts_keep_every_bit_for_half(graph in graphs()) {
        let left_out = ["sink_parts", "split_parts", "fuse_layout"];
        let found = left_out.iter().try_fold(standard_for_half(), |pipeline, name| pipeline.without(name)).unwrap();
        // Symbols that meet two sizes at once are a fault that any pass may find.
        let Ok((found, _)) = found.run(graph) else { return Ok(()) };
        for name in ["sink_parts", "split_parts"] {
            check(&found, &standard_for_half().only(&[name]).unwrap(), true)?;
        }
    }

    #[test]
    fn the_pipeline_keeps_outputs_and_settles(graph in graphs()) {
        for siblings in [Siblings::Auto, Siblings::Always] {
            check(&graph, &standard(siblings), false)?;
        }
        check(&graph, &standard_for_half(), false)?;
    }
}

/// A property that never meets a pass's pattern says nothing of the pass.
#[test]
fn random_graphs_reach_every_pass() {
    let mut runner = TestRunner::deterministic();
    let mut rewrites: BTreeMap<&str, usize> = BTreeMap::new();
    for _ in 0..600 {
        let graph = graphs().new_tree(&mut runner).unwrap().current();
        for pipeline in [standard(Siblings::Always), standard_for_half()] {
            let (_, report) = pipeline.run(graph.clone()).unwrap();
            for pass in report.passes {
                *rewrites.entry(pass.name).or_insert(0) += pass.rewrites;
            }
        }
    }
    let unreached: Vec<&str> = rewrites.into_iter().filter(|(_, count)| *count == 0).map(|(name, _)| name).collect();
    assert_eq!(unreached, [""; 0]);
}
