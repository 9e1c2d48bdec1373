//! The report as a page: one file that asks nothing of a network.
//!
//! Tables are written here and readable without scripts; the two graphs are laid out here ([`super::layout`]) and drawn
//! on canvases by `page.js`.

use std::collections::BTreeMap;
use std::fmt::{self, Display, Write as _};
use std::path::Path;

use rustc_hash::FxHashMap;
use serde::Serialize;
use serde::ser::SerializeTuple;
use trt_fuse_ir::{Graph, NodeId, Op, Step};
use trt_fuse_passes::Rewrite;

use super::provenance::became;
use super::remarks::{at_node, by_condition};
use super::{FuseReport, Reported, layout};
use crate::Error;
use crate::files::write_whole;

/// Letters of a node's second line.
const TAIL: usize = 24;
/// Room for a letter of each line, and around them.
const LETTER: (f32, f32, f32) = (7.6, 5.6, 18.0);
/// Letters of the text form of a node that are kept.
const LINE: usize = 600;

/// Writes a report as a page, all of it or nothing. The report should hold the imported graph and the rewrites
/// ([`Wanted::trace`](super::Wanted::trace)); without, the graph before is drawn as the one after.
///
/// # Errors
/// If the file cannot be written.
pub fn write_page(reported: &Reported, file: &Path) -> Result<(), Error> {
    let page = page(reported);
    write_whole(file, &[page.as_bytes()]).map_err(|error| Error::Write { path: file.to_owned(), error })
}

/// A report as a page.
pub fn page(reported: &Reported) -> String {
    let report = &reported.report;
    let data = Pictures::of(reported);
    let json = serde_json::to_string(&data).unwrap_or_default();
    let model = &report.model;
    let opset = model.opset.map_or(String::new(), |opset| format!(", opset {opset}"));
    let flow = format!("{} → {}", model.inputs.join(", "), model.outputs.join(", "));
    let about = format!("{:.1} MB, {}{opset}; {flow}", model.bytes as f64 / 1e6, model.producer);
    let operators = |picture: &Picture| picture.nodes.iter().filter(|node| node.kind == Kind::Operator).count();
    let values: [(&str, String); 11] = [
        ("title", Escaped(&format!("{} - fuse-report", model.file)).to_string()),
        ("css", include_str!("page/page.css").to_string()),
        ("file", Escaped(&model.file).to_string()),
        ("model", Escaped(&about).to_string()),
        ("totals", totals(report)),
        ("before", operators(&data.before).to_string()),
        ("after", operators(&data.after).to_string()),
        ("sections", sections(report)),
        ("version", env!("CARGO_PKG_VERSION").to_string()),
        // No name in the data may end the element that holds them.
        ("data", json.replace('<', "\\u003c")),
        ("js", include_str!("page/page.js").to_string()),
    ];
    filled(include_str!("page/page.html"), &values)
}

/// A template with its marks `{{name}}` replaced; what is put in is not looked at again.
fn filled(template: &str, values: &[(&str, String)]) -> String {
    let mut page = String::with_capacity(values.iter().map(|(_, value)| value.len()).sum::<usize>() + template.len());
    let mut parts = template.split("{{");
    page.push_str(parts.next().unwrap_or_default());
    for part in parts {
        let (name, rest) = part.split_once("}}").unwrap_or((part, ""));
        let value = values.iter().find(|(known, _)| *known == name);
        page.push_str(value.map_or("", |(_, value)| value));
        page.push_str(rest);
    }
    page
}

/// Text that HTML takes as text.
struct Escaped<'t>(&'t str);

impl Display for Escaped<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars() {
            match c {
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '"' => f.write_str("&quot;")?,
                '\'' => f.write_str("&#39;")?,
                c => f.write_char(c)?,
            }
        }
        Ok(())
    }
}

