//! The ordered list of passes, and the loop that runs it.

use std::sync::Arc;
use std::time::Instant;

use trt_fuse_ir::infer::resolve_axis;
use trt_fuse_ir::op::{Body, WITH_BODIES};
use trt_fuse_ir::{Capabilities, Graph, NodeId, Op, Output, Patch, ValueInfo, ValueRef, verify};

use crate::canonicalize_arithmetic::CanonicalizeArithmetic;
use crate::canonicalize_attributes::CanonicalizeAttributes;
use crate::canonicalize_gather::CanonicalizeGather;
use crate::canonicalize_loop::CanonicalizeLoop;
use crate::canonicalize_padding::CanonicalizePadding;
use crate::canonicalize_reshape::CanonicalizeReshape;
use crate::canonicalize_uniform::CanonicalizeUniform;
use crate::drop_concat_slice::DropConcatSlice;
use crate::drop_concat_split::DropConcatSplit;
use crate::drop_dead::DropDead;
use crate::drop_expand::DropExpand;
use crate::drop_identity::DropIdentity;
use crate::drop_mask::DropMask;
use crate::drop_split_concat::DropSplitConcat;
use crate::fold_comparison::FoldComparison;
use crate::fold_constants::FoldConstants;
use crate::fold_control_flow::FoldControlFlow;
use crate::fuse_activation::FuseActivation;
use crate::fuse_affine::FuseAffine;
use crate::fuse_attention::FuseAttention;
use crate::fuse_conv_bias::FuseConvBias;
use crate::fuse_conv_bn::FuseConvBn;
use crate::fuse_conv_scale::FuseConvScale;
use crate::fuse_gelu::FuseGelu;
use crate::fuse_global_pool::FuseGlobalPool;
use crate::fuse_group_norm::FuseGroupNorm;
use crate::fuse_hard_sigmoid::FuseHardSigmoid;
use crate::fuse_hard_swish::FuseHardSwish;
use crate::fuse_instance_norm::FuseInstanceNorm;
use crate::fuse_layer_norm::FuseLayerNorm;
use crate::fuse_layout::FuseLayout;
use crate::fuse_matmul_bias::FuseMatmulBias;
use crate::fuse_matmul_bn::FuseMatmulBn;
use crate::fuse_matmul_scale::FuseMatmulScale;
use crate::fuse_mish::FuseMish;
use crate::fuse_pad::FusePad;
use crate::fuse_reduce_reshape::FuseReduceReshape;
use crate::fuse_relu_clip::FuseReluClip;
use crate::fuse_residual::FuseResidual;
use crate::fuse_rms_norm::FuseRmsNorm;
use crate::fuse_roll::FuseRoll;
use crate::fuse_rotary_embedding::FuseRotaryEmbedding;
use crate::fuse_sigmoid::FuseSigmoid;
use crate::fuse_softplus::FuseSoftplus;
use crate::fuse_split::FuseSplit;
use crate::fuse_split_concat::FuseSplitConcat;
use crate::fuse_swish::FuseSwish;
use crate::fuse_transpose_matmul::FuseTransposeMatmul;
use crate::lower_arg_reduce::LowerArgReduce;
use crate::lower_arithmetic::LowerArithmetic;
use crate::lower_attention::LowerAttention;
use crate::lower_booleans::LowerBooleans;
use crate::lower_conv_transpose::LowerConvTranspose;
use crate::lower_cumulative::LowerCumulative;
use crate::lower_grid_sample::LowerGridSample;
use crate::lower_indices::LowerIndices;
use crate::lower_normalization::LowerNormalization;
use crate::lower_pool::LowerPool;
use crate::lower_power::LowerPower;
use crate::lower_quantization::LowerQuantization;
use crate::lower_reduce::LowerReduce;
use crate::lower_remainder::LowerRemainder;
use crate::lower_resize::LowerResize;
use crate::lower_reverse_sequence::LowerReverseSequence;
use crate::lower_roll::LowerRoll;
use crate::lower_rotary_embedding::LowerRotaryEmbedding;
use crate::lower_scalars::LowerScalars;
use crate::lower_scatter::LowerScatter;
use crate::lower_shape_input::LowerShapeInput;
use crate::lower_slice_bounds::LowerSliceBounds;
use crate::lower_top_k::LowerTopK;
use crate::lower_triangle::LowerTriangle;
use crate::lower_types::LowerTypes;
use crate::merge_common::MergeCommon;
use crate::merge_concats::MergeConcats;
use crate::merge_convolutions::MergeConvolutions;
use crate::merge_kernels::MergeKernels;
use crate::merge_layouts::MergeLayouts;
use crate::merge_products::MergeProducts;
use crate::merge_reduces::MergeReduces;
use crate::merge_reshapes::MergeReshapes;
use crate::merge_siblings::MergeSiblings;
use crate::merge_slices::MergeSlices;
use crate::pass::{Options, Pass, PassContext, PassError, Remark, Rule, Rules};
use crate::report::{PassReport, Report};
use crate::sink_captures::SinkCaptures;
use crate::sink_expand::SinkExpand;
use crate::sink_layout::SinkLayout;
use crate::sink_negation::SinkNegation;
use crate::sink_parts::SinkParts;
use crate::sink_reshape::SinkReshape;
use crate::split_parts::SplitParts;
use crate::trace::Journal;

