//! The way of an ONNX node through the passes into the layers, and back.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::path::Path;
use std::sync::Arc;

use serde::Serialize;
use trt_fuse_ir::{Graph, Op, Source};
use trt_fuse_passes::{Rewrite, TracedNode};

use super::{EngineLayerLine, Wanted, fuse_report_with};
use crate::compile::record_traced;
use crate::tensorrt::Progress;
use crate::{Error, Options};

/// Names like the one that was not found that an error tells.
const NEAREST: usize = 3;

/// Names of other nodes that a line of text tells.
const WITH: usize = 4;

/// A name that nothing has.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no {what} is called `{name}`{}", or_near(.nearest))]
pub struct UnknownName {
    /// What was looked for.
    pub what: &'static str,
    /// The name.
    pub name: String,
    /// Names most like it.
    pub nearest: Vec<String>,
}

fn or_near(nearest: &[String]) -> String {
    let names: Vec<String> = nearest.iter().map(|name| format!("`{name}`")).collect();
    if names.is_empty() { String::new() } else { format!("; the nearest are {}", names.join(", ")) }
}

impl UnknownName {
    fn new<'n>(what: &'static str, name: &str, known: impl Iterator<Item = &'n str>) -> Self {
        let wanted = name.to_lowercase();
        // A part of a name is nearer to it than any other name.
        let score = |known: &str| {
            let known = known.to_lowercase();
            let part = known.contains(&wanted) || wanted.contains(&known);
            strsim::normalized_damerau_levenshtein(&known, &wanted) + f64::from(u8::from(part))
        };
        let mut scored: Vec<(f64, &str)> =
            known.filter(|name| !name.is_empty()).map(|name| (score(name), name)).collect();
        scored.sort_by(|a, b| b.0.total_cmp(&a.0).then(a.1.cmp(b.1)));
        scored.dedup();
        let nearest = scored.iter().take(NEAREST).map(|(_, name)| (*name).to_string()).collect();
        Self { what, name: name.to_string(), nearest }
    }
}

/// A node of the optimised graph.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct GraphNode {
    /// Its name.
    pub name: Arc<str>,
    /// Its operator.
    pub op: String,
    /// The ONNX nodes that it stands for.
    pub onnx_nodes: Vec<Arc<str>>,
}

/// A layer of the network.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct NetworkLayer {
    /// Its name.
    pub name: String,
    /// Its kind.
    pub kind: &'static str,
    /// The ONNX nodes that it stands for.
    pub onnx_nodes: Vec<String>,
}

/// How the nodes of a model came into layers.
#[derive(Debug)]
pub struct Provenance {
    sources: Vec<Source>,
    rewrites: Vec<Rewrite>,
    graph: Vec<GraphNode>,
    network: Vec<NetworkLayer>,
    engine: Option<Vec<EngineLayerLine>>,
}

/// What became of an ONNX node.
#[derive(Debug, Serialize)]
pub struct NodeFate<'p> {
    /// The node.
    pub node: &'p str,
    /// Its ONNX type.
    pub op: &'p str,
    /// The rewrites that touched it, in order.
    pub rewrites: Vec<&'p Rewrite>,
    /// The nodes of the optimised graph that stand for it.
    pub graph_nodes: Vec<&'p GraphNode>,
    /// Why there are none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gone: Option<String>,
    /// The layers of the network that stand for it.
    pub network_layers: Vec<&'p NetworkLayer>,
    /// The layers of the engine that it is in, if that was built.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub engine_layers: Option<Vec<&'p EngineLayerLine>>,
}

/// A node of the model.
#[derive(Debug, Serialize)]
pub struct OnnxNode<'p> {
    /// Its name.
    pub name: &'p str,
    /// Its ONNX type.
    pub op: &'p str,
}

/// Where a layer comes from.
#[derive(Debug, Serialize)]
pub struct LayerOrigin<'p> {
    /// The layer.
    pub layer: &'p str,
    /// What it is, and of what: `network convolution`, `engine kgen`.
    pub kind: String,
    /// The ONNX nodes in it.
    pub onnx_nodes: Vec<OnnxNode<'p>>,
    /// The rewrites that touched them, in order.
    pub rewrites: Vec<&'p Rewrite>,
}

