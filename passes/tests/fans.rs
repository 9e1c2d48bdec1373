//! The pipeline's work is linear in the readers of a tensor. A test program of its own: others beside it would take its time.

#[path = "fans/mod.rs"]
mod fans;

use std::time::{Duration, Instant};

use fans::FANS;
use trt_fuse_ir::{Capabilities, Graph};
use trt_fuse_passes::Pipeline;

/// Readers of the smaller fan.
const FEW: usize = 1_500;

/// How many times more the larger fan has.
const MORE: u64 = 8;

/// Bytes that the pipeline allocates on its way, a measure of its work that is the same every time.
fn allocated(graph: Graph) -> u64 {
    let pipeline = Pipeline::standard(&Capabilities::default());
    allocation_counter::measure(|| drop(pipeline.run(graph).unwrap())).bytes_total
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
        let (few, many) = (fan.graph(FEW), fan.graph(FEW * MORE as usize));
        let (short, long) = (allocated(few.clone()), allocated(many.clone()));
        assert!(long * 5 <= short * MORE * 6, "{}: {short} bytes, and {long} for {MORE} times as much", fan.name);
        // What walks over all readers for each allocates nothing. It would take MORE times as long a reader.
        let (mut short, mut long) = (Duration::MAX, Duration::MAX);
        let is_linear = (0..TRIES).any(|_| {
            (short, long) = (short.min(time(&few)), long.min(time(&many)));
            long <= short * (MORE * 4) as u32
        });
        println!("{:>12} {short:?}, {long:?}", fan.name);
        assert!(is_linear, "{}: {short:?}, and {long:?} for {MORE} times as much", fan.name);
    }
}