/// Rounds after which a pipeline stops even if its passes still find something.
const MAX_ROUNDS: usize = 32;

/// Passes in order.
#[derive(Debug)]
pub struct Pipeline {
    /// Each is run until none of its passes changes anything, and then the next.
    stages: Vec<Vec<Box<dyn Pass>>>,
    capabilities: Capabilities,
    options: Options,
    stop_after: Option<usize>,
    verify_each: bool,
}

/// A name that is no pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no pass is called `{name}`; there are {known}")]
pub struct UnknownPass {
    name: String,
    known: String,
}

impl Pipeline {
    /// The passes that every model goes through, each constraint on their order stated.
    pub fn standard(capabilities: &Capabilities) -> Self {
        Self::of_stages(vec![standard_passes(), last_passes()], capabilities)
    }

    /// The passes between the standard ones and a network: what the target has no layer for becomes what it has. Every
    /// graph goes through them once, whatever passes users have left out.
    pub fn lowering(capabilities: &Capabilities) -> Self {
        Self::of_stages(vec![lowering_passes(), last_passes()], capabilities)
    }

    /// [`lowering`](Self::lowering) for one graph. TensorRT-RTX 1.7.1 crashes while it builds IAttention in a network with an
    /// ILoop whose rounds only run time counts, so that attention is written out beside such a loop, and inside.
    pub fn lowering_of(graph: &Graph, capabilities: &Capabilities) -> Self {
        let attention = capabilities.attention && !has_open_loop(graph);
        Self::lowering(&Capabilities { attention, ..capabilities.clone() })
    }

    /// A pipeline of given passes.
    pub fn new(passes: Vec<Box<dyn Pass>>, capabilities: &Capabilities) -> Self {
        Self::of_stages(vec![passes], capabilities)
    }

    fn of_stages(stages: Vec<Vec<Box<dyn Pass>>>, capabilities: &Capabilities) -> Self {
        Self {
            stages,
            capabilities: capabilities.clone(),
            options: Options::default(),
            stop_after: None,
            verify_each: false,
        }
    }

    fn passes(&self) -> impl Iterator<Item = &dyn Pass> {
        self.stages.iter().flatten().map(AsRef::as_ref)
    }

