//! Runs the passes on one of the chains of the benches, to count what they execute.
//!
//! ```text
//! cargo build --release -p trt-fuse-passes --example chain
//! valgrind --tool=callgrind target/release/examples/chain sums 10000 1
//! ```
//!
//! With 0 runs the chain is made and nothing else, which is to be subtracted.

#[path = "../tests/chains/mod.rs"]
mod chains;

use trt_fuse_ir::Capabilities;
use trt_fuse_passes::Pipeline;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [name, length, runs] = &arguments[..] else { return Err("usage: chain NAME LENGTH RUNS".into()) };
    let chain = chains::CHAINS.iter().find(|chain| chain.name == name).ok_or("no chain has this name")?;
    let (graph, pipeline) = (chain.graph(length.parse()?), Pipeline::standard(&Capabilities::default()));
    for _ in 0..runs.parse()? {
        pipeline.run(graph.clone())?;
    }
    Ok(())
}
