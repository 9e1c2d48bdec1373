//! The commands that run engines: verify, bench, run.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use serde_json::json;
use trt_fuse::import::{import_file, read_tensor};
use trt_fuse::ir::Tensor;
use trt_fuse::runtime::{
    BenchOptions, Device, Engine, Extents, Session, SessionOptions, measure_streams, random_inputs,
};
use trt_fuse::tensorrt::Library;
use trt_fuse::{
    Built, Compared, Error, Options, VerifyOptions, build, build_with_parser, first_bad_tensor, npy, open_library,
    optimize, verify_engine,
};

use crate::shared;

/// The GPU that is used: CUDA_VISIBLE_DEVICES makes another one the first.
pub(crate) const GPU: i32 = 0;

/// How a model is made an engine.
#[derive(Args)]
pub(crate) struct Making {
    /// Take the model through NVIDIA's own ONNX parser instead, to compare with.
    #[arg(long)]
    parser: bool,
    #[command(flatten)]
    common: shared::Common,
}

impl Making {
    fn build(&self, model: &Path, library: &Library, options: &Options) -> Result<Built, Error> {
        build_engine(model, self.parser, library, options)
    }
}

/// The library, and the options for it.
pub(crate) fn open(common: &shared::Common) -> Result<(Library, Options), Error> {
    let mut options = common.options()?;
    let library = open_library(&options)?;
    options.capabilities = Some(library.capabilities());
    Ok((library, options))
}

/// Builds a model's engine, through NVIDIA's parser if `parser`, and tells of what is worth knowing.
pub(crate) fn build_engine(model: &Path, parser: bool, library: &Library, options: &Options) -> Result<Built, Error> {
    let progress = shared::BuildProgress::new(true);
    let built = if parser {
        build_with_parser(model, library, options, Some(&mut progress.callback()))?
    } else {
        let optimized = optimize(import_file(model, &options.import)?, options)?;
        shared::warn(&optimized.notes);
        build(&optimized.graph, library, options, Some(&mut progress.callback()))?
    };
    progress.finish();
    shared::warn(&built.notes);
    Ok(built)
}

/// Builds a model's engine, and writes the plan; verified on the GPU first if `checked`, and not written if it is wrong.
pub(crate) fn build_plan(
    model: &Path,
    output: &Path,
    bare: bool,
    checked: bool,
    making: &Making,
) -> Result<ExitCode, Error> {
    if checked {
        // Nothing is built in vain.
        Device::open(GPU)?;
    }
    let (library, options) = open(&making.common)?;
    let built = making.build(model, &library, &options)?;
    if checked {
        let graph = import_file(model, &options.import)?.graph;
        let engine = Engine::from_plan(&library, GPU, &built.plan)?;
        let compared = verify_engine(&engine, &graph, &options, &VerifyOptions::default())?;
        shared::print(&text(&compared, None));
        if !compared.iter().all(|compared| compared.fits) {
            return Ok(shared::fail(
                "the engine's outputs are wrong; no plan is written: `trt-fuse verify` finds the first wrong tensor",
            ));
        }
    }
    if bare {
        built.plan.save_bare(output)?;
    } else {
        built.plan.save(output)?;
    }
    shared::print(&format!(
        "{}: {:.1} MB, {} network layers, built by {} in {:.1} s",
        output.display(),
        built.plan.bytes().len() as f64 / 1e6,
        built.layers.all,
        library.version(),
        built.build.as_secs_f64()
    ));
    Ok(ExitCode::SUCCESS)
}

/// What `trt-fuse verify` takes.
#[derive(Args)]
pub(crate) struct Verify {
    /// The model.
    model: PathBuf,
    /// The model's plan, built with the same options; built if not given.
    #[arg(long, value_name = "PLAN")]
    plan: Option<PathBuf>,
    /// Chooses the inputs.
    #[arg(long, default_value_t = VerifyOptions::default().seed)]
    seed: u64,
    /// Most that outputs may differ, relative to the largest number in each.
    #[arg(long, default_value_t = VerifyOptions::default().tolerance)]
    tolerance: f64,
    /// Print JSON.
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    making: Making,
}

/// Compares an engine with the evaluator. Exit code 1 if they differ.
pub(crate) fn verify(arguments: &Verify) -> ExitCode {
    match verified(arguments) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => shared::exit(Err(error)),
    }
}

