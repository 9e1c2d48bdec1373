//! What a pass is, what a rule is, and the driver that runs a rule over a graph.
//!
//! A [`Rule`] reads the graph at one node and returns a [`Patch`] or says why not; the driver here is the only caller
//! of [`Graph::apply`]. A rule that would take in a value which something else still reads is stopped by the patch's own
//! check, and the reader's name becomes the remark.

use std::fmt::Debug;
use std::sync::Arc;

use rustc_hash::FxHashSet;
use serde::Serialize;
use trt_fuse_ir::{Applied, Capabilities, Dim, Graph, GraphError, NodeId, OpKind, Patch, ValueRef, VerifyErrors};

use crate::siblings::Siblings;
use crate::trace::{Journal, Refused, onnx_name};

/// What a pass did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Nothing.
    Unchanged,
    /// The graph is another.
    Changed {
        /// Patches applied, or nodes removed.
        rewrites: usize,
    },
}

impl Outcome {
    /// Changed if there is any rewrite.
    pub fn of(rewrites: usize) -> Self {
        if rewrites == 0 { Self::Unchanged } else { Self::Changed { rewrites } }
    }

    /// Number of rewrites.
    pub fn rewrites(self) -> usize {
        match self {
            Self::Unchanged => 0,
            Self::Changed { rewrites } => rewrites,
        }
    }
}

/// Why a rule does not apply. Data, never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Miss {
    /// The pattern is not there.
    NoMatch,
    /// The pattern is there, and the rewrite would change nothing.
    NoEffect,
    /// The pattern is there, and a condition fails.
    Blocked {
        /// The condition, as a phrase; the rule's documentation uses the same.
        reason: &'static str,
        /// The node where it fails.
        at: NodeId,
    },
    /// The pattern is there, and a value that would vanish has another reader. A rule says so itself only if it would
    /// otherwise try something else: the patch's own check finds readers outside of what it absorbs.
    AlsoRead {
        /// The value.
        value: ValueRef,
        /// The reader that belongs to the pattern.
        within: NodeId,
    },
}

/// A near miss, for users.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct Remark {
    /// The rule.
    pub rule: &'static str,
    /// The ONNX node where a condition failed.
    pub node: Arc<str>,
    /// The ONNX type of that node; empty if it stands for no ONNX node.
    pub op: Arc<str>,
    /// The condition, in words that name what else is concerned.
    pub reason: String,
    /// The condition in words that are the same for all nodes where it fails.
    pub condition: String,
}

/// The condition of all remarks about values that something else reads.
const ALSO_READ: &str = "an inner output has another reader";

/// What users set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of data that one fold may create beyond what it frees.
    pub fold_budget: usize,
    /// Which siblings become one wide operation.
    pub siblings: Siblings,
    /// Whether the builder may compute f32 in f16, where other kernels are to be had.
    pub half: bool,
}

impl Default for Options {
    /// 1 MiB for a fold, and the siblings that gain.
    fn default() -> Self {
        Self { fold_budget: 1 << 20, siblings: Siblings::Auto, half: false }
    }
}

/// What a rule may read besides the graph.
#[derive(Debug, Clone, Copy)]
pub struct RuleContext<'a> {
    /// What the target can express.
    pub capabilities: &'a Capabilities,
    /// What users set.
    pub options: &'a Options,
    /// The symbols in the shapes of the graph's inputs.
    pub symbols: &'a Symbols,
}

impl RuleContext<'_> {
    /// Whether TensorRT may make one kernel of an attention that is written out: where it did, queries, keys and values were
    /// rows of products or cut from such rows, and not cut after their transposition (8.5.3; heads of 64).
    pub(crate) fn finds_attention(&self) -> bool {
        self.options.half && self.capabilities.scaled_scores
    }
}

/// The symbols that the shapes of a graph's inputs tell.
///
/// Any other symbol is bound by a node's output, so that a parameter which mentions it would depend on that node
/// without an edge that says so.
#[derive(Debug, Clone, Default)]
pub struct Symbols(FxHashSet<Arc<str>>);

impl Symbols {
    /// The symbols of a graph's inputs.
    pub fn of(graph: &Graph) -> Self {
        let mut symbols = FxHashSet::default();
        let shapes = graph.inputs().iter().filter_map(|id| graph.info((*id).into())?.shape.as_ref());
        // A product such as `2*batch` does not tell `batch` to everybody who sees it; a bare symbol does.
        symbols.extend(shapes.flatten().filter_map(Dim::as_symbol).cloned());
        Self(symbols)
    }

    /// Whether the inputs' shapes tell a symbol's value.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains(name)
    }

    /// Whether the inputs' shapes tell the value of every dimension.
    pub fn tell<'d>(&self, dims: impl IntoIterator<Item = &'d Dim>) -> bool {
        let mut told = true;
        for dim in dims {
            dim.visit_symbols(&mut |name| told &= self.has(name));
        }
        told
    }
}

