//! Shows how a model's nodes become fewer.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trt_fuse::import::import_file;
use trt_fuse::optimize;
use trt_fuse::report::{FuseReport, Provenance, Wanted, bisect, fuse_report, remarks_text, write_page};

#[path = "shared/mod.rs"]
mod shared;

/// Show how an ONNX model is fused for TensorRT: nodes, layers and times at each stage.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  fuse-report model.onnx                       nodes and layers, no TensorRT needed
  fuse-report model.onnx --build               and the engine's own layers
  fuse-report model.onnx --build --compare-parser --range batch=1:8:32
  fuse-report model.onnx --json | jq .nodes
  fuse-report model.onnx --network             the network as text
  fuse-report model.onnx --remarks             why something was not fused
  fuse-report model.onnx --html report.html    a page with the graph before and after
  fuse-report model.onnx --node /conv1/Conv    what became of a node
  fuse-report model.onnx --layer conv1 --build where a layer comes from
  fuse-report model.onnx --bisect --inputs DIR the first rewrite that changes the outputs

Exit codes: 0 fine, 1 error, 2 the model has nodes that the target cannot express, 3 bisecting found a rewrite."
)]
struct Arguments {
    /// The model.
    model: PathBuf,
    /// Build the engine, and tell its layers with the ONNX nodes in each.
    #[arg(long)]
    build: bool,
    /// Take the model through NVIDIA's OnnxParser too.
    #[arg(long)]
    compare_parser: bool,
    /// Print the report as JSON.
    #[arg(long)]
    json: bool,
    /// Print the network, one layer a line, and nothing else.
    #[arg(long, conflicts_with = "json", group = "instead")]
    network: bool,
    /// Print the graph after the passes, and nothing else.
    #[arg(long, conflicts_with = "json", group = "instead")]
    graph: bool,
    /// Tell which rewrites nearly applied, and why they did not.
    #[arg(long)]
    remarks: bool,
    /// Tell what became of an ONNX node: the rewrites that touched it, and its layers.
    #[arg(long, value_name = "NAME", group = "instead")]
    node: Option<String>,
    /// Tell which ONNX nodes and rewrites a layer comes from.
    #[arg(long, value_name = "NAME", group = "instead")]
    layer: Option<String>,
    /// Find the first rewrite that changes the outputs, by the evaluator on the CPU.
    #[arg(long, group = "instead")]
    bisect: bool,
    /// Inputs to bisect with: NAME.npy (each / of the name as _) or input_N.pb; random ones if not given.
    #[arg(long, value_name = "DIR", requires = "bisect")]
    inputs: Option<PathBuf>,
    /// Largest difference of an output that is none, relative to its largest element.
    #[arg(long, value_name = "T", requires = "bisect", default_value_t = 1e-4)]
    tolerance: f64,
    /// Write the report as a page that needs nothing else.
    #[arg(long, value_name = "FILE", conflicts_with = "instead")]
    html: Option<PathBuf>,
    #[command(flatten)]
    common: shared::Common,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments) {
        Ok(code) => code,
        Err(error) => shared::exit(Err(error)),
    }
}

fn run(arguments: &Arguments) -> Result<ExitCode, trt_fuse::Error> {
    let options = arguments.common.options()?;
    if arguments.bisect {
        let model = import_file(&arguments.model, &options.import)?;
        let found = bisect(model, &options, arguments.inputs.as_deref(), arguments.tolerance)?;
        show(arguments, &found, || found.text());
        return Ok(if found.culprit.is_some() { ExitCode::from(3) } else { ExitCode::SUCCESS });
    }
    if arguments.graph {
        let optimized = optimize(import_file(&arguments.model, &options.import)?, &options)?;
        shared::print(&optimized.graph.to_string());
        return Ok(ExitCode::SUCCESS);
    }
    let progress = shared::BuildProgress::new(arguments.build);
    if arguments.node.is_some() || arguments.layer.is_some() {
        let model = &arguments.model;
        let found = Provenance::of_file(model, &options, arguments.build, Some(&mut progress.callback()));
        progress.finish();
        let found = found?;
        if let Some(name) = &arguments.node {
            let fate = found.node(name)?;
            show(arguments, &fate, || fate.text());
        }
        if let Some(name) = &arguments.layer {
            let origin = found.layer(name)?;
            show(arguments, &origin, || origin.text());
        }
        return Ok(ExitCode::SUCCESS);
    }
    let wanted = Wanted { build: arguments.build, parser: arguments.compare_parser, trace: arguments.html.is_some() };
    let reported = fuse_report(&arguments.model, &options, wanted, Some(&mut progress.callback()))?;
    progress.finish();
    shared::warn(&reported.report.notes);
    if let Some(file) = &arguments.html {
        write_page(&reported, file)?;
    }
    if arguments.network {
        shared::print(&trt_fuse::record(&reported.graph, &options)?.0.text());
    } else {
        show(arguments, &reported.report, || text(&reported.report, arguments.remarks));
    }
    Ok(ExitCode::SUCCESS)
}