impl Provenance {
    /// Takes a model through the flow and remembers each rewrite.
    ///
    /// # Errors
    /// Those of the flow.
    pub fn of_file(
        path: &Path,
        options: &Options,
        build: bool,
        progress: Option<&mut Progress<'_>>,
    ) -> Result<Self, Error> {
        let wanted = Wanted { build, trace: true, ..Wanted::default() };
        let (reported, options) = fuse_report_with(path, options, wanted, progress)?;
        let (record, lowering) = record_traced(&reported.graph, &options)?;
        let mut rewrites = reported.trace;
        rewrites.extend(lowering);
        let sources = reported.graph.sources().to_vec();
        // A layer that stands for no ONNX node has its own name in their place.
        let known: BTreeSet<&str> = sources.iter().map(|source| &*source.name).collect();
        let layers = record.layers().map(|(kind, name, mut onnx_nodes)| {
            onnx_nodes.retain(|node| known.contains(node.as_str()));
            NetworkLayer { name: name.to_string(), kind, onnx_nodes }
        });
        Ok(Self {
            network: layers.collect(),
            sources,
            rewrites,
            graph: graph_nodes(&reported.graph),
            engine: reported.report.engine.map(|engine| engine.layers),
        })
    }

    /// What became of an ONNX node.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn node(&self, name: &str) -> Result<NodeFate<'_>, UnknownName> {
        let known = || self.sources.iter().map(|source| &*source.name);
        let source = self.sources.iter().find(|source| &*source.name == name);
        let source = source.ok_or_else(|| UnknownName::new("ONNX node", name, known()))?;
        let rewrites = self.rewrites_of(&|node| node == name);
        let graph_nodes: Vec<&GraphNode> =
            self.graph.iter().filter(|node| node.onnx_nodes.iter().any(|onnx| **onnx == *name)).collect();
        Ok(NodeFate {
            node: &source.name,
            op: &source.op_type,
            gone: graph_nodes.is_empty().then(|| gone(rewrites.last().copied(), &source.op_type)),
            rewrites,
            graph_nodes,
            network_layers: self
                .network
                .iter()
                .filter(|layer| layer.onnx_nodes.iter().any(|onnx| onnx == name))
                .collect(),
            engine_layers: self
                .engine
                .as_ref()
                .map(|layers| layers.iter().filter(|layer| layer.onnx_nodes.iter().any(|onnx| onnx == name)).collect()),
        })
    }

    /// Where a layer of the network or the engine comes from; the engine's is meant where both have one of that name.
    ///
    /// # Errors
    /// If there is none of that name.
    pub fn layer(&self, name: &str) -> Result<LayerOrigin<'_>, UnknownName> {
        let engine = self.engine.iter().flatten().find(|layer| layer.name == name);
        let engine = engine.map(|layer| (&*layer.name, format!("engine {}", layer.layer_type), &layer.onnx_nodes));
        let network = self.network.iter().find(|layer| layer.name == name);
        let network = network.map(|layer| (&*layer.name, format!("network {}", layer.kind), &layer.onnx_nodes));
        let known = || {
            let engine = self.engine.iter().flatten().map(|layer| &*layer.name);
            engine.chain(self.network.iter().map(|layer| &*layer.name))
        };
        let found = engine.or(network).ok_or_else(|| UnknownName::new("layer", name, known()))?;
        let (layer, kind, onnx_nodes) = found;
        let is_in = |node: &str| onnx_nodes.iter().any(|onnx| onnx == node);
        let sources = self.sources.iter().filter(|source| is_in(&source.name));
        Ok(LayerOrigin {
            layer,
            kind,
            onnx_nodes: sources.map(|source| OnnxNode { name: &source.name, op: &source.op_type }).collect(),
            rewrites: self.rewrites_of(&is_in),
        })
    }

    /// The rewrites that took in or replaced a node of the model, or made one that stands for it.
    fn rewrites_of(&self, is_wanted: &dyn Fn(&str) -> bool) -> Vec<&Rewrite> {
        let touches = |nodes: &[TracedNode]| nodes.iter().flat_map(|node| &node.onnx_nodes).any(|onnx| is_wanted(onnx));
        self.rewrites.iter().filter(|rewrite| touches(&rewrite.before) || touches(&rewrite.after)).collect()
    }
}

fn graph_nodes(graph: &Graph) -> Vec<GraphNode> {
    let mut nodes = Vec::new();
    for id in graph.live() {
        let Some(node) = graph.node(id).filter(|node| !matches!(node.op, Op::Input | Op::Constant(_))) else {
            continue;
        };
        let onnx_nodes = graph.origins(id).map(|source| source.name.clone()).collect();
        nodes.push(GraphNode { name: node.name.clone(), op: node.op.to_string(), onnx_nodes });
        nodes.extend(node.op.bodies().iter().flat_map(|body| graph_nodes(&body.0)));
    }
    nodes
}

