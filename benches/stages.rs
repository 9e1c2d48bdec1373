//! Import, optimize and emit against OnnxParser's parse, in one process, alternating. `benches/README.md` says more.
//!
//! `cargo bench --bench stages -- [--runs N] [--chains] MODEL...` prints one JSON object a model, and a chain.

#[path = "../passes/tests/chains/mod.rs"]
mod chains;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use trt_fuse::emit::emit;
use trt_fuse::import::import_file;
use trt_fuse::ir::{Capabilities, verify};
use trt_fuse::passes::{PassError, Pipeline};
use trt_fuse::tensorrt::{Library, TrtNetwork, parse_onnx};
use trt_fuse::{Error, Options, open_library, optimize};

use crate::chains::{CHAINS, Chain};

fn main() {
    let mut runs = 5;
    let mut with_chains = false;
    let mut models = Vec::new();
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        match argument.as_str() {
            // What `cargo bench` itself passes.
            "--bench" => {}
            "--runs" => runs = arguments.next().and_then(|runs| runs.parse().ok()).unwrap_or(runs),
            "--chains" => with_chains = true,
            model => models.push(PathBuf::from(model)),
        }
    }
    if with_chains {
        for chain in &CHAINS {
            if let Err(error) = measure_chain(chain, runs) {
                eprintln!("{}: {error}", chain.name);
                std::process::exit(1);
            }
        }
    } else if models.is_empty() {
        println!("no models given: nothing measured");
    }
    for model in models {
        if let Err(error) = measure(&model, runs) {
            eprintln!("{}: {error}", model.display());
            std::process::exit(1);
        }
    }
}

fn measure(model: &Path, runs: usize) -> Result<(), Error> {
    let mut options = Options::default();
    let library = open_library(&options)?;
    options.capabilities = Some(library.capabilities());
    let (mut ours, mut parser, mut peak) = (Vec::new(), Vec::new(), 0);
    for _ in 0..runs {
        let (time, memory) = with_peak(|| through(model, &library, &options))?;
        ours.push(time);
        peak = peak.max(memory);
        parser.push(parse_onnx(&library, model)?.parse_time);
    }
    let bytes = std::fs::metadata(model).map_or(0, |metadata| metadata.len());
    let report = serde_json::json!({
        "model": model.file_name().map(|name| name.to_string_lossy().into_owned()),
        "megabytes": bytes as f64 / 1e6,
        "ours_ms": median(&mut ours),
        "parser_ms": median(&mut parser),
        "peak_anonymous_megabytes": peak as f64 / 1e6,
    });
    println!("{report}");
    Ok(())
}

/// Operations of the chains: ten times as much work for the longer one.
const CHAIN_LENGTHS: [usize; 2] = [10_000, 100_000];

/// How often the shorter chain is run for each run of the longer one, so that the clock sees about as much of both: what else
/// the machine does falls into a long run, and between two short ones.
const SHORT_RUNS: u32 = 10;

/// The least time that the passes take for a synthetic graph of two lengths, the shorter one ten times in a row.
fn measure_chain(chain: &Chain, runs: usize) -> Result<(), PassError> {
    let pipeline = Pipeline::standard(&Capabilities::default());
    let graphs = CHAIN_LENGTHS.map(|nodes| chain.graph(nodes));
    let mut times = CHAIN_LENGTHS.map(|_| Duration::MAX);
    for _ in 0..runs {
        for ((graph, time), repeated) in graphs.iter().zip(&mut times).zip([SHORT_RUNS, 1]) {
            let mut taken = Duration::ZERO;
            for _ in 0..repeated {
                let graph = graph.clone();
                let start = Instant::now();
                let optimized = pipeline.run(graph)?;
                taken += start.elapsed();
                drop(optimized);
            }
            *time = (*time).min(taken / repeated);
        }
    }
    // What else the machine does makes times longer and never shorter.
    let [short, long] = times.map(|time| time.as_secs_f64() * 1e3);
    let report = serde_json::json!({
        "chain": chain.name,
        "short_ms": short,
        "long_ms": long,
        "long_by_ten_shorts": long / (10.0 * short),
    });
    println!("{report}");
    Ok(())
}

/// Time from the file to the finished network; the network is dropped after the clock has stopped.
fn through(model: &Path, library: &Library, options: &Options) -> Result<Duration, Error> {
    let start = Instant::now();
    let graph = optimize(import_file(model, &options.import)?, options)?.graph;
    let mut network = TrtNetwork::new(library)?;
    emit(verify(&graph)?, &library.capabilities(), &mut network)?;
    Ok(start.elapsed())
}

fn median(times: &mut [Duration]) -> f64 {
    times.sort();
    times.get(times.len() / 2).map_or(0.0, |time| time.as_secs_f64() * 1e3)
}

/// A result, and how many bytes of anonymous memory the process took at most beyond what it had before.
fn with_peak<T>(run: impl FnOnce() -> Result<T, Error>) -> Result<(T, u64), Error> {
    let before = anonymous_bytes();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let sampler = scope.spawn(|| {
            let mut peak = 0;
            while !done.load(Ordering::Relaxed) {
                peak = peak.max(anonymous_bytes());
                std::thread::sleep(Duration::from_micros(200));
            }
            peak
        });
        let result = run();
        let last = anonymous_bytes();
        done.store(true, Ordering::Relaxed);
        let peak = sampler.join().unwrap_or(0).max(last);
        result.map(|value| (value, peak.saturating_sub(before)))
    })
}

/// `RssAnon` of this process.
fn anonymous_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB")?.trim().parse::<u64>().ok());
    kilobytes.unwrap_or(0) * 1024
}
