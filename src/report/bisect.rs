//! The first rewrite after which the outputs are others.
//!
//! The graph after the first n rewrites is evaluated for chosen n, halving the range in which the outputs turn. A rewrite
//! that makes good what an earlier one did wrong hides both.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use serde::Serialize;
use trt_fuse_ir::eval::{difference, eval_graph, random_inputs};
use trt_fuse_ir::{Graph, Tensor, verify};
use trt_fuse_passes::{Pipeline, Rewrite, TracedNode};

use crate::import::{ImportError, Model, read_npy, read_tensor};
use crate::{Error, Options};

/// Where the sequence of random inputs begins.
const SEED: u64 = 1;
/// The size of a symbolic dimension that no range gives one.
const SIZE: i64 = 2;

/// What is wrong with the files that hold inputs.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InputError {
    /// An input without a file.
    #[error("no file for input `{input}`: there is neither {} nor {}", npy.display(), pb.display())]
    Missing {
        /// The input.
        input: String,
        /// The array that was looked for.
        npy: PathBuf,
        /// The tensor that was looked for.
        pb: PathBuf,
    },
    /// A file that cannot be read.
    #[error("input `{input}`: {error}")]
    File {
        /// The input.
        input: String,
        /// What is wrong with it.
        error: ImportError,
    },
}

/// The inputs of a graph from a folder: `NAME.npy`, with `_` for each `/` of the name, or `input_N.pb`, counted from 0.
///
/// # Errors
/// An input without a file, or one that cannot be read.
pub fn read_inputs(folder: &Path, graph: &Graph) -> Result<Vec<Tensor>, InputError> {
    let mut inputs = Vec::new();
    for (at, value) in graph.inputs().iter().filter_map(|id| graph.value((*id).into())).enumerate() {
        let npy = folder.join(format!("{}.npy", value.name.replace('/', "_")));
        let pb = folder.join(format!("input_{at}.pb"));
        let read = match (npy.is_file(), pb.is_file()) {
            (true, _) => read_npy(&npy),
            (_, true) => read_tensor(&pb),
            _ => return Err(InputError::Missing { input: value.name.to_string(), npy, pb }),
        };
        inputs.push(read.map_err(|error| InputError::File { input: value.name.to_string(), error })?);
    }
    Ok(inputs)
}

/// What bisecting a model found.
#[derive(Debug, Serialize)]
pub struct Bisection {
    /// The largest difference that is none, relative to the largest element of an output.
    pub tolerance: f64,
    /// The pipelines that were run, up to the one that changes an output.
    pub stages: Vec<StageLine>,
    /// The first rewrite that changes an output, if one does.
    pub culprit: Option<Culprit>,
}

/// A pipeline and what it does to the outputs.
#[derive(Debug, Serialize)]
pub struct StageLine {
    /// Its name.
    pub name: &'static str,
    /// Number of its rewrites.
    pub rewrites: usize,
    /// The largest difference of an output after it; null if that is infinite, or the graph cannot be evaluated.
    pub difference: f64,
}

/// The first rewrite that changes an output.
#[derive(Debug, Serialize)]
pub struct Culprit {
    /// The pipeline that makes it.
    pub stage: &'static str,
    /// The rewrite.
    pub rewrite: Rewrite,
    /// The output that differs most, or why there is none.
    pub output: String,
    /// The largest difference before it.
    pub before: f64,
    /// The largest difference after it; null if that is infinite, or the graph cannot be evaluated.
    pub after: f64,
}

/// Bisects the pipelines that a model goes through.
///
/// # Errors
/// If the inputs cannot be read or do not fit, the model cannot be evaluated, or a pass has a bug that shows without
/// evaluating.
pub fn bisect(model: Model, options: &Options, folder: Option<&Path>, tolerance: f64) -> Result<Bisection, Error> {
    let graph = model.graph;
    verify(&graph)?;
    let inputs = match folder {
        Some(folder) => read_inputs(folder, &graph)?,
        None => {
            let given = |name: &str| options.ranges.iter().find(|range| range.symbol == name).map(|range| range.opt);
            random_inputs(&graph, &|name| given(name).or(Some(SIZE)), SEED)?
        }
    };
    let capabilities = options.capabilities.clone().unwrap_or_default();
    let stages = [
        ("standard", options.passes.pipeline(&capabilities, options.build.fp16)?),
        ("lowering", Pipeline::lowering_of(&graph, &capabilities)),
    ];
    bisect_pipelines(&graph, &stages, &inputs, tolerance)
}

