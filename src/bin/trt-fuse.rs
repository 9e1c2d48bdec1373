//! Builds engines, tells what cannot be built, verifies, measures and runs engines.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use trt_fuse::conformance::{CaseResult, Reach, Verdict, cases, run_case};
use trt_fuse::import::import_file;
use trt_fuse::tensorrt::TrtNetwork;
use trt_fuse::{Finding, check, open_library};

#[path = "shared/compare.rs"]
mod compare;
#[path = "shared/engines.rs"]
mod engines;
#[path = "shared/mod.rs"]
mod shared;

/// Take ONNX models to TensorRT engines.
#[derive(Parser)]
#[command(
    version,
    after_help = "Examples:
  trt-fuse build resnet50.onnx -o resnet50.plan
  trt-fuse build bert.onnx -o bert.plan --range batch=1:8:32 --range seq=1:128:512
  trt-fuse check model.onnx
  trt-fuse verify resnet50.onnx --plan resnet50.plan
  trt-fuse compare resnet50.onnx
  trt-fuse bench resnet50.plan --useCudaGraph
  trt-fuse run resnet50.plan --input x=x.npy --output-dir outputs
  trt-fuse conformance node-tests --build --tsv results.tsv

Exit codes: 0 fine, 1 error, 2 the model has nodes that the target cannot express."
)]
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
        /// Write TensorRT's bytes alone, as trtexec and Triton take them, without the header that this program checks.
        #[arg(long)]
        bare: bool,
        /// Compare the engine with the evaluator first, as `verify` does, and write no plan if it is wrong. Needs a GPU.
        #[arg(long)]
        verify: bool,
        #[command(flatten)]
        making: engines::Making,
    },
    /// Compare an engine with the evaluator on random inputs at the ends of its ranges, and name the first tensor that
    /// is wrong. Needs a GPU. Exit code 1 if they differ.
    Verify(engines::Verify),
    /// Compare our engine and OnnxParser's: outputs, layers, build time, latency. Needs a GPU. Exit code 1 if ours is
    /// wrong.
    Compare(compare::Compare),
    /// Measure an engine, and print one line of JSON. Needs a GPU.
    Bench(engines::Bench),
    /// Run an engine once on tensors in files. Needs a GPU.
    Run(engines::Run),
    /// List what cannot be taken, one line for each operator and reason, without TensorRT. Exit code 2 if there is any.
    Check {
        /// The model.
        model: PathBuf,
        /// Print JSON.
        #[arg(long)]
        json: bool,
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
        /// Build each, run it on the GPU, and compare the outputs.
        #[arg(long)]
        run: bool,
        /// Only every COUNT-th test, from the INDEX-th on: INDEX/COUNT, for several processes.
        #[arg(long, value_name = "INDEX/COUNT", value_parser = share, default_value = "0/1")]
        share: (usize, usize),
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
        Command::Build { model, output, bare, verify, making } => {
            let built = engines::build_plan(&model, &output, bare, verify, &making);
            built.unwrap_or_else(|error| shared::exit(Err(error)))
        }
        Command::Compare(arguments) => compare::compare(&arguments),
        Command::Verify(arguments) => engines::verify(&arguments),
        Command::Bench(arguments) => shared::exit(engines::bench(&arguments)),
        Command::Run(arguments) => shared::exit(engines::run(&arguments)),
        Command::Check { model, json, common } => check_model(&model, json, &common),
        Command::Conformance { folder, build, run, share, tsv, filter, common } => {
            let reach = if run { Some(Reach::Run) } else { build.then_some(Reach::Build) };
            conformance(&folder, reach, share, tsv.as_deref(), filter.as_deref(), &common)
        }
    }
}

fn check_model(model: &Path, json: bool, common: &shared::Common) -> ExitCode {
    let checked = common.options().and_then(|options| check(import_file(model, &options.import)?, &options));
    let checked = match checked {
        Ok(checked) => checked,
        Err(error) => return shared::exit(Err(error)),
    };
    shared::warn(&checked.notes);
    if json {
        // Numbers, strings and lists of them.
        shared::print(&serde_json::to_string_pretty(&checked).unwrap_or_default());
    } else if checked.findings.is_empty() {
        shared::print(&format!("{}: every node can be taken", model.display()));
    } else {
        shared::print(&checked.findings.iter().map(line).collect::<String>());
    }
    if checked.findings.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(2) }
}

/// A group of nodes that cannot be taken, as a line.
fn line(finding: &Finding) -> String {
    let Finding { op, opset, attribute, reason, count, first_node, workaround } = finding;
    let mut line = format!("{count} x {op}");
    if let Some(opset) = opset {
        let _ = write!(line, " (opset {opset})");
    }
    if let Some(attribute) = attribute {
        let _ = write!(line, ", attribute `{attribute}`");
    }
    let _ = write!(line, ": {reason}; {} `{first_node}`", if *count == 1 { "at" } else { "first at" });
    if let Some(workaround) = workaround {
        let _ = write!(line, "; try: {workaround}");
    }
    shared::one_line(&line) + "\n"
}

/// INDEX/COUNT.
fn share(text: &str) -> Result<(usize, usize), String> {
    let parsed = text.split_once('/').and_then(|(index, count)| Some((index.parse().ok()?, count.parse().ok()?)));
    parsed.filter(|(_, count)| *count > 0).ok_or_else(|| format!("`{text}` is no share: write e.g. 0/4"))
}

fn conformance(
    folder: &Path,
    reach: Option<Reach>,
    (index, count): (usize, usize),
    tsv: Option<&Path>,
    filter: Option<&str>,
    common: &shared::Common,
) -> ExitCode {
    let options = match common.options() {
        Ok(options) => options,
        Err(error) => return shared::exit(Err(error)),
    };
    let opened = reach.map(|reach| open_library(&options).map(|library| (library, reach))).transpose();
    let target = match &opened {
        Ok(opened) => opened.as_ref().map(|(library, reach)| (library, *reach)),
        Err(error) => return shared::fail(&error.to_string()),
    };
    let cases = match cases(folder) {
        Ok(cases) => cases,
        Err(error) => return shared::fail(&format!("{}: {error}", folder.display())),
    };
    // TensorRT loads its kernels with the first builder of a process, and forgets them with the last.
    let _builder = target.and_then(|(library, _)| TrtNetwork::new(library).ok());
    let mut results = Vec::new();
    let wanted = cases.iter().filter(|case| filter.is_none_or(|text| case.to_string_lossy().contains(text)));
    for case in wanted.skip(index).step_by(count) {
        let result = run_case(case, target, &options);
        shared::print(&format!("{:11} {:11} {}  {}", result.eval, result.build, result.name, result.reason));
        results.push(result);
    }
    let passed =
        |verdict: fn(&CaseResult) -> Verdict| results.iter().filter(|case| verdict(case) == Verdict::Pass).count();
    shared::print(&format!(
        "{} tests: evaluator right on {}, {} {}",
        results.len(),
        passed(|case| case.eval),
        passed(|case| case.build),
        if reach == Some(Reach::Run) { "right on the GPU" } else { "built" }
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