    /// Names of the passes in order.
    pub fn names(&self) -> Vec<&'static str> {
        self.passes().map(|pass| pass.name()).collect()
    }

    /// Names of the rules and of the passes that are none, in order.
    pub fn rules(&self) -> Vec<&'static str> {
        self.passes().flat_map(|pass| pass.rules()).collect()
    }

    /// With other options.
    #[must_use]
    pub fn with_options(mut self, options: Options) -> Self {
        self.options = options;
        self
    }

    /// Without a pass.
    ///
    /// # Errors
    /// If there is no such pass.
    pub fn without(mut self, name: &str) -> Result<Self, UnknownPass> {
        self.known(name)?;
        self.retain(|pass| pass != name);
        Ok(self)
    }

    /// With only these passes, in the standard order.
    ///
    /// # Errors
    /// If one does not exist.
    pub fn only(mut self, names: &[impl AsRef<str>]) -> Result<Self, UnknownPass> {
        for name in names {
            self.known(name.as_ref())?;
        }
        self.retain(|pass| names.iter().any(|name| name.as_ref() == pass));
        Ok(self)
    }

    /// Stops after `runs` runs of passes, to find the one that a result depends on. Runs that could change nothing are left
    /// out, so that another version may count otherwise.
    #[must_use]
    pub fn stop_after(mut self, runs: usize) -> Self {
        self.stop_after = Some(runs);
        self
    }

    /// Verifies the graph after each pass that changes it too, so that an error names one pass, and not only at the end of
    /// a stage: to verify takes as long as many passes together.
    #[must_use]
    pub fn verify_each(mut self) -> Self {
        self.verify_each = true;
        self
    }

    fn retain(&mut self, keeps: impl Fn(&str) -> bool) {
        for stage in &mut self.stages {
            stage.retain(|pass| keeps(pass.name()));
        }
    }

    fn known(&self, name: &str) -> Result<(), UnknownPass> {
        if self.passes().any(|pass| pass.name() == name) {
            return Ok(());
        }
        Err(UnknownPass { name: name.to_string(), known: self.names().join(", ") })
    }

    /// Runs the passes of each stage in turn until all leave the graph as it is.
    ///
    /// # Errors
    /// A bug in a pass: its patch does not fit, its graph does not verify, or the interface changed.
    pub fn run(&self, graph: Graph) -> Result<(Graph, Report), PassError> {
        self.run_with(graph, Journal::default())
    }

    /// As [`run`](Self::run), with each rewrite written into [`Report::trace`], and no more than `most` of them. A
    /// pipeline makes the same rewrites in the same order every time.
    ///
    /// # Errors
    /// Those of [`run`](Self::run).
    pub fn trace(&self, graph: Graph, most: usize) -> Result<(Graph, Report), PassError> {
        self.run_with(graph, Journal::new(most, true))
    }

    fn run_with(&self, mut graph: Graph, journal: Journal) -> Result<(Graph, Report), PassError> {
        let runs_left = self.stop_after.unwrap_or(usize::MAX);
        let mut run = Run { pipeline: self, runs_left, journal, report: Report::default() };
        run.on(&mut graph)?;
        let Run { journal, mut report, .. } = run;
        report.remarks.sort();
        report.remarks.dedup();
        report.rewrites = journal.made();
        report.trace = journal.into_rewrites();
        Ok((graph, report))
    }
}

/// A run of a pipeline.
struct Run<'p> {
    pipeline: &'p Pipeline,
    runs_left: usize,
    journal: Journal,
    report: Report,
}

