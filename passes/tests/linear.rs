//! The pipeline's work is linear in the graph.

mod chains;

use chains::CHAINS;
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

#[test]
fn a_chain_comes_down_to_what_it_computes() {
    // Of ten operations in a link, a relu and an addition.
    let mixed = CHAINS.iter().find(|chain| chain.name == "mixed").unwrap();
    let (after, _) = Pipeline::standard(&Capabilities::default()).run(mixed.graph(100)).unwrap();
    assert_eq!(after.operation_count(), 20);
}
