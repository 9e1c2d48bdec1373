//! Builds engines, and tells what cannot be built.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trt_fuse::conformance::{CaseResult, Verdict, cases, run_case};
use trt_fuse::import::import_file;
use trt_fuse::{Error, build, open_library, optimize, unsupported};

#[path = "shared/mod.rs"]
mod shared;

/// Take ONNX models to TensorRT engines.
#[derive(Parser)]
#[command(version, after_help = "Examples:
  trt-fuse build resnet50.onnx -o resnet50.plan
  trt-fuse build bert.onnx -o bert.plan --range batch=1:8:32 --range seq=1:128:512
  trt-fuse check model.onnx
  trt-fuse conformance node-tests --build --tsv results.tsv

Exit codes: 0 fine, 1 error, 2 the model has nodes that the target cannot express.")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Optimise a model, build its engine, and write the plan.
    Build {
        /// The model.
        model: PathBuf,
        /// Where the plan goes; it appears whole or not at all.
        #[arg(short, long, value_name = "PLAN")]
        output: PathBuf,
        #[command(flatten)]
        common: shared::Common,
    },
    /// List every node that cannot be taken, without TensorRT. Exit code 2 if there is one.
    Check {
        /// The model.
        model: PathBuf,
        #[command(flatten)]
        common: shared::Common,
    },
    /// Run ONNX's own tests: folders with model.onnx and test_data_set_0.
    Conformance {
        /// The folder that holds the tests.
        folder: PathBuf,
        /// Build each network too.
        #[arg(long)]
        build: bool,
        /// Write the results as tab-separated values.
        #[arg(long, value_name = "FILE")]
        tsv: Option<PathBuf>,
        /// Only tests whose name contains this.
        #[arg(long, value_name = "TEXT")]
        filter: Option<String>,
        #[command(flatten)]
        common: shared::Common,
    },
}

fn main() -> ExitCode {
    match Arguments::parse().command {
        Command::Build { model, output, common } => shared::exit(build_plan(&model, &output, &common)),
        Command::Check { model, common } => check(&model, &common),
        Command::Conformance { folder, build, tsv, filter, common } => {
            conformance(&folder, build, tsv.as_deref(), filter.as_deref(), &common)
        }
    }
}

fn build_plan(model: &Path, output: &Path, common: &shared::Common) -> Result<(), Error> {
    let mut options = common.options();
    let library = open_library(&options)?;
    options.capabilities = Some(library.capabilities());
    let optimized = optimize(import_file(model, &options.import)?, &options)?;
    let progress = shared::BuildProgress::new(true);
    let built = build(&optimized.graph, &library, &options, Some(&mut progress.callback()))?;
    progress.finish();
    built.plan.save(output)?;
    shared::print(&format!(
        "{}: {:.1} MB, {} network layers, built by {} in {:.1} s",
        output.display(),
        built.plan.bytes().len() as f64 / 1e6,
        built.layers.all,
        library.version(),
        built.build.as_secs_f64()
    ));
    Ok(())
}

fn check(model: &Path, common: &shared::Common) -> ExitCode {
    let options = common.options();
    let run = || {
        let model = import_file(model, &options.import)?;
        let opset = model.opsets.get("").copied();
        let optimized = optimize(model, &options)?;
        Ok((opset, unsupported(&optimized.graph, &options)?))
    };
    let (opset, nodes) = match run() {
        Ok(found) => found,
        Err(error) => return shared::exit(Err(error)),
    };
    if nodes.is_empty() {
        shared::print(&format!("{}: every node can be taken", model.display()));
        return ExitCode::SUCCESS;
    }
    let mut groups: BTreeMap<(&str, &str), Vec<&str>> = BTreeMap::new();
    for node in &nodes {
        groups.entry((&node.op, &node.reason)).or_default().push(&node.node);
    }
    let mut text = format!("{}: {} nodes cannot be taken\n", model.display(), nodes.len());
    let opset = opset.map_or(String::new(), |opset| format!(" (opset {opset})"));
    for ((op, reason), names) in groups {
        let first = names.first().copied().unwrap_or_default();
        let more = if names.len() > 1 { format!(" and {} more", names.len() - 1) } else { String::new() };
        let _ = writeln!(text, "{:>5} x {op}{opset}: {reason}; at {first}{more}", names.len());
    }
    shared::print(&text);
    ExitCode::from(2)
}

fn conformance(
    folder: &Path,
    build: bool,
    tsv: Option<&Path>,
    filter: Option<&str>,
    common: &shared::Common,
) -> ExitCode {
    let library = if build {
        match open_library(&common.options()) {
            Ok(library) => Some(library),
            Err(error) => return shared::exit(Err(error)),
        }
    } else {
        None
    };
    let cases = match cases(folder) {
        Ok(cases) => cases,
        Err(error) => return shared::fail(&format!("{}: {error}", folder.display())),
    };
    let mut results = Vec::new();
    for case in cases.iter().filter(|case| filter.is_none_or(|text| case.to_string_lossy().contains(text))) {
        let result = run_case(case, library.as_ref());
        shared::print(&format!("{:11} {:11} {}  {}", result.eval, result.build, result.name, result.reason));
        results.push(result);
    }
    let passed = |verdict: fn(&CaseResult) -> Verdict| results.iter().filter(|case| verdict(case) == Verdict::Pass).count();
    shared::print(&format!(
        "{} tests: evaluator right on {}, {} built",
        results.len(),
        passed(|case| case.eval),
        passed(|case| case.build)
    ));
    if let Some(file) = tsv {
        let mut text = "test\teval\tbuild\treason\n".to_string();
        for result in &results {
            let _ = writeln!(text, "{}\t{}\t{}\t{}", result.name, result.eval, result.build, result.reason);
        }
        if let Err(error) = std::fs::write(file, text) {
            return shared::fail(&format!("{}: {error}", file.display()));
        }
    }
    ExitCode::SUCCESS
}