impl Run<'_> {
    /// Runs the passes over a graph and the bodies in it. Returns whether the graph is another.
    fn on(&mut self, graph: &mut Graph) -> Result<bool, PassError> {
        let interface = Interface::of(graph);
        let mut bodies = Bodies::default();
        let mut changed = false;
        for stage in &self.pipeline.stages {
            changed |= self.stage(stage, graph, &interface, &mut bodies)?;
        }
        Ok(changed)
    }

    /// Runs the passes of a stage, and checks what they leave. Returns whether the graph is another.
    fn stage(
        &mut self,
        passes: &[Box<dyn Pass>],
        graph: &mut Graph,
        interface: &Interface,
        bodies: &mut Bodies,
    ) -> Result<bool, PassError> {
        let changed = self.rounds(passes, graph, interface, bodies)?;
        if !changed.is_empty() {
            verify(graph).map_err(|source| PassError::Invalid { passes: changed.join(", "), source })?;
        }
        Ok(!changed.is_empty())
    }

    /// Runs passes in turn, and the bodies after the last, until none changes what the others have left. Returns which have
    /// changed something.
    fn rounds(
        &mut self,
        passes: &[Box<dyn Pass>],
        graph: &mut Graph,
        interface: &Interface,
        bodies: &mut Bodies,
    ) -> Result<Vec<&'static str>, PassError> {
        // Each pass's of its last run: the graph that it left unchanged is the one at the end.
        let mut remarks = vec![Vec::new(); passes.len()];
        let mut changed = Vec::new();
        let mut unchanged_runs = 0;
        let mut count = |name, is_changed: bool| {
            unchanged_runs = if is_changed { 0 } else { unchanged_runs + 1 };
            if is_changed && !changed.contains(&name) {
                changed.push(name);
            }
            // The bodies are one more.
            unchanged_runs <= passes.len()
        };
        'rounds: for round in 0..MAX_ROUNDS {
            self.journal.round = round;
            for (pass, remarks) in passes.iter().zip(&mut remarks) {
                if self.is_over() {
                    return Ok(changed);
                }
                self.runs_left -= 1;
                let run = self.pass(pass.as_ref(), graph, interface, remarks)?;
                let goes_on = count(run.name, run.rewrites > 0);
                if run.rewrites > 0 || round == 0 {
                    self.report.passes.push(run);
                }
                if !goes_on && !self.is_over() {
                    break 'rounds;
                }
            }
            if !count(BODIES, bodies.run(self, graph)?) {
                break;
            }
        }
        self.report.remarks.extend(remarks.into_iter().flatten());
        Ok(changed)
    }

    /// Whether as much was done as was asked for.
    fn is_over(&self) -> bool {
        self.runs_left == 0 || self.journal.is_spent()
    }

    /// Runs one pass and checks what it leaves.
    fn pass(
        &mut self,
        pass: &dyn Pass,
        graph: &mut Graph,
        interface: &Interface,
        remarks: &mut Vec<Remark>,
    ) -> Result<PassReport, PassError> {
        let name = pass.name();
        let nodes_before = graph.operation_count();
        let start = Instant::now();
        let made = self.journal.made();
        let mut context = PassContext::new(&self.pipeline.capabilities, &self.pipeline.options);
        context.journal = std::mem::take(&mut self.journal);
        let rewrites = match pass.run(graph, &mut context) {
            Ok(outcome) => outcome.rewrites(),
            Err(PassError::Stopped) => context.journal.made() - made,
            Err(error) => return Err(error),
        };
        if rewrites > 0 {
            context.settle(name, graph)?;
            if self.pipeline.verify_each {
                verify(graph).map_err(|source| PassError::Invalid { passes: name.to_string(), source })?;
            }
            interface.check(name, graph)?;
        }
        self.journal = std::mem::take(&mut context.journal);
        *remarks = context.remarks;
        let nodes_after = graph.operation_count();
        Ok(PassReport { name, rewrites, nodes_before, nodes_after, ms: start.elapsed().as_secs_f64() * 1e3 })
    }
}

/// The bodies of a graph's control flow, each of which is a graph that the passes run over too.
#[derive(Debug, Default)]
struct Bodies {
    /// Those that the passes have seen and left as they are.
    done: Vec<Body>,
}

impl Bodies {
    fn run(&mut self, run: &mut Run<'_>, graph: &mut Graph) -> Result<bool, PassError> {
        let nodes = graph.live_of(&WITH_BODIES);
        let mut changed_ever = false;
        for id in nodes {
            let Some(op) = graph.op(id) else { continue };
            let mut changed = false;
            let mut bodies = op.bodies();
            for body in &mut bodies {
                if self.done.contains(body) {
                    continue;
                }
                let mut inside = Graph::clone(&body.0);
                if run.on(&mut inside)? {
                    *body = Body(inside.into());
                    changed = true;
                }
                self.done.push(body.clone());
            }
            if let (true, Some(op)) = (changed, op.with_bodies(&bodies)) {
                replace(graph, id, op)?;
                changed_ever = true;
            }
        }
        if changed_ever {
            run.journal.prune(BODIES, graph);
            graph.reinfer().map_err(|source| PassError::Patch { pass: BODIES, node: graph.name().clone(), source })?;
        }
        Ok(changed_ever)
    }
}

/// What errors in the replacement of a body are reported as.
const BODIES: &str = "bodies";

