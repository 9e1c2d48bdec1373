//! The pipeline's time is linear in the graph.

use std::time::{Duration, Instant};

use trt_fuse_ir::op::{Activation, BinaryOp, Concat, Reshape, Split, Transpose, UnaryOp};
use trt_fuse_ir::{Builder, Capabilities, DType, Dim, Graph, Ints, NewNode, Op, Shape, Tensor, ValueInfo, ValueRef};
use trt_fuse_passes::Pipeline;

/// A chain of `links` times ten operations, of which two are needed. All links read the same constants.
fn chain(links: usize) -> Graph {
    let mut builder = Builder::new("chain");
    let mut value = builder.input("x", ValueInfo::new(DType::F32, [2_i64, 8]));
    let three = builder.constant("three", Tensor::scalar(3.0_f32)).unwrap();
    let one = builder.constant("one", Tensor::scalar(1.0_f32)).unwrap();
    let shape = |dims: &[i64]| -> Option<Shape> { Some(dims.iter().copied().map(Dim::fixed).collect()) };
    let swap: Ints = [1, 0].into_iter().collect();
    for at in 0..links {
        let mut add = |op: Op, inputs: &[ValueRef], outputs: usize| -> ValueRef {
            let name = format!("{}.{at}", op.name());
            let new = NewNode {
                op,
                inputs: inputs.iter().copied().map(Some).collect(),
                outputs: (0..outputs).map(|_| name.as_str().into()).collect(),
                name: name.as_str().into(),
                origin: Default::default(),
            };
            builder.node(new).unwrap().into()
        };
        value = add(Op::Activation(Activation::Relu), &[value], 1);
        value = add(Op::Binary(BinaryOp::Add), &[three, value], 1);
        value = add(Op::Unary(UnaryOp::Identity), &[value], 1);
        value = add(Reshape { shape: shape(&[16]), allow_zero: false }.into(), &[value], 1);
        value = add(Reshape { shape: shape(&[2, 8]), allow_zero: false }.into(), &[value], 1);
        value = add(Transpose { perm: swap.clone() }.into(), &[value], 1);
        value = add(Transpose { perm: swap.clone() }.into(), &[value], 1);
        let first = add(Split { axis: 1, sizes: shape(&[4, 4]) }.into(), &[value], 2);
        value = add(Concat { axis: 1 }.into(), &[first, ValueRef { slot: 1, ..first }], 1);
        value = add(Op::Binary(BinaryOp::Mul), &[value, one], 1);
    }
    builder.output("y", value);
    builder.finish()
}

fn time(links: usize) -> Duration {
    let graph = chain(links);
    let start = Instant::now();
    let (after, report) = Pipeline::standard(&Capabilities::default()).run(graph).unwrap();
    let taken = start.elapsed();
    for pass in &report.passes {
        println!("{:>24} {:>8} rewrites {:>9.1} ms", pass.name, pass.rewrites, pass.ms);
    }
    assert_eq!(after.operation_count(), 2 * links);
    taken
}

#[test]
#[ignore = "takes a minute unless optimized: cargo test --release -p trt-fuse-passes --test linear -- --ignored"]
fn a_chain_of_a_hundred_thousand_nodes_takes_seconds() {
    let taken = time(10_000);
    println!("{taken:?}");
    assert!(taken < Duration::from_secs(20), "{taken:?}");
}

#[test]
fn a_chain_comes_down_to_what_it_computes() {
    time(10);
}
