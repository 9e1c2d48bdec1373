//! Runs an engine from several threads, a session each, and tells how many runs a second that makes.
//!
//! ```text
//! cargo run --release --example throughput -- model.plan 4 1000
//! ```

use std::path::Path;
use std::time::Instant;

use trt_fuse::ir::Tensor;
use trt_fuse::runtime::{Engine, Extents, SessionOptions, random_inputs};

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let usage = "usage: throughput PLAN [SESSIONS] [RUNS]";
    let plan = arguments.next().ok_or(usage)?;
    let sessions: usize = arguments.next().map_or(Ok(4), |text| text.parse())?;
    let runs: usize = arguments.next().map_or(Ok(1000), |text| text.parse())?;

    let library = trt_fuse::open_library(&trt_fuse::Options::default())?;
    let engine = Engine::open(&library, 0, Path::new(&plan))?;
    let inputs = random_inputs(engine.tensors(), Extents::Opt, &Default::default(), 1)?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();

    let mut ready = Vec::new();
    for _ in 0..sessions {
        ready.push(engine.session(SessionOptions { cuda_graph: true, memory: None })?);
    }
    let start = Instant::now();
    std::thread::scope(|scope| {
        let inputs = &inputs;
        let threads: Vec<_> = ready
            .iter_mut()
            .map(|session| scope.spawn(move || (0..runs).try_for_each(|_| session.run(inputs).map(drop))))
            .collect();
        threads.into_iter().try_for_each(|thread| thread.join().unwrap_or(Ok(())))
    })?;
    let seconds = start.elapsed().as_secs_f64();
    println!("{:.0} runs a second in {sessions} sessions", (sessions * runs) as f64 / seconds);
    Ok(())
}