/// Bisects pipelines that a graph goes through one after another.
///
/// # Errors
/// If the graph cannot be evaluated, or a pass has a bug that shows without evaluating.
pub fn bisect_pipelines(
    graph: &Graph,
    stages: &[(&'static str, Pipeline)],
    inputs: &[Tensor],
    tolerance: f64,
) -> Result<Bisection, Error> {
    let outputs = Outputs { expected: eval_graph(graph, inputs)?, inputs };
    let mut start = graph.clone();
    let mut lines: Vec<StageLine> = Vec::new();
    for (name, pipeline) in stages {
        let (end, report) = pipeline.trace(start.clone(), usize::MAX)?;
        let turned = match lines.last() {
            Some(last) if report.rewrites == 0 => Turn { difference: last.difference, output: String::new() },
            _ => outputs.of(&end),
        };
        lines.push(StageLine { name, rewrites: report.rewrites, difference: turned.difference });
        if turned.is_within(tolerance) {
            start = end;
            continue;
        }
        let culprit = first_turn(&start, pipeline, &outputs, tolerance, (report.rewrites, turned))?;
        let culprit = culprit.map(|(rewrite, before, after)| Culprit {
            stage: name,
            rewrite,
            output: after.output,
            before: before.difference,
            after: after.difference,
        });
        return Ok(Bisection { tolerance, stages: lines, culprit });
    }
    Ok(Bisection { tolerance, stages: lines, culprit: None })
}

/// Halves the range between the graph before a pipeline, which is right, and that after all its rewrites, which is not.
fn first_turn(
    start: &Graph,
    pipeline: &Pipeline,
    outputs: &Outputs<'_>,
    tolerance: f64,
    end: (usize, Turn),
) -> Result<Option<(Rewrite, Turn, Turn)>, Error> {
    let mut right = (0, outputs.of(&pipeline.trace(start.clone(), 0)?.0));
    let mut wrong = end;
    while wrong.0 - right.0 > 1 {
        let middle = right.0 + (wrong.0 - right.0) / 2;
        let turn = outputs.of(&pipeline.trace(start.clone(), middle)?.0);
        if turn.is_within(tolerance) {
            right = (middle, turn);
        } else {
            wrong = (middle, turn);
        }
    }
    let (_, report) = pipeline.trace(start.clone(), wrong.0)?;
    let rewrite = report.trace.into_iter().rev().find(|rewrite| !rewrite.is_drop());
    Ok(rewrite.map(|rewrite| (rewrite, right.1, wrong.1)))
}

/// What the outputs should be.
struct Outputs<'i> {
    expected: Vec<Tensor>,
    inputs: &'i [Tensor],
}

/// How far outputs are from what they should be.
struct Turn {
    difference: f64,
    output: String,
}

impl Turn {
    fn is_within(&self, tolerance: f64) -> bool {
        self.difference <= tolerance
    }
}

impl Outputs<'_> {
    fn of(&self, graph: &Graph) -> Turn {
        let found = match eval_graph(graph, self.inputs) {
            Ok(found) => found,
            Err(error) => {
                return Turn { difference: f64::INFINITY, output: format!("none, {error}") };
            }
        };
        let differences = self.expected.iter().zip(&found).map(|(expected, found)| difference(expected, found));
        let named = graph.outputs().iter().map(|output| output.name.to_string()).zip(differences);
        let worst = named.max_by(|a, b| a.1.total_cmp(&b.1));
        worst
            .map_or(Turn { difference: 0.0, output: String::new() }, |(output, difference)| Turn { difference, output })
    }
}

impl Bisection {
    /// What was found, as text.
    pub fn text(&self) -> String {
        let mut text = String::new();
        for stage in &self.stages {
            let StageLine { name, rewrites, difference } = stage;
            let _ = writeln!(text, "{name}: {rewrites} rewrites, outputs differ by {difference:.1e}");
        }
        let Some(culprit) = &self.culprit else {
            let _ = writeln!(text, "nothing differs by more than {:.0e}", self.tolerance);
            return text;
        };
        let Rewrite { number, rule, ordinal, round, node, before, after, instead, .. } = &culprit.rewrite;
        let _ = writeln!(text, "\nrewrite {number} of {} changes the outputs:", culprit.stage);
        let _ = writeln!(text, "  {rule} #{ordinal}, round {round}, at ONNX node {node}");
        let _ =
            writeln!(text, "  output {}: {:.1e} before, {:.1e} after", culprit.output, culprit.before, culprit.after);
        for (title, nodes) in [("before", before), ("after", after), ("read instead", instead)] {
            lines(&mut text, title, nodes);
        }
        text
    }
}

fn lines(text: &mut String, title: &str, nodes: &[TracedNode]) {
    if !nodes.is_empty() {
        let _ = writeln!(text, "{title}:");
    }
    for node in nodes {
        let _ = writeln!(text, "  {}", if node.line.is_empty() { &*node.name } else { &node.line });
    }
}