fn totals(report: &FuseReport) -> String {
    let mut text = String::new();
    let mut total = |id: &str, number: String, what: &str| {
        let _ = writeln!(text, "<li id=\"{id}\"><b>{number}</b><small>{what}</small></li>");
    };
    total("total-nodes", format!("{} → {}", report.nodes.before, report.nodes.after), "nodes, ONNX → after the passes");
    total("total-rewrites", report.passes.iter().map(|pass| pass.rewrites).sum::<usize>().to_string(), "rewrites");
    total("total-layers", report.layers.without_constants.to_string(), "network layers without constants");
    if let Some(engine) = report.layers.engine {
        total("total-engine", engine.to_string(), "engine layers");
    }
    if let Some(parser) = &report.parser {
        let engine = parser.layers.engine.map_or(String::new(), |engine| format!(" / {engine}"));
        total("total-parser", format!("{}{engine}", parser.layers.without_constants), "OnnxParser's layers");
    }
    if let Some(refusal) = &report.parser_refusal {
        total("total-parser", "none".to_string(), &format!("OnnxParser's layers: {}", Escaped(refusal)));
    }
    total("total-remarks", report.remarks.len().to_string(), "rewrites that nearly applied");
    total("total-ms", format!("{:.0} ms", report.timings_ms.import + report.timings_ms.optimize), "import and passes");
    text
}

/// A table; columns whose title begins with `#` hold numbers.
fn table(id: &str, caption: &str, titles: &[&str], rows: impl Iterator<Item = Vec<String>>) -> String {
    let mut text = format!("<div class=\"scroll\"><table id=\"{id}\"><caption>{caption}</caption><thead><tr>");
    let class =
        |column: usize| titles.get(column).filter(|title| title.starts_with('#')).map_or("", |_| " class=\"n\"");
    for (column, title) in titles.iter().enumerate() {
        let _ = write!(text, "<th{}>{}</th>", class(column), title.trim_start_matches('#'));
    }
    text.push_str("</tr></thead><tbody>\n");
    for row in rows {
        text.push_str("<tr>");
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(text, "<td{}>{}</td>", class(column), Escaped(cell));
        }
        text.push_str("</tr>\n");
    }
    text.push_str("</tbody></table></div>\n");
    text
}

fn sections(report: &FuseReport) -> String {
    let mut text = String::from("<h2>Operators and passes</h2>\n<div class=\"tables\">\n");
    let ops = |ops: &BTreeMap<String, usize>| {
        let mut ops: Vec<(String, usize)> = ops.iter().map(|(name, count)| (name.clone(), *count)).collect();
        ops.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        ops.into_iter().map(|(name, count)| vec![name, count.to_string()])
    };
    text += &table("ops-before", "ONNX operators", &["operator", "#nodes"], ops(&report.ops.before));
    text += &table("ops-after", "After the passes", &["operator", "#nodes"], ops(&report.ops.after));
    let passes = report.passes.iter().filter(|pass| pass.rewrites > 0).map(|pass| {
        let numbers = [pass.rewrites, pass.nodes_before, pass.nodes_after].map(|number| number.to_string());
        [vec![pass.name.to_string()], numbers.to_vec(), vec![format!("{:.2}", pass.ms)]].concat()
    });
    let titles = ["pass", "#rewrites", "#nodes before", "#after", "#ms"];
    text += &table("passes", "Passes that changed something, in order", &titles, passes);
    text += "</div>\n";
    text += &remarks(report);
    if !report.notes.is_empty() {
        text += "<h2>Notes</h2>\n<ul>\n";
        for note in &report.notes {
            let _ = writeln!(text, "<li>{}</li>", Escaped(&note.to_string()));
        }
        text += "</ul>\n";
    }
    if let Some(engine) = &report.engine {
        let _ = writeln!(text, "<h2>Engine</h2>");
        let layers = engine.layers.iter().enumerate().map(|(at, layer)| {
            vec![(at + 1).to_string(), layer.layer_type.clone(), layer.name.clone(), layer.onnx_nodes.join(" + ")]
        });
        let megabytes = engine.plan_bytes as f64 / 1e6;
        let caption = format!("{} layers of {}, {megabytes:.1} MB", engine.layers.len(), engine.library);
        text += &table("engine", &Escaped(&caption).to_string(), &["#", "type", "layer", "ONNX nodes"], layers);
    }
    text
}