/// Puts an operator in place of another with the same inputs and outputs.
fn replace(graph: &mut Graph, id: NodeId, op: Op) -> Result<(), PassError> {
    let outputs = graph.node(id).map_or(0, |node| node.outputs.len());
    let mut patch = Patch::new(BODIES, id);
    let new = patch.add_many(op, &graph.node_inputs(id), outputs);
    for slot in 0..outputs as u32 {
        patch.replace(ValueRef { node: id, slot }, ValueRef { node: new, slot });
    }
    patch.absorb([id]);
    let node = graph.node_name(id).into();
    graph.apply(&patch).map(drop).map_err(|source| PassError::Patch { pass: BODIES, node, source })
}

/// What a model promises to the outside: names, dtypes and shapes of inputs and outputs, in order.
#[derive(Debug)]
struct Interface {
    inputs: Vec<Option<(Arc<str>, ValueInfo)>>,
    outputs: Vec<(Arc<str>, Option<ValueInfo>)>,
}

impl Interface {
    fn of(graph: &Graph) -> Self {
        let input = |id: &NodeId| graph.value((*id).into()).map(|value| (value.name.clone(), value.info.clone()));
        let output = |output: &Output| (output.name.clone(), graph.info(output.value).cloned());
        Self {
            inputs: graph.inputs().iter().map(input).collect(),
            outputs: graph.outputs().iter().map(output).collect(),
        }
    }

    /// A shape may become more precise; nothing else may change.
    fn check(&self, pass: &'static str, graph: &Graph) -> Result<(), PassError> {
        let changed = |what: String| Err(PassError::Interface { pass, what });
        let after = Self::of(graph);
        if self.inputs.len() != after.inputs.len() || self.outputs.len() != after.outputs.len() {
            return changed("another number of inputs or outputs".to_string());
        }
        for (old, new) in self.inputs.iter().zip(&after.inputs) {
            if old != new {
                return changed(format!("input {old:?} became {new:?}"));
            }
        }
        for ((old, old_info), (new, new_info)) in self.outputs.iter().zip(&after.outputs) {
            let fits = matches!((old_info, new_info), (Some(old), Some(new)) if new.is_compatible(old));
            if old != new || !fits {
                return changed(format!("output `{old}` became `{new}`"));
            }
        }
        Ok(())
    }
}

/// Whether a loop, or one in a body, has rounds whose number is not known.
fn has_open_loop(graph: &Graph) -> bool {
    graph.live_of(&WITH_BODIES).into_iter().any(|id| {
        let Some(op) = graph.op(id) else { return false };
        let is_open = match op {
            Op::Loop(op) => {
                let known = |slot| graph.input(id, slot).and_then(|input| graph.info(input)?.known_ints());
                let begins = graph.input(id, 1).is_none() || known(1).is_some();
                known(0).is_none() || !begins || !op.always_continues()
            }
            Op::Scan(op) => (0..op.scan_inputs).any(|at| {
                let axis = op.input_axes.get(at).copied().unwrap_or(0);
                let input = graph.input(id, op.carried.saturating_add(at));
                let shape = input.and_then(|input| graph.info(input)?.shape.as_ref());
                let size = shape.and_then(|shape| shape.get(resolve_axis(axis, shape.len()).ok()?)?.value());
                size.is_none()
            }),
            _ => false,
        };
        is_open || op.bodies().iter().any(|body| has_open_loop(&body.0))
    })
}