/// Why no node stands for one any more, by the last rewrite that touched it.
fn gone(last: Option<&Rewrite>, op_type: &str) -> String {
    match last {
        None if op_type == "Constant" => "it is a constant".to_string(),
        None => "the importer made a constant or nothing of it".to_string(),
        Some(rewrite) if rewrite.is_drop() => "nothing reads it any more".to_string(),
        Some(rewrite) => became(rewrite),
    }
}

/// What a rewrite made of what it took in.
pub(super) fn became(rewrite: &Rewrite) -> String {
    let names = |nodes: &mut dyn Iterator<Item = &TracedNode>| {
        nodes.map(|node| format!("{} `{}`", node.op, node.name)).collect::<Vec<_>>().join(", ")
    };
    let made = names(&mut rewrite.after.iter().filter(|node| node.op != "constant"));
    let read = names(&mut rewrite.instead.iter());
    let folded = rewrite.after.iter().any(|node| node.op == "constant");
    match (made.as_str(), read.as_str()) {
        _ if rewrite.is_drop() => "dropped: nothing reads it any more".to_string(),
        ("", "") if folded => "folded into a constant".to_string(),
        ("", "") => "dropped".to_string(),
        ("", read) => format!("dropped: {read} is read instead"),
        (made, _) => format!("became {made}"),
    }
}

/// One line a rewrite: the others that it took in, and what it made.
fn rewrite_line(text: &mut String, rewrite: &Rewrite, of: Option<&str>) {
    let mut with: Vec<&str> = rewrite.before.iter().flat_map(|node| &node.onnx_nodes).map(|name| &**name).collect();
    with.retain(|name| Some(*name) != of);
    with.dedup();
    let more = with.len().saturating_sub(WITH);
    with.truncate(WITH);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    let with = if with.is_empty() { String::new() } else { format!("with {}{more}, ", with.join(", ")) };
    let ordinal = if rewrite.is_drop() { String::new() } else { format!(" #{}", rewrite.ordinal) };
    let rule = format!("{}{ordinal}", rewrite.rule);
    let _ = writeln!(text, "  round {} {rule:28} {with}{}", rewrite.round, became(rewrite));
}

impl NodeFate<'_> {
    /// The fate as text.
    pub fn text(&self) -> String {
        let mut text = format!("{} {}\n", self.op, self.node);
        for rewrite in &self.rewrites {
            rewrite_line(&mut text, rewrite, Some(self.node));
        }
        for node in &self.graph_nodes {
            let all = node.onnx_nodes.join(" + ");
            let _ = writeln!(text, "  graph:   {} `{}` = {all}", node.op, node.name);
        }
        if let Some(gone) = &self.gone {
            let _ = writeln!(text, "  graph:   none: {gone}");
        }
        for layer in &self.network_layers {
            let _ = writeln!(text, "  network: {} `{}`", layer.kind, layer.name);
        }
        for layer in self.engine_layers.iter().flatten() {
            let _ =
                writeln!(text, "  engine:  {} `{}` = {}", layer.layer_type, layer.name, layer.onnx_nodes.join(" + "));
        }
        if self.engine_layers.as_ref().is_some_and(Vec::is_empty) {
            text.push_str("  engine:  no layer names it: it is part of others, or nothing is left to do\n");
        }
        text
    }
}

impl LayerOrigin<'_> {
    /// The origin as text.
    pub fn text(&self) -> String {
        let mut text = format!("{} layer `{}`\n", self.kind, self.layer);
        for node in &self.onnx_nodes {
            let _ = writeln!(text, "  onnx:    {} {}", node.op, node.name);
        }
        if self.onnx_nodes.is_empty() {
            text.push_str("  onnx:    none: it was added on the way\n");
        }
        for rewrite in &self.rewrites {
            rewrite_line(&mut text, rewrite, None);
        }
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_names_are_told() {
        let known = ["/layer1/conv1/Conv", "/layer1/conv2/Conv", "/fc/Gemm"];
        let error = |name: &str| UnknownName::new("ONNX node", name, known.into_iter()).to_string();
        assert_eq!(
            error("layer1/conv2/conv"),
            "no ONNX node is called `layer1/conv2/conv`; the nearest are `/layer1/conv2/Conv`, `/layer1/conv1/Conv`, \
             `/fc/Gemm`"
        );
        assert!(error("gemm").contains("the nearest are `/fc/Gemm`"));
        assert_eq!(UnknownName::new("layer", "x", [].into_iter()).to_string(), "no layer is called `x`");
    }
}