fn remarks(report: &FuseReport) -> String {
    let mut text = String::from("<h2>Not fused</h2>\n<div id=\"remarks\">\n");
    if report.remarks.is_empty() {
        text += "<p class=\"muted\">No rewrite nearly applied.</p>\n";
    }
    let by_condition = by_condition(&report.remarks);
    for group in &report.remark_groups {
        let (rule, count) = (group.rule, group.count);
        let condition = Escaped(&group.condition);
        let _ = writeln!(text, "<details><summary>{count} × {condition} <small>{rule}</small></summary><ul>");
        for remark in by_condition.get(&(group.condition.as_str(), rule)).into_iter().flatten() {
            let (node, line) = (Escaped(&remark.node), at_node(remark));
            let _ = writeln!(text, "<li><a href=\"#before\" data-node=\"{node}\">{}</a></li>", Escaped(&line));
        }
        text += "</ul></details>\n";
    }
    text += "</div>\n";
    text
}

#[derive(Debug, Serialize)]
struct Pictures {
    before: Picture,
    after: Picture,
}

/// The points of an edge between its nodes.
type Bends = Vec<(i32, i32)>;

#[derive(Debug, Serialize)]
struct Picture {
    nodes: Vec<Node>,
    edges: Vec<(usize, usize, Bends)>,
    width: i32,
    height: i32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Operator,
    Input,
    Output,
}

/// A node to be drawn.
#[derive(Debug)]
struct Node {
    label: String,
    /// The end of the name, small under the label.
    tail: String,
    name: String,
    /// In text form.
    line: String,
    kind: Kind,
    /// The group that it is of: all that became one node.
    group: Option<usize>,
    at: (f32, f32),
    width: f32,
    /// Nodes of the other picture with an ONNX node in common.
    peers: Vec<usize>,
    /// Indices of ONNX nodes.
    sources: Vec<u32>,
    onnx: Vec<String>,
    /// Rules that touched it.
    rules: Vec<&'static str>,
    /// What became of it, if nothing stands for it.
    gone: Option<String>,
}

impl Serialize for Node {
    /// As a list, in the order that `page.js` reads.
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut list = serializer.serialize_tuple(13)?;
        list.serialize_element(&self.label)?;
        list.serialize_element(&self.tail)?;
        list.serialize_element(&self.name)?;
        list.serialize_element(&self.line)?;
        list.serialize_element(&(self.kind as u8))?;
        list.serialize_element(&self.group.map_or(-1, |group| i64::try_from(group).unwrap_or(-1)))?;
        list.serialize_element(&(self.at.0 as i32))?;
        list.serialize_element(&(self.at.1 as i32))?;
        list.serialize_element(&(self.width as i32))?;
        list.serialize_element(&self.peers)?;
        list.serialize_element(&self.onnx)?;
        list.serialize_element(&self.rules)?;
        list.serialize_element(&self.gone)?;
        list.end()
    }
}

impl Pictures {
    fn of(reported: &Reported) -> Self {
        let mut before = Picture::of(reported.imported.as_ref().unwrap_or(&reported.graph), true);
        let mut after = Picture::of(&reported.graph, false);
        let rewrites = Rewrites::of(&reported.trace);
        for picture in [&mut before, &mut after] {
            for node in &mut picture.nodes {
                node.rules = rewrites.rules(&node.onnx);
            }
        }
        pair(&mut before, &mut after);
        for node in before.nodes.iter_mut().filter(|node| node.kind == Kind::Operator && node.peers.is_empty()) {
            let last = node.onnx.iter().filter_map(|name| rewrites.last.get(name.as_str())).next_back();
            node.gone = Some(last.map_or_else(|| "nothing reads it".to_string(), |rewrite| became(rewrite)));
        }
        Self { before, after }
    }
}