/// The standard order. A comment says what a pass must come after; where there is none, any place would do.
fn standard_passes() -> Vec<Box<dyn Pass>> {
    vec![
        // First: what nothing needs must not count as a reader.
        Box::new(DropDead),
        // Before folding: a flag costs nothing, a transposed weight is a copy.
        rule(FuseTransposeMatmul),
        Box::new(FoldConstants),
        // After folding, which makes captures, conditions and trip counts constant.
        rule(SinkCaptures),
        rule(CanonicalizeLoop),
        Box::new(FoldControlFlow),
        rule(FoldComparison),
        rule(DropIdentity),
        rule(CanonicalizeAttributes),
        rule(CanonicalizeGather), // after folding, which makes indices constant
        rule(CanonicalizePadding),
        // After folding, which makes operands constant.
        rule(CanonicalizeArithmetic),
        // After the attributes, which tell the output's shape.
        rule(CanonicalizeReshape),
        // After the attributes too, and before what looks for constant operands.
        rule(CanonicalizeUniform),
        rule(DropExpand),
        rule(SinkExpand), // of what that leaves
        rule(SinkLayout),
        rule(SinkReshape),
        rule(MergeReshapes),
        rule(MergeLayouts),
        rule(DropSplitConcat),
        rule(DropConcatSplit),
        rule(DropConcatSlice),
        rule(MergeSlices),
        rule(MergeConcats),
        rule(FuseSplitConcat), // what these leave
        // After the attributes and the padding, whose numbers it adds up.
        rule(FusePad),
        // Activations written in parts, before anything takes a part into a weight or bias.
        rule(FuseReluClip), // gives the clips that the next two look for
        rule(FuseHardSigmoid),
        rule(FuseHardSwish), // looks for hard sigmoids
        rule(FuseSigmoid),
        rule(FuseSwish), // looks for sigmoids
        rule(FuseSoftplus),
        rule(FuseMish), // looks for softplus
        rule(FuseGelu),
        // Before anything takes a scale, mask or bias into a product.
        rule(FuseRotaryEmbedding),
        rule(SinkNegation), // what is no rotary embedding
        rule(FuseRoll),
        rule(FuseSplit), // of the slices that are left
        rule(FuseAttention),
        rule(DropMask),
        rule(SplitParts), // of an attention that this has found
        rule(SinkParts),  // after it, which gives queries, keys and values one form
        rule(FuseLayerNorm),
        rule(FuseInstanceNorm),
        rule(FuseGroupNorm), // looks for instance norms
        rule(FuseRmsNorm),   // a layer norm has its formula inside
        // Constants into weights and biases, while there is no epilogue in the way.
        rule(FuseConvBn),
        rule(FuseConvScale),
        rule(FuseConvBias),
        rule(FuseMatmulScale),
        rule(FuseMatmulBn),
        rule(FuseMatmulBias),
        rule(FuseAffine), // what no convolution has taken in
        // After the canonicalizations, which make equal what is written in different ways, and after the folding of
        // constants: two equal convolutions with different normalizations, once merged, could take in neither.
        Box::new(MergeCommon),
        // Of products that are equal one is enough, and no wide one.
        rule(MergeSiblings),     // with the biases that these have taken in
        Box::new(MergeProducts), // of what these leave apart
        rule(FuseGlobalPool),
        rule(MergeReduces),
        rule(FuseReduceReshape), // sees the reductions that the last two make
        // Epilogues last, in their order: bias, residual, activation.
        rule(FuseResidual),
        rule(FuseActivation),
        rule(MergeKernels),
        rule(MergeConvolutions), // with the epilogue that each has
    ]
}

/// The rules that lower, tried in any order: none gives what another looks for, unless a comment says so.
fn lowering_passes() -> Vec<Box<dyn Pass>> {
    let rules: Vec<Box<dyn Rule>> = vec![
        Box::new(LowerArgReduce),
        Box::new(LowerArithmetic),
        Box::new(LowerAttention),
        Box::new(LowerBooleans),
        Box::new(LowerConvTranspose),
        Box::new(LowerCumulative),
        Box::new(LowerGridSample),
        Box::new(LowerIndices),
        Box::new(LowerNormalization),
        Box::new(LowerPool),
        Box::new(LowerPower),
        Box::new(LowerQuantization),
        Box::new(LowerReduce),
        Box::new(LowerRemainder),
        Box::new(LowerResize),
        Box::new(LowerReverseSequence),
        Box::new(LowerRoll),
        Box::new(LowerRotaryEmbedding),
        Box::new(LowerScalars),
        Box::new(LowerScatter),
        Box::new(LowerShapeInput),
        Box::new(LowerSliceBounds),
        Box::new(LowerTopK),
        Box::new(LowerTriangle),
    ];
    vec![
        Box::new(Rules::several("lower", rules)),
        // After the rules, which ask for the model's own types.
        rule(LowerTypes),
        // Formulas may begin with arithmetic of constants.
        Box::new(FoldConstants),
    ]
}

/// After all others have come to an end: they do not look into a Shuffle.
fn last_passes() -> Vec<Box<dyn Pass>> {
    vec![rule(FuseLayout)]
}

fn rule(rule: impl Rule + 'static) -> Box<dyn Pass> {
    Box::new(Rules::one(rule))
}
