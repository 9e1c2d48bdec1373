//! `trt-fuse compare`: our engine beside OnnxParser's of the same TensorRT.

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use trt_fuse::import::import_file;
use trt_fuse::ir::{Graph, Tensor};
use trt_fuse::runtime::{BenchOptions, Device, Engine, Extents, Measured, SessionOptions, random_inputs};
use trt_fuse::tensorrt::Library;
use trt_fuse::{Compared, Error, Options, VerifyOptions, verify_engine};

use crate::engines::{GPU, build_engine, open};
use crate::shared;

/// What `trt-fuse compare` takes.
#[derive(Args)]
pub(crate) struct Compare {
    /// The model.
    model: PathBuf,
    /// Chooses the inputs.
    #[arg(long, default_value_t = VerifyOptions::default().seed)]
    seed: u64,
    /// Most that outputs may differ from the evaluator's, relative to the largest number in each.
    #[arg(long, default_value_t = VerifyOptions::default().tolerance)]
    tolerance: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    common: shared::Common,
}

/// One engine.
#[derive(Serialize)]
struct Side {
    network_layers: usize,
    engine_layers: usize,
    build_s: f64,
    plan_bytes: usize,
    /// As a CUDA graph, tensors on the GPU.
    graph: Measured,
    graph_refusal: Option<String>,
    /// Launched plainly, with copies.
    plain: Measured,
    outputs: Vec<Compared>,
}

/// Compares both engines. Exit code 1 if ours is wrong, or is not built.
pub(crate) fn compare(arguments: &Compare) -> ExitCode {
    match compared(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => shared::exit(Err(error)),
    }
}

fn compared(arguments: &Compare) -> Result<bool, Error> {
    // Nothing is built in vain.
    Device::open(GPU)?;
    let (library, options) = open(&arguments.common)?;
    let graph = import_file(&arguments.model, &options.import)?.graph;
    let side = |parser| measured(arguments, parser, &graph, &library, &options);
    let ours = side(false)?;
    let parser = side(true);
    let fits = ours.outputs.iter().all(|output| output.fits);
    if arguments.json {
        let parser = parser.map_or_else(|why| json!({ "error": why.to_string() }), |side| json!(side));
        let model = arguments.model.display().to_string();
        shared::print(&json!({ "compare": model, "fits": fits, "ours": ours, "parser": parser }).to_string());
    } else {
        shared::print(&text(&ours, &parser));
    }
    Ok(fits)
}

fn measured(
    arguments: &Compare,
    parser: bool,
    graph: &Graph,
    library: &Library,
    options: &Options,
) -> Result<Side, Error> {
    let built = build_engine(&arguments.model, parser, library, options)?;
    let engine = Engine::from_plan(library, GPU, &built.plan)?;
    let how = VerifyOptions { seed: arguments.seed, tolerance: arguments.tolerance };
    let outputs = verify_engine(&engine, graph, options, &how)?;
    let inputs = random_inputs(engine.tensors(), Extents::Opt, &Default::default(), arguments.seed)?;
    let inputs: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let usual = BenchOptions { iterations: 200, duration: Duration::from_millis(500), ..BenchOptions::default() };
    let mut session = engine.session(SessionOptions { cuda_graph: true, memory: None })?;
    let graphed = session.measure(&inputs, &BenchOptions { transfers: false, ..usual.clone() })?;
    let graph_refusal = session.graph_refusal().map(str::to_owned);
    let plain = engine.session(SessionOptions::default())?.measure(&inputs, &usual)?;
    Ok(Side {
        network_layers: built.layers.without_constants,
        engine_layers: engine.layers(),
        build_s: built.build.as_secs_f64(),
        plan_bytes: built.plan.bytes().len(),
        graph: graphed,
        graph_refusal,
        plain,
        outputs,
    })
}

fn text(ours: &Side, parser: &Result<Side, Error>) -> String {
    let median = |measured: &Measured, compute: bool| {
        let spread = if compute { &measured.compute } else { &measured.latency };
        spread.percentiles.get("p50").copied().unwrap_or(spread.mean)
    };
    let parser = parser.as_ref();
    let row = |name: &str, cell: &dyn Fn(&Side) -> String| {
        let other = parser.map_or_else(|_| "-".to_owned(), cell);
        format!("{name:28} {:>14} {other:>14}\n", cell(ours))
    };
    let mut text = format!("{:28} {:>14} {:>14}\n", "", "ours", "OnnxParser");
    text += &row("network layers", &|side| side.network_layers.to_string());
    text += &row("engine layers", &|side| side.engine_layers.to_string());
    text += &row("build, s", &|side| format!("{:.1}", side.build_s));
    text += &row("plan, MB", &|side| format!("{:.1}", side.plan_bytes as f64 / 1e6));
    text += &row("as a CUDA graph, ms", &|side| format!("{:.4}", median(&side.graph, true)));
    text += &row("plainly with copies, ms", &|side| format!("{:.4}", median(&side.plain, false)));
    for output in &ours.outputs {
        let name = format!("{} {}", output.at, output.name);
        text += &row(&name, &|side| {
            let same = side.outputs.iter().find(|other| (other.at, &other.name) == (output.at, &output.name));
            same.map_or_else(
                || "-".to_owned(),
                |same| format!("{}{:.1e}", if same.fits { "" } else { "BAD " }, same.difference),
            )
        });
    }
    if let Err(why) = parser {
        text += &format!("OnnxParser: {}\n", shared::one_line(&why.to_string()));
    }
    text
}