/// Finds the nodes of both pictures that have ONNX nodes in common, and the groups.
fn pair(before: &mut Picture, after: &mut Picture) {
    let mut by_source: FxHashMap<u32, Vec<usize>> = FxHashMap::default();
    for (at, node) in after.nodes.iter().enumerate() {
        for source in &node.sources {
            by_source.entry(*source).or_default().push(at);
        }
    }
    for (at, node) in before.nodes.iter_mut().enumerate() {
        let peers = node.sources.iter().filter_map(|source| by_source.get(source)).flatten();
        let mut peers: Vec<usize> = peers.copied().collect();
        peers.sort_unstable();
        peers.dedup();
        for peer in &peers {
            if let Some(peer) = after.nodes.get_mut(*peer) {
                peer.peers.push(at);
            }
        }
        node.peers = peers;
    }
    for (at, node) in after.nodes.iter_mut().enumerate() {
        node.group = (node.peers.len() > 1).then_some(at);
    }
    for node in &mut before.nodes {
        node.group = node.peers.iter().find_map(|peer| after.nodes.get(*peer)?.group);
    }
}

/// What was done to each ONNX node.
struct Rewrites<'t> {
    rules: FxHashMap<&'t str, Vec<&'static str>>,
    last: FxHashMap<&'t str, &'t Rewrite>,
}

impl<'t> Rewrites<'t> {
    fn of(trace: &'t [Rewrite]) -> Self {
        let mut rewrites = Self { rules: FxHashMap::default(), last: FxHashMap::default() };
        for rewrite in trace {
            for name in rewrite.before.iter().flat_map(|node| &node.onnx_nodes) {
                let rules = rewrites.rules.entry(name).or_default();
                if !rules.contains(&rewrite.rule) {
                    rules.push(rewrite.rule);
                }
                rewrites.last.insert(name, rewrite);
            }
        }
        rewrites
    }

    fn rules(&self, onnx: &[String]) -> Vec<&'static str> {
        let mut all: Vec<&'static str> = Vec::new();
        for rule in onnx.iter().filter_map(|name| self.rules.get(name.as_str())).flatten() {
            if !all.contains(rule) {
                all.push(rule);
            }
        }
        all
    }
}

impl Picture {
    /// A graph without its constants. Nodes of the imported graph are labelled by their ONNX types.
    fn of(graph: &Graph, imported: bool) -> Self {
        let mut nodes = Vec::new();
        let mut index: FxHashMap<NodeId, usize> = FxHashMap::default();
        let mut edges = Vec::new();
        for id in graph.topo() {
            if matches!(graph.op(id), None | Some(Op::Constant(_))) {
                continue;
            }
            let inputs = graph.node_inputs(id);
            let mut from: Vec<usize> =
                inputs.iter().flatten().filter_map(|value| index.get(&value.node)).copied().collect();
            from.dedup();
            edges.extend(from.into_iter().map(|from| (from, nodes.len())));
            index.insert(id, nodes.len());
            nodes.push(Node::of(graph, id, imported));
        }
        for output in graph.outputs() {
            if let Some(from) = index.get(&output.value.node) {
                edges.push((*from, nodes.len()));
            }
            let info = graph.info(output.value).map(ToString::to_string).unwrap_or_default();
            nodes.push(Node::new("output", &output.name, info, Kind::Output));
        }
        let widths: Vec<f32> = nodes.iter().map(|node| node.width).collect();
        let places = layout(&widths, &edges);
        for (node, at) in nodes.iter_mut().zip(&places.nodes) {
            node.at = *at;
        }
        let bends = places.bends.iter().map(|bends| bends.iter().map(|(x, y)| (*x as i32, *y as i32)).collect());
        Self {
            edges: edges.iter().zip(bends).map(|((from, to), bends)| (*from, *to, bends)).collect(),
            nodes,
            width: places.width as i32,
            height: places.height as i32,
        }
    }
}

impl Node {
    fn new(label: &str, name: &str, line: String, kind: Kind) -> Self {
        let tail = tail(name);
        let letters = |text: &str| text.chars().count() as f32;
        let width = (letters(label) * LETTER.0).max(letters(&tail) * LETTER.1) + LETTER.2;
        let line = line.chars().take(LINE).collect();
        Self {
            label: label.to_string(),
            tail,
            name: name.to_string(),
            line,
            kind,
            group: None,
            at: (0.0, 0.0),
            width,
            peers: Vec::new(),
            sources: Vec::new(),
            onnx: Vec::new(),
            rules: Vec::new(),
            gone: None,
        }
    }

