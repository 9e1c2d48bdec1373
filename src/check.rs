//! What of a model a target cannot express, told in groups.

use indexmap::IndexMap;
use rustc_hash::FxHashSet;
use serde::Serialize;
use trt_fuse_ir::{DType, Graph, NodeId, Op};

use crate::compile::counted;
use crate::emit::{EmitError, Unsupported};
use crate::import::Model;
use crate::notes::{Note, type_note};
use crate::{Error, Optimized, Options, optimize, unsupported_nodes};

/// Nodes of one operator that cannot be taken for one reason.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The ONNX type, with its domain unless that is ONNX's own; `input` for inputs of the model.
    pub op: String,
    /// Version of its operator set; `None` for inputs.
    pub opset: Option<i64>,
    /// The attribute that the reason is about, if it is about one.
    pub attribute: Option<String>,
    /// Why not, as a phrase; where it speaks of tensors, those of the first node.
    pub reason: String,
    /// Number of nodes.
    pub count: usize,
    /// The first of them.
    pub first_node: String,
    /// What may help, where something is known.
    pub workaround: Option<String>,
}

/// What was found of a model.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Checked {
    /// What cannot be taken; empty if an engine can be built.
    pub findings: Vec<Finding>,
    /// What is worth knowing besides.
    pub notes: Vec<Note>,
}

/// Finds every node and input that the target cannot express, without TensorRT; nodes in bodies of control flow too.
///
/// # Errors
/// If the model cannot be taken through the passes for another reason.
pub fn check(model: Model, options: &Options) -> Result<Checked, Error> {
    let opsets = model.opsets.clone();
    let Optimized { graph, mut notes, .. } = optimize(model, options)?;
    let (mut nodes, told) = match counted(&graph, options) {
        Ok((_, told)) => (Vec::new(), told),
        Err(Error::Emit(EmitError::Unsupported(nodes))) => {
            (nodes, type_note(&graph, &options.capabilities.clone().unwrap_or_default()).into_iter().collect())
        }
        Err(error) => return Err(error),
    };
    // What follows from a node in a body that cannot be taken tells nothing more.
    let unjudged = unjudged_control_flow(&graph);
    nodes.retain(|node| !(unjudged.contains(&node.node) && node.is_for_lack_of_knowledge()));
    // Emission does not look into the bodies of what it refuses as a whole.
    for node in unsupported_nodes(&graph) {
        if !nodes.contains(&node) {
            nodes.push(node);
        }
    }
    let names = value_names(&graph);
    let (symbol, integers) = (first_symbol(&graph), first_of_integers(&graph));
    let mut groups: IndexMap<(String, Option<String>, String), Vec<Unsupported>> = IndexMap::new();
    for node in nodes {
        let key = (node.op.clone(), node.attribute.clone(), without_names(&node.reason, &names));
        groups.entry(key).or_default().push(node);
    }
    let finding = |nodes: Vec<Unsupported>| {
        let count = nodes.len();
        let first = nodes.into_iter().next()?;
        let domain = first.op.split_once("::").map_or("", |(domain, _)| domain);
        let opset = if first.op == INPUT { None } else { opsets.get(domain).copied() };
        let workaround = workaround(&first, symbol.as_deref(), integers.as_deref());
        let Unsupported { node, op, attribute, reason } = first;
        Some(Finding { op, opset, attribute, reason, count, first_node: node, workaround })
    };
    notes.extend(told);
    Ok(Checked { findings: groups.into_values().filter_map(finding).collect(), notes })
}

/// What stands for the operator of an input.
const INPUT: &str = "input";

/// The names of the nodes of control flow that have a node without a typed form in a body.
fn unjudged_control_flow(graph: &Graph) -> FxHashSet<String> {
    let is_unjudged = |id: &NodeId| {
        let bodies = graph.op(*id).map(Op::bodies).unwrap_or_default();
        bodies.iter().any(|body| !unsupported_nodes(&body.0).is_empty())
    };
    let unjudged = graph.node_ids().filter(is_unjudged);
    unjudged.flat_map(|id| graph.origins(id).map(|source| source.name.to_string())).collect()
}

