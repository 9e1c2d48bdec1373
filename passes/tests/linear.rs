//! The pipeline's work is linear in the graph.

mod chains;
mod fans;

use std::time::{Duration, Instant};

use chains::CHAINS;
use fans::FANS;
use trt_fuse_ir::{Capabilities, Graph};
use trt_fuse_passes::Pipeline;

/// Operations of the shorter chain.
const SHORT: usize = 500;

/// How many times longer the longer chain is.
const LONGER: u64 = 8;

/// Bytes that the pipeline allocates on its way, a measure of its work that is the same every time.
fn allocated(graph: Graph) -> u64 {
    let pipeline = Pipeline::standard(&Capabilities::default());
    allocation_counter::measure(|| drop(pipeline.run(graph).unwrap())).bytes_total
}

#[test]
fn chains_take_work_in_proportion_to_their_length() {
    for chain in &CHAINS {
        let (short, long) = (allocated(chain.graph(SHORT)), allocated(chain.graph(SHORT * LONGER as usize)));
        println!(
            "{:>12} {:>8} bytes a node, {:>8} bytes a node",
            chain.name,
            short / SHORT as u64,
            long / (SHORT as u64 * LONGER)
        );
        // What is quadratic, be it a list of four bytes for each node before, comes near to LONGER times as much a node.
        assert!(long * 5 <= short * LONGER * 6, "{}: {short} bytes, and {long} for {LONGER} times as much", chain.name);
    }
}

/// The time in which both pipelines run.
fn time(graph: &Graph) -> Duration {
    let capabilities = Capabilities::tensorrt((8, 6, 1));
    let pipelines = [Pipeline::standard(&capabilities), Pipeline::lowering(&capabilities)];
    let graph = graph.clone();
    let start = Instant::now();
    drop(pipelines.iter().fold(graph, |graph, pipeline| pipeline.run(graph).unwrap().0));
    start.elapsed()
}

/// How often times are taken, because a busy machine makes some of them too long.
const TRIES: usize = 20;

#[test]
fn readers_of_one_tensor_take_work_in_proportion_to_their_number() {
    for fan in &FANS {
        let (few, many) = (fan.graph(SHORT), fan.graph(SHORT * LONGER as usize));
        let (short, long) = (allocated(few.clone()), allocated(many.clone()));
        assert!(long * 5 <= short * LONGER * 6, "{}: {short} bytes, and {long} for {LONGER} times as much", fan.name);
        // What walks over all readers for each allocates nothing. It would take LONGER times as long a reader.
        let (mut short, mut long) = (Duration::MAX, Duration::MAX);
        let is_linear = (0..TRIES).any(|_| {
            (short, long) = (short.min(time(&few)), long.min(time(&many)));
            long <= short * (LONGER * 3) as u32
        });
        println!("{:>12} {short:?}, {long:?}", fan.name);
        assert!(is_linear, "{}: {short:?}, and {long:?} for {LONGER} times as much", fan.name);
    }
}

#[test]
fn a_chain_comes_down_to_what_it_computes() {
    // Of ten operations in a link, a relu and an addition.
    let mixed = CHAINS.iter().find(|chain| chain.name == "mixed").unwrap();
    let (after, _) = Pipeline::standard(&Capabilities::default()).run(mixed.graph(100)).unwrap();
    assert_eq!(after.operation_count(), 20);
}