    fn of(graph: &Graph, id: NodeId, imported: bool) -> Self {
        let name = graph.node_name(id);
        let info = || graph.info(id.into()).map(ToString::to_string).unwrap_or_default();
        let Some(op) = graph.op(id).filter(|op| !matches!(op, Op::Input)) else {
            return Self::new("input", name, info(), Kind::Input);
        };
        let mut origins = graph.origins(id);
        let label = match (origins.next(), origins.next()) {
            (Some(source), None) if imported => source.op_type.to_string(),
            _ => with_epilogue(op),
        };
        let mut node = Self::new(&label, name, graph.line(id), Kind::Operator);
        node.sources = graph.node(id).map(|node| node.origin.sources().collect()).unwrap_or_default();
        node.onnx = graph.origins(id).map(|source| source.name.to_string()).collect();
        node
    }
}

/// An operator and what it applies to its output.
fn with_epilogue(op: &Op) -> String {
    let mut label = op.to_string();
    for step in op.epilogue().map(|epilogue| epilogue.0.iter()).into_iter().flatten() {
        let _ = match step {
            Step::Add => write!(label, " + add"),
            Step::Activation(activation) => write!(label, " + {}", Op::Activation(*activation)),
        };
    }
    label
}

/// The end of a name, from a slash on where that is near.
fn tail(name: &str) -> String {
    let letters = name.chars().count();
    if letters <= TAIL {
        return name.to_string();
    }
    let end: String = name.chars().skip(letters - TAIL).collect();
    let end = end.split_once('/').map_or(end.as_str(), |(_, end)| end);
    format!("…{end}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_leave_their_place() {
        assert_eq!(Escaped("<a href='x'>&\"").to_string(), "&lt;a href=&#39;x&#39;&gt;&amp;&quot;");
        let values = [("a", "{{b}}".to_string()), ("b", "never".to_string())];
        assert_eq!(filled("x {{a}} y {{c}} z", &values), "x {{b}} y  z");
    }

    #[test]
    fn names_are_cut_at_the_front() {
        assert_eq!(tail("short"), "short");
        assert_eq!(tail("/encoder/layers/encoder_layer_11/mlp/Gemm"), "…mlp/Gemm");
        assert_eq!(tail("ein_sehr_langer_name_ohne_schrägstrich"), "…r_name_ohne_schrägstrich");
    }

    #[test]
    fn pictures_pair_what_has_onnx_nodes_in_common() {
        let text = "graph g(%x: f32[1, 2, 3, 3], %w: f32[2, 2, 1, 1]) -> (%y) {
            %c = conv(%x, %w) strides=[1, 1] dilations=[1, 1] groups=1
            %i = identity(%c)
            %r = relu(%i)
            %y = exp(%r)
        }";
        let imported: Graph = text.parse().unwrap();
        let (graph, report) = trt_fuse_passes::Pipeline::standard(&trt_fuse_ir::Capabilities::default())
            .trace(imported.clone(), usize::MAX)
            .unwrap();
        let mut before = Picture::of(&imported, true);
        let mut after = Picture::of(&graph, false);
        pair(&mut before, &mut after);
        let shown = |picture: &Picture| {
            let nodes = picture.nodes.iter().map(|node| format!("{} {:?} {:?}", node.label, node.group, node.peers));
            nodes.collect::<Vec<_>>().join("\n")
        };
        insta::assert_snapshot!(shown(&before), @"
        input None []
        input None []
        conv Some(2) [2]
        identity None []
        relu Some(2) [2]
        exp None [3]
        output None []
        ");
        insta::assert_snapshot!(shown(&after), @"
        input None []
        input None []
        conv + relu Some(2) [2, 4]
        exp None [5]
        output None []
        ");
        let rewrites = Rewrites::of(&report.trace);
        assert_eq!(rewrites.rules(&["i".to_string()]), ["drop_identity"]);
        assert_eq!(became(rewrites.last["i"]), "dropped: conv `c` is read instead");
    }
}