/// The names of a graph's values.
fn value_names(graph: &Graph) -> FxHashSet<&str> {
    let nodes = graph.node_ids().filter_map(|id| graph.node(id));
    nodes.flat_map(|node| node.outputs.iter().map(|value| &*value.name)).collect()
}

/// A reason without the tensors that it names, so that it is the same for all nodes.
fn without_names(reason: &str, names: &FxHashSet<&str>) -> String {
    let parts = reason.split('`').enumerate().map(|(at, part)| {
        let is_name = at % 2 == 1 && names.contains(part);
        if is_name { "" } else { part }
    });
    parts.collect::<Vec<_>>().join("`")
}

fn first_symbol(graph: &Graph) -> Option<String> {
    let mut first = None;
    for info in graph.inputs().iter().filter_map(|id| graph.info((*id).into())) {
        for dim in info.shape.iter().flatten() {
            dim.visit_symbols(&mut |name| {
                first.get_or_insert_with(|| name.to_string());
            });
        }
    }
    first
}

/// The first input whose values users may fix.
fn first_of_integers(graph: &Graph) -> Option<String> {
    let mut inputs = graph.inputs().iter().filter_map(|id| graph.value((*id).into()));
    inputs
        .find(|value| value.info.dtype.is_integer() || value.info.dtype == DType::Bool)
        .map(|value| value.name.to_string())
}

/// What is known to help, by the operator's domain and type, then by the reason.
fn workaround(node: &Unsupported, symbol: Option<&str>, integers: Option<&str>) -> Option<String> {
    let op = node.op.as_str();
    if node.reason.contains("zero point") {
        // The reason itself says what helps.
        return None;
    }
    let text = match (op.split_once("::"), op) {
        (Some(("com.microsoft" | "com.microsoft.nchwc", _)), _) => {
            "onnxruntime makes it when it saves an optimised model: take the model from before, or save it with \
             graph_optimization_level = ORT_ENABLE_BASIC"
        }
        (Some(("org.pytorch.aten" | "aten", _)), _) => {
            "the exporter fell back to a function of PyTorch: torch.onnx.export(..., dynamo=True) knows more of them"
        }
        (Some(("ai.onnx.ml", _)), _) => "run it outside of the engine; onnx.utils.extract_model cuts the model",
        (_, "StringNormalizer" | "StringConcat" | "StringSplit" | "RegexFullMatch" | "ImageDecoder") => {
            "prepare the data before the engine; onnx.utils.extract_model cuts the model"
        }
        (_, "BatchNormalization" | "Dropout") if node.reason.contains("training") => {
            "export for inference: model.eval() before torch.onnx.export"
        }
        (_, "NonMaxSuppression") => {
            "end the model before it (onnx.utils.extract_model) and select boxes on the host, or build with TensorRT \
             instead of TensorRT-RTX"
        }
        (_, "OneHot") if node.reason.contains("floats") => "make its depth an integer, or a constant",
        (_, "RoiAlign") if node.attribute.as_deref() == Some("sampling_ratio") => {
            "set sampling_ratio to a number, e.g. 2"
        }
        (_, INPUT) if node.reason.contains("no element type") => {
            "give the input another type, and convert before the engine"
        }
        _ if node.is_for_lack_of_knowledge() => {
            let size = symbol.map(|symbol| format!("from the inputs' sizes, fix them, e.g. --range {symbol}=1"));
            let value =
                integers.map(|input| format!("from the values of an input, fix those, e.g. --range '{input}[0]=1'"));
            let cures: Vec<String> = size.into_iter().chain(value).collect();
            if !cures.is_empty() {
                return Some(format!("if it follows {}", cures.join("; if ")));
            }
            "make it a constant of the model (an initializer)"
        }
        _ => return None,
    };
    Some(text.to_string())
}