fn verified(arguments: &Verify) -> Result<bool, Error> {
    let Verify { model, plan, seed, tolerance, making, .. } = arguments;
    let how = VerifyOptions { seed: *seed, tolerance: *tolerance };
    // Nothing is built in vain.
    Device::open(GPU)?;
    let (library, options) = open(&making.common)?;
    let imported = import_file(model, &options.import)?;
    let engine = match plan {
        Some(plan) => Engine::open(&library, GPU, plan)?,
        None => Engine::from_plan(&library, GPU, &making.build(model, &library, &options)?.plan)?,
    };
    let compared = verify_engine(&engine, &imported.graph, &options, &how)?;
    let fits = compared.iter().all(|compared| compared.fits);
    let report = |first_bad: Option<Result<Option<Compared>, Error>>| {
        if !arguments.json {
            return shared::print(&text(&compared, first_bad));
        }
        let first_bad = first_bad.map(|found| match found {
            Ok(found) => json!(found),
            Err(error) => json!({ "error": error.to_string() }),
        });
        let line = json!({
            "verify": model.display().to_string(), "parser": making.parser, "fits": fits, "outputs": compared,
            "first_bad": first_bad,
        });
        shared::print(&line.to_string());
    };
    report(None);
    if !fits && !making.parser {
        // Said again with more, as this builds another engine.
        let graph = optimize(imported, &options)?.graph;
        report(Some(first_bad_tensor(&graph, &library, GPU, &options, &how)));
    }
    Ok(fits)
}

fn text(compared: &[Compared], first_bad: Option<Result<Option<Compared>, Error>>) -> String {
    let line = |compared: &Compared| {
        let Compared { at, name, shape, difference, largest, fits } = compared;
        let of = largest.map_or(String::new(), |largest| format!(" of its largest number, {largest:.2e}"));
        format!("{} {at} {name} {shape:?}: {difference:.2e}{of}", if *fits { "fits" } else { "BAD " })
    };
    match first_bad {
        None => compared.iter().map(line).collect::<Vec<_>>().join("\n"),
        Some(Ok(Some(compared))) => format!("first bad tensor: {}", line(&compared)),
        Some(Ok(None)) => "with every tensor as an output, all of them fit: a fusion of TensorRT's is wrong".to_owned(),
        Some(Err(error)) => format!("the first bad tensor is not known: {error}"),
    }
}

/// What `trt-fuse bench` takes; names and meaning as in `trtexec`.
#[derive(Args)]
#[command(rename_all = "camelCase")]
pub(crate) struct Bench {
    /// The plan, or the model, which is built first.
    #[arg(value_name = "PLAN|MODEL")]
    file: PathBuf,
    /// Fewest runs that are measured.
    #[arg(long, default_value_t = 10)]
    iterations: usize,
    /// Milliseconds that are run before anything is measured.
    #[arg(long, default_value_t = 200)]
    warm_up: u64,
    /// Fewest seconds that are measured.
    #[arg(long, default_value_t = 3.0)]
    duration: f64,
    /// Capture the work as a CUDA graph, and launch that.
    #[arg(long)]
    use_cuda_graph: bool,
    /// Copy inputs and outputs not at all.
    #[arg(long)]
    no_data_transfers: bool,
    /// Sessions that run at the same time, each with its own stream.
    #[arg(long, default_value_t = 1, value_name = "COUNT", value_parser = clap::value_parser!(u8).range(1..))]
    streams: u8,
    /// Percentages of runs whose longest time is told.
    #[arg(long, value_delimiter = ',', default_values_t = BenchOptions::default().percentiles, value_parser = percentage)]
    percentile: Vec<f64>,
    /// Measure each layer too, in runs of its own.
    #[arg(long)]
    dump_profile: bool,
    /// Where the plan of a model that is built goes.
    #[arg(long, value_name = "PLAN")]
    save_engine: Option<PathBuf>,
    #[command(flatten)]
    making: Making,
}