/// What a pass may read besides the graph, and where its remarks go.
#[derive(Debug)]
pub struct PassContext<'a> {
    /// What the target can express.
    pub capabilities: &'a Capabilities,
    /// What users set.
    pub options: &'a Options,
    /// Near misses.
    pub remarks: Vec<Remark>,
    pub(crate) journal: Journal,
}

impl<'a> PassContext<'a> {
    /// A context without remarks yet.
    pub fn new(capabilities: &'a Capabilities, options: &'a Options) -> Self {
        Self { capabilities, options, remarks: Vec::new(), journal: Journal::default() }
    }

    /// Makes a change: the one way for a pass, so that each is counted and can be traced.
    ///
    /// # Errors
    /// Outside, that the pass is to end, because no more changes may be made; inside, that the patch does not fit.
    pub fn apply(
        &mut self,
        pass: &'static str,
        graph: &mut Graph,
        patch: &Patch,
    ) -> Result<Result<Applied, GraphError>, PassError> {
        match self.journal.apply(pass, graph, patch) {
            Ok(applied) => Ok(Ok(applied)),
            Err(Refused::Patch(error)) => Ok(Err(error)),
            Err(Refused::Spent) => Err(PassError::Stopped),
        }
    }

    /// Removes what no output needs, and says how many nodes computed something.
    pub fn prune(&mut self, pass: &'static str, graph: &mut Graph) -> usize {
        self.journal.prune(pass, graph)
    }

    /// After rewrites: removes what they have left unread, so that it does not count as a reader, and infers again.
    ///
    /// # Errors
    /// If a node no longer fits its inputs.
    pub fn settle(&mut self, pass: &'static str, graph: &mut Graph) -> Result<(), PassError> {
        self.prune(pass, graph);
        graph.reinfer().map_err(|source| PassError::Patch { pass, node: graph.name().clone(), source })
    }
}

/// A pass that went wrong: a bug in a rule, not a fault of the model.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PassError {
    /// A rule's patch did not fit.
    #[error("pass {pass}, node `{node}`: {source}")]
    Patch {
        /// The pass.
        pass: &'static str,
        /// The node that the rule was tried at.
        node: Arc<str>,
        /// What did not fit.
        source: GraphError,
    },
    /// A rule went on rewriting what it had written.
    #[error("pass {pass} does not come to an end: {rewrites} rewrites of {nodes} nodes, the last at `{node}`")]
    Endless {
        /// The pass.
        pass: &'static str,
        /// Rewrites done.
        rewrites: usize,
        /// Nodes that the graph had.
        nodes: usize,
        /// The last node rewritten.
        node: Arc<str>,
    },
    /// No fault: as many rewrites were made as were asked for.
    #[error("stopped, as asked")]
    Stopped,
    /// The graph that passes left does not verify.
    #[error("after {passes}: {source}")]
    Invalid {
        /// Those that have changed it since it was verified.
        passes: String,
        /// Every violation.
        source: VerifyErrors,
    },
    /// A pass changed what the model promises to the outside.
    #[error("pass {pass} changed the interface: {what}")]
    Interface {
        /// The pass.
        pass: &'static str,
        /// What differs.
        what: String,
    },
}

/// A transformation of a graph.
pub trait Pass: Debug + Send + Sync {
    /// Its name: the stem of its file.
    fn name(&self) -> &'static str;

    /// The rules that it is made of, each named as its file: itself, unless it is several.
    fn rules(&self) -> Vec<&'static str> {
        vec![self.name()]
    }

    /// Runs it.
    ///
    /// # Errors
    /// Only for a bug in the pass.
    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError>;
}

/// A local rewrite.
pub trait Rule: Debug + Send + Sync {
    /// Its name: the stem of its file.
    fn name(&self) -> &'static str;

    /// The operators that it starts from.
    fn roots(&self) -> &'static [OpKind];

    /// The rewrite at a node whose operator is one of the roots.
    ///
    /// # Errors
    /// Why there is none.
    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss>;
}

/// Runs rules over a graph until none applies: from the outputs to the inputs, so that a pattern's optional tail is
/// taken in, and at once again on what a patch has added. Rules of one pass are tried in order at each node.
#[derive(Debug)]
pub struct Rules {
    name: &'static str,
    rules: Vec<Box<dyn Rule>>,
}

/// Rewrites of one node of the original graph beyond which a rule is taken to run in circles.
const MAX_REWRITES_PER_NODE: usize = 64;

impl Rules {
    /// A pass of one rule, named as the rule.
    pub fn one(rule: impl Rule + 'static) -> Self {
        Self { name: rule.name(), rules: vec![Box::new(rule)] }
    }

    /// A pass of several rules.
    pub fn several(name: &'static str, rules: Vec<Box<dyn Rule>>) -> Self {
        Self { name, rules }
    }

