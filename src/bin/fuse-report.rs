//! Shows how a model's nodes become fewer.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use trt_fuse::import::import_file;
use trt_fuse::optimize;
use trt_fuse::report::{FuseReport, Wanted, fuse_report};

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

Exit codes: 0 fine, 1 error, 2 the model has nodes that the target cannot express."
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
    #[arg(long, conflicts_with = "json")]
    network: bool,
    /// Print the graph after the passes, and nothing else.
    #[arg(long, conflicts_with_all = ["json", "network"])]
    graph: bool,
    /// Tell which rewrites nearly applied, and why they did not.
    #[arg(long)]
    remarks: bool,
    #[command(flatten)]
    common: shared::Common,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    shared::exit(run(&arguments))
}

fn run(arguments: &Arguments) -> Result<(), trt_fuse::Error> {
    let options = arguments.common.options();
    if arguments.graph {
        let optimized = optimize(import_file(&arguments.model, &options.import)?, &options)?;
        shared::print(&optimized.graph.to_string());
        return Ok(());
    }
    let wanted = Wanted { build: arguments.build, parser: arguments.compare_parser };
    let progress = shared::BuildProgress::new(arguments.build);
    let reported = fuse_report(&arguments.model, &options, wanted, Some(&mut progress.callback()))?;
    progress.finish();
    shared::warn(&reported.report.notes);
    if arguments.network {
        shared::print(&trt_fuse::record(&reported.graph, &options)?.0.text());
    } else if arguments.json {
        // A report holds only numbers, strings and lists of them.
        shared::print(&serde_json::to_string_pretty(&reported.report).unwrap_or_default());
    } else {
        shared::print(&text(&reported.report, arguments.remarks));
    }
    Ok(())
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
        let _ = writeln!(text, "\n{} rewrites that nearly applied:", report.remarks.len());
        for remark in &report.remarks {
            let _ = writeln!(text, "  {} at {}: {}", remark.rule, remark.node, remark.reason);
        }
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
}