/// Measures an engine, and prints one line of JSON.
pub(crate) fn bench(arguments: &Bench) -> Result<(), Error> {
    let Bench { file, iterations, warm_up, duration, use_cuda_graph, no_data_transfers, streams, .. } = arguments;
    let Bench { percentile, dump_profile, save_engine, making, .. } = arguments;
    let device = Device::open(GPU)?;
    let (library, options) = open(&making.common)?;
    let mut line = json!({
        "bench": file.display().to_string(), "parser": making.parser, "tensorrt": library.version().to_string(),
        "gpu": device.name(), "fp16": options.build.fp16, "tf32": options.build.tf32,
        "cuda_graph": use_cuda_graph, "transfers": !no_data_transfers, "streams": streams,
    });
    let engine = if is_plan(file) {
        Engine::open(&library, GPU, file)?
    } else {
        let built = making.build(file, &library, &options)?;
        if let Some(plan) = save_engine {
            built.plan.save(plan)?;
        }
        line["build_s"] = json!(built.build.as_secs_f64());
        line["cached"] = json!(built.cached);
        line["network_layers"] = json!(built.layers.without_constants);
        Engine::from_plan(&library, GPU, &built.plan)?
    };
    let inputs = random_inputs(engine.tensors(), Extents::Opt, &Default::default(), 1)?;
    let given: Vec<(&str, &Tensor)> = inputs.iter().map(|(name, tensor)| (name.as_str(), tensor)).collect();
    let how = BenchOptions {
        iterations: *iterations,
        warm_up: Duration::from_millis(*warm_up),
        duration: Duration::try_from_secs_f64(*duration).unwrap_or_default(),
        transfers: !no_data_transfers,
        percentiles: percentile.clone(),
    };
    let session = || engine.session(SessionOptions { cuda_graph: *use_cuda_graph, memory: None });
    let mut sessions = (0..*streams).map(|_| session()).collect::<Result<Vec<_>, _>>()?;
    let measured = measure_streams(&mut sessions, &given, &how)?;
    line["engine_layers"] = json!(engine.layers());
    line["graph_refusal"] = json!(sessions.first().and_then(Session::graph_refusal));
    line["ms"] = json!(measured);
    if *dump_profile && let Some(session) = sessions.first_mut() {
        line["layers"] = json!(session.profile(&given, (*iterations).max(1))?);
    }
    shared::print(&line.to_string());
    Ok(())
}

fn percentage(text: &str) -> Result<f64, String> {
    let percentage = text.parse().ok().filter(|percentage: &f64| (0.0..=100.0).contains(percentage));
    percentage.ok_or_else(|| format!("`{text}` is no percentage: write e.g. 99.5"))
}

/// Whether a file begins as a plan does; a model is no such thing.
fn is_plan(file: &Path) -> bool {
    let mut start = [0; 7];
    File::open(file).and_then(|mut file| file.read_exact(&mut start)).is_ok() && start == *b"TRTFUSE"
}

/// What `trt-fuse run` takes.
#[derive(Args)]
pub(crate) struct Run {
    /// The plan.
    plan: PathBuf,
    /// An input by name, in a file of NumPy (.npy) or of one ONNX tensor (.pb): NAME=FILE.
    #[arg(long = "input", value_name = "NAME=FILE")]
    inputs: Vec<String>,
    /// Where the outputs go, each as NAME.npy; it is made if it is not there.
    #[arg(long, value_name = "DIR")]
    output_dir: PathBuf,
    /// The TensorRT library or its folder; searched for if not given.
    #[arg(long, value_name = "PATH")]
    library: Option<PathBuf>,
}

/// Runs an engine once.
pub(crate) fn run(arguments: &Run) -> Result<(), Error> {
    let Run { plan, inputs, output_dir, library } = arguments;
    let mut given = Vec::new();
    for input in inputs {
        let (name, file) = input.split_once('=').ok_or_else(|| npy::NpyError::usage(input))?;
        let file = Path::new(file);
        let is_npy = file.extension().is_some_and(|extension| extension == "npy");
        given.push((name, if is_npy { npy::read(file)? } else { read_tensor(file)? }));
    }
    let library = open_library(&Options { library: library.clone(), ..Options::default() })?;
    let engine: Arc<Engine> = Engine::open(&library, GPU, plan)?;
    let given: Vec<(&str, &Tensor)> = given.iter().map(|(name, tensor)| (*name, tensor)).collect();
    let mut files = BTreeSet::new();
    for (name, tensor) in engine.session(SessionOptions::default())?.run(&given)? {
        // A name may have slashes in it, and another one underscores in the same places.
        let stem = name.replace(['/', '\\', ':'], "_");
        let mut file = output_dir.join(format!("{stem}.npy"));
        let mut others = 0;
        while !files.insert(file.clone()) {
            others += 1;
            file = output_dir.join(format!("{stem}.{others}.npy"));
        }
        npy::write(&file, &tensor)?;
        shared::print(&format!("{name} {}{:?}: {}", tensor.dtype(), tensor.dims(), file.display()));
    }
    Ok(())
}