    /// One walk over the graph. Returns the number of rewrites.
    fn sweep(
        &self,
        graph: &mut Graph,
        symbols: &Symbols,
        context: &mut PassContext<'_>,
        limit: &mut Limit,
    ) -> Result<usize, PassError> {
        let mut rewrites = 0;
        // Ids that a patch removed may have come back as other nodes; those were tried when they were added.
        let mut stale: FxHashSet<NodeId> = FxHashSet::default();
        let roots: Vec<OpKind> = self.rules.iter().flat_map(|rule| rule.roots()).copied().collect();
        for root in graph.live_of(&roots).into_iter().rev() {
            if stale.contains(&root) {
                continue;
            }
            let mut pending = vec![root];
            while let Some(id) = pending.pop() {
                let Some(applied) = self.try_at(graph, id, symbols, context)? else { continue };
                rewrites += 1;
                limit.spend(self.name, graph, id)?;
                stale.extend(applied.removed.iter().chain(&applied.added));
                pending.extend(applied.added);
            }
        }
        Ok(rewrites)
    }

    fn try_at(
        &self,
        graph: &mut Graph,
        id: NodeId,
        symbols: &Symbols,
        context: &mut PassContext<'_>,
    ) -> Result<Option<Applied>, PassError> {
        let read = RuleContext { capabilities: context.capabilities, options: context.options, symbols };
        for rule in &self.rules {
            let Some(kind) = graph.kind(id) else { return Ok(None) };
            if !rule.roots().contains(&kind) {
                continue;
            }
            let remark = match rule.rewrite(graph, id, &read) {
                Err(Miss::NoMatch | Miss::NoEffect) => continue,
                Err(Miss::Blocked { reason, at }) => {
                    // A constant may stand for no node of the model; users know the node that was tried.
                    let at = if graph.origins(at).next().is_some() { at } else { id };
                    remark(graph, rule.name(), at, reason.to_string())
                }
                Err(Miss::AlsoRead { value, within }) => {
                    let by = graph.uses(value).find(|reader| reader.node != within);
                    also_read(graph, rule.name(), id, value.node, by.map(|reader| reader.node))
                }
                Ok(patch) => match context.apply(self.name, graph, &patch)? {
                    Ok(applied) => return Ok(Some(applied)),
                    Err(GraphError::NotClosed { at, by, .. }) => also_read(graph, rule.name(), id, at, by),
                    Err(source) => {
                        let node = graph.node_name(id).into();
                        return Err(PassError::Patch { pass: self.name, node, source });
                    }
                },
            };
            context.remarks.push(remark);
        }
        Ok(None)
    }
}

/// A remark at a node, under the name of its first ONNX node.
pub(crate) fn remark(graph: &Graph, rule: &'static str, at: NodeId, reason: String) -> Remark {
    let op = graph.origins(at).next().map(|source| source.op_type.clone()).unwrap_or_default();
    Remark { rule, node: onnx_name(graph, at), op, condition: reason.clone(), reason }
}

/// The remark that a rule at `root` would take in the node `inner`, whose output something else reads.
fn also_read(graph: &Graph, rule: &'static str, root: NodeId, inner: NodeId, by: Option<NodeId>) -> Remark {
    // The output of a node that stands for several is that of the last.
    let inner = graph.origins(inner).next_back().map_or_else(|| graph.node_name(inner), |source| &source.name);
    let reader = by.map_or_else(|| "an output of the graph".into(), |by| onnx_name(graph, by));
    let reason = format!("output of `{inner}` also read by `{reader}`");
    Remark { condition: ALSO_READ.to_string(), ..remark(graph, rule, root, reason) }
}

struct Limit {
    nodes: usize,
    spent: usize,
}

impl Limit {
    fn spend(&mut self, pass: &'static str, graph: &Graph, at: NodeId) -> Result<(), PassError> {
        self.spent += 1;
        if self.spent <= self.nodes.saturating_mul(MAX_REWRITES_PER_NODE) {
            return Ok(());
        }
        let node = graph.node_name(at).into();
        Err(PassError::Endless { pass, rewrites: self.spent, nodes: self.nodes, node })
    }
}

impl Pass for Rules {
    fn name(&self) -> &'static str {
        self.name
    }

    fn rules(&self) -> Vec<&'static str> {
        self.rules.iter().map(|rule| rule.name()).collect()
    }

    fn run(&self, graph: &mut Graph, context: &mut PassContext<'_>) -> Result<Outcome, PassError> {
        let mut limit = Limit { nodes: graph.node_count().max(1), spent: 0 };
        let symbols = Symbols::of(graph);
        loop {
            // Only what still holds at the end is worth a remark.
            context.remarks.clear();
            if self.sweep(graph, &symbols, context, &mut limit)? == 0 {
                break;
            }
            context.settle(self.name, graph)?;
        }
        Ok(Outcome::of(limit.spent))
    }
}