/// Prints something as JSON, if that was asked for, or else as text.
fn show(arguments: &Arguments, data: &impl serde::Serialize, text: impl FnOnce() -> String) {
    if arguments.json {
        // A report holds only numbers, strings and lists of them.
        shared::print(&serde_json::to_string_pretty(data).unwrap_or_default());
    } else {
        shared::print(&text());
    }
}

fn text(report: &FuseReport, remarks: bool) -> String {
    let mut text = String::new();
    let model = &report.model;
    let opset = model.opset.map_or(String::new(), |opset| format!(", opset {opset}"));
    let _ = writeln!(text, "{} ({:.1} MB, {}{opset})", model.file, model.bytes as f64 / 1e6, model.producer);
    let _ = writeln!(text, "  {} -> {}\n", model.inputs.join(", "), model.outputs.join(", "));
    let _ = writeln!(text, "{:28} {:>8} {:>8} {:>8} {:>9}", "pass", "rewrites", "before", "after", "ms");
    for pass in report.passes.iter().filter(|pass| pass.rewrites > 0) {
        let _ = writeln!(
            text,
            "{:28} {:>8} {:>8} {:>8} {:>9.2}",
            pass.name, pass.rewrites, pass.nodes_before, pass.nodes_after, pass.ms
        );
    }
    let list = |ops: &std::collections::BTreeMap<String, usize>| {
        let mut items: Vec<(&String, &usize)> = ops.iter().collect();
        items.sort_by(|a, b| b.1.cmp(a.1).then(a.0.cmp(b.0)));
        items.iter().map(|(name, count)| format!("{name} {count}")).collect::<Vec<_>>().join(", ")
    };
    let _ = writeln!(text, "\nops before: {}", list(&report.ops.before));
    let _ = writeln!(text, "ops after:  {}\n", list(&report.ops.after));
    let _ = writeln!(text, "nodes {} -> {}", report.nodes.before, report.nodes.after);
    totals(&mut text, report);
    let times = &report.timings_ms;
    let _ = write!(text, "ms: import {:.1}, optimize {:.1}, emit {:.1}", times.import, times.optimize, times.emit);
    let _ = match times.build {
        Some(build) => writeln!(text, ", build {build:.0}"),
        None => writeln!(text),
    };
    if let Some(engine) = &report.engine {
        let _ = writeln!(
            text,
            "\n{} engine layers ({}, plan of {:.1} MB):",
            engine.layers.len(),
            engine.library,
            engine.plan_bytes as f64 / 1e6
        );
        for layer in &engine.layers {
            let _ = writeln!(text, "  {:24} {}", layer.layer_type, layer.onnx_nodes.join(" + "));
        }
    }
    if remarks {
        let _ = write!(text, "\n{}", remarks_text(&report.remarks));
    }
    text
}

/// Layers, beside the parser's if there are those.
fn totals(text: &mut String, report: &FuseReport) {
    let engine = |count: Option<usize>| count.map_or(String::new(), |count| format!(", engine {count}"));
    let layers = &report.layers;
    let _ = writeln!(
        text,
        "network layers {} ({} without constants){}",
        layers.all,
        layers.without_constants,
        engine(layers.engine)
    );
    if let Some(parser) = &report.parser {
        let build = parser.build_ms.map_or(String::new(), |ms| format!(", build {ms:.0} ms"));
        let _ = writeln!(
            text,
            "OnnxParser:    {} ({} without constants){}, parse {:.1} ms{build}",
            parser.layers.all,
            parser.layers.without_constants,
            engine(parser.layers.engine),
            parser.parse_ms
        );
    }
    if let Some(refusal) = &report.parser_refusal {
        let _ = writeln!(text, "OnnxParser:    none, {refusal}");
    }
}
