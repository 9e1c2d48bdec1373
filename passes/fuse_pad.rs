//! Fuses a Pad into the convolution or pooling that reads it.
//!
//! ```text
//! %p = pad(%x) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]      %y = conv(%x, %w) padding=[1, 1, 1, 1]
//! %y = conv(%p, %w)
//! ```
//!
//! Fires when the Pad adds constant elements to spatial axes only, its pads are parameters, and the reader's padding is
//! explicit. The element must be what the reader takes padding for: 0 for a convolution, an average or an Lp pool,
//! minus infinity for a maximum. Each reader takes the Pad in; it dies when nothing reads it any more.
//!
//! An average counts the Pad's elements, so it becomes one that includes its padding.
//!
//! Refuses when
//! - the Pad mirrors or repeats the data;
//! - the Pad takes elements away;
//! - the Pad reaches beyond the spatial axes;
//! - the Pad's value is not what the reader pads with;
//! - the reader's padding is not explicit;
//! - the average leaves out padding of its own: one divisor cannot count both;
//! - the pooling rounds its size up: which of the last window's elements an average counts would change;
//! - the padding would be as wide as the window;
//! - the indices of the maxima are read: they count padded elements.
//!
//! Order: after `canonicalize_attributes` and `canonicalize_padding`.
//!
//! Numerics: bit-exact up to the order of additions.

use trt_fuse_ir::op::{Conv, Pad, PadMode, Pool, PoolKind};
use trt_fuse_ir::{Graph, Ints, NodeId, Op, OpKind, Padding, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Fuses a Pad into the convolution or pooling that reads it.
#[derive(Debug, Default)]
pub(crate) struct FusePad;

impl Rule for FusePad {
    fn name(&self) -> &'static str {
        "fuse_pad"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Conv, OpKind::Pool]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let mut inputs = graph.node_inputs(root);
        let padded = inputs.first().copied().flatten().ok_or(Miss::NoMatch)?;
        let Some(Op::Pad(pad)) = graph.op(padded.node) else { return Err(Miss::NoMatch) };
        let Some(pads) = &pad.pads else { return Err(Miss::NoMatch) };
        let blocked = |reason| Miss::Blocked { reason, at: padded.node };
        let added = spatial_pads(pad, pads).map_err(blocked)?;
        let fill = fill(graph, padded.node);
        let op = match &node.op {
            Op::Conv(op) => padded_conv(op, &added, fill),
            Op::Pool(op) => padded_pool(op, &added, fill, node.outputs.len()),
            _ => return Err(Miss::NoMatch),
        };
        let op = op.map_err(blocked)?;
        if let Some(data) = inputs.first_mut() {
            *data = graph.input(padded.node, 0);
        }
        let mut patch = Patch::new(self.name(), root);
        let fused: ValueRef = patch.add(op, &inputs);
        patch.replace(root.into(), fused).absorb([root]);
        if graph.sole_consumer(padded).is_some() {
            patch.absorb([padded.node]);
        } else {
            patch.inherit([padded.node]);
        }
        Ok(patch)
    }
}

/// Pads of the spatial axes: before each, then after each.
fn spatial_pads(pad: &Pad, pads: &Ints) -> Result<Ints, &'static str> {
    if pad.mode != PadMode::Constant {
        return Err("the Pad mirrors or repeats the data");
    }
    if pads.iter().any(|pad| *pad < 0) {
        return Err("the Pad takes elements away");
    }
    let (before, after) = pads.split_at(pads.len() / 2);
    match (before, after) {
        ([0, 0, before @ ..], [0, 0, after @ ..]) => Ok([before, after].concat().into()),
        _ => Err("the Pad reaches beyond the spatial axes"),
    }
}

/// The Pad's element, if it is a constant.
fn fill(graph: &Graph, pad: NodeId) -> Option<f64> {
    match graph.input(pad, 2) {
        None => Some(0.0),
        Some(value) => graph.info(value)?.as_constant()?.uniform_f64(),
    }
}

const OTHER_FILL: &str = "the Pad's value is not what the reader pads with";

fn padded_conv(op: &Conv, added: &Ints, fill: Option<f64>) -> Result<Op, &'static str> {
    if fill != Some(0.0) {
        return Err(OTHER_FILL);
    }
    Ok(Conv { padding: sum(&op.padding, added)?, ..op.clone() }.into())
}

fn padded_pool(op: &Pool, added: &Ints, fill: Option<f64>, outputs: usize) -> Result<Op, &'static str> {
    let expected = if op.kind == PoolKind::Max { f64::NEG_INFINITY } else { 0.0 };
    if fill != Some(expected) {
        return Err(OTHER_FILL);
    }
    if outputs > 1 {
        return Err("the indices of the maxima are read");
    }
    if op.ceil_mode {
        return Err("the pooling rounds its size up");
    }
    let padding = sum(&op.padding, added)?;
    let (before, after) = padding.explicit().unwrap_or_default();
    let too_wide = |pads: &[i64]| pads.iter().zip(&op.kernel).any(|(pad, kernel)| pad >= kernel);
    if too_wide(before) || too_wide(after) {
        return Err("the padding would be as wide as the window");
    }
    let kind = match op.kind {
        PoolKind::Average if op.padding != Padding::none(op.kernel.len()) => {
            return Err("the average leaves out padding of its own");
        }
        PoolKind::Average => PoolKind::AverageIncludePad,
        kind => kind,
    };
    Ok(Pool { kind, padding, ..op.clone() }.into())
}

fn sum(padding: &Padding, added: &Ints) -> Result<Padding, &'static str> {
    match padding {
        Padding::Explicit(pads) if pads.len() == added.len() => {
            Ok(Padding::Explicit(pads.iter().zip(added).map(|(a, b)| a.saturating_add(*b)).collect()))
        }
        _ => Err("the reader's padding is not explicit"),
    }
}

#[cfg(test)]
mod tests {
    use insta::assert_snapshot;

    use super::FusePad;
    use crate::testing::{Run, run_rule};

    const CONV: &str = "%y = conv(%p, %w) strides=[1, 1] dilations=[1, 1] groups=1";
    const POOL: &str = "%y = pool(%p) kernel=[3, 3] strides=[2, 2] dilations=[1, 1]";
    const ONES: &str = "%p = pad(%x) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]";

    fn run(lines: &[&str]) -> Run {
        let lines = lines.join("\n");
        let text = format!("graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y) {{ {lines} }}");
        run_rule(FusePad, &text)
    }

    #[track_caller]
    fn refused(lines: &[&str], reason: &str) {
        assert_eq!(run(lines).reasons(), [reason]);
    }

    #[test]
    fn a_convolution_takes_it_in() {
        let run =
            run(&["%p = pad(%x) mode=constant pads=[0, 0, 1, 0, 0, 0, 2, 3]", &format!("{CONV} padding=[1, 1, 0, 0]")]);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y) {
          %y = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[2, 1, 2, 3] groups=1 : f32[n, 3, 8, 8]
        }
        ");
        run.equal_within(1e-6, 2);
    }

    #[test]
    fn each_of_several_readers_takes_it_in() {
        // A Pad that two convolutions read was lost by a peer (OnnxSlim issue 29).
        let text = "
            graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3], %v: f32[3, 2, 5, 5]) -> (%a, %b) {
              %p = pad(%x) mode=constant pads=[0, 0, 2, 2, 0, 0, 2, 2]
              %a = conv(%p, %w) strides=[1, 1] dilations=[1, 1] groups=1
              %b = conv(%p, %v) strides=[1, 1] dilations=[1, 1] groups=1
            }";
        let run = run_rule(FusePad, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3], %v: f32[3, 2, 5, 5]) -> (%a, %b) {
          %a = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[2, 2, 2, 2] groups=1 : f32[n, 3, 8, 8]
          %b = conv(%x, %v) strides=[1, 1] dilations=[1, 1] padding=[2, 2, 2, 2] groups=1 : f32[n, 3, 6, 6]
        }
        ");
        run.equal_within(1e-6, 2);
    }

    #[test]
    fn another_reader_keeps_the_pad() {
        let text = "
            graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y, %p) {
              %p = pad(%x) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]
              %y = conv(%p, %w) strides=[1, 1] dilations=[1, 1] groups=1
            }";
        let run = run_rule(FusePad, text);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y, %p) {
          %y = conv(%x, %w) strides=[1, 1] dilations=[1, 1] padding=[1, 1, 1, 1] groups=1 : f32[n, 3, 6, 6]
          %p = pad(%x) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1] : f32[n, 2, 8, 8]
        }
        ");
        run.equal_within(1e-6, 2);
    }

    #[test]
    fn an_average_then_includes_its_padding() {
        let run = run(&[ONES, &format!("{POOL} kind=average")]);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y) {
          %y = pool(%x) kind=average_include_pad kernel=[3, 3] strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1] : f32[n, 2, 3, 3]
        }
        ");
        run.equal_within(1e-6, 2);
    }

    #[test]
    fn an_average_that_includes_its_padding_adds_it_up() {
        let run = run(&[ONES, &format!("{POOL} kind=average_include_pad padding=[1, 0, 0, 1]")]);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y) {
          %y = pool(%x) kind=average_include_pad kernel=[3, 3] strides=[2, 2] dilations=[1, 1] padding=[2, 1, 1, 2] : f32[n, 2, 4, 4]
        }
        ");
        run.equal_within(1e-6, 2);
    }

    #[test]
    fn a_maximum_over_minus_infinity() {
        let pad = "%p = pad(%x, _, %low) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]";
        let run = run(&["%low = constant() value=f32[] {-inf}", pad, &format!("{POOL} kind=max")]);
        assert_snapshot!(run.after, @r"
        graph g(%x: f32[n, 2, 6, 6], %w: f32[3, 2, 3, 3]) -> (%y) {
          %y = pool(%x) kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1] padding=[1, 1, 1, 1] : f32[n, 2, 3, 3]
        }
        ");
        run.equal_within(0.0, 2);
    }

    #[test]
    fn refuses_what_is_no_constant_padding_of_spatial_axes() {
        let pad = |mode: &str, pads: &str| format!("%p = pad(%x) mode={mode} pads={pads}");
        for mode in ["reflect", "edge", "wrap"] {
            refused(&[&pad(mode, "[0, 0, 1, 1, 0, 0, 1, 1]"), CONV], "the Pad mirrors or repeats the data");
        }
        refused(&[&pad("constant", "[0, 0, 1, -1, 0, 0, 1, 1]"), CONV], "the Pad takes elements away");
        refused(&[&pad("constant", "[1, 0, 1, 1, 0, 0, 1, 1]"), CONV], "the Pad reaches beyond the spatial axes");
    }

    #[test]
    fn refuses_another_value() {
        let reason = "the Pad's value is not what the reader pads with";
        let pad = "%p = pad(%x, _, %c) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]";
        refused(&["%c = constant() value=f32[] {0.5}", pad, CONV], reason);
        refused(&["%i = size(%w) %c = cast(%i) to=f32", pad, CONV], reason);
        refused(&[ONES, &format!("{POOL} kind=max")], reason);
    }

    #[test]
    fn refuses_padding_that_is_not_explicit() {
        refused(&[ONES, &format!("{CONV} padding=same_upper")], "the reader's padding is not explicit");
    }

    #[test]
    fn refuses_an_average_with_padding_of_its_own() {
        let pool = format!("{POOL} kind=average padding=[1, 1, 1, 1]");
        refused(&[ONES, &pool], "the average leaves out padding of its own");
    }

    #[test]
    fn refuses_rounding_up() {
        refused(&[ONES, &format!("{POOL} kind=average ceil_mode=true")], "the pooling rounds its size up");
    }

    #[test]
    fn refuses_padding_as_wide_as_the_window() {
        for pads in ["[0, 0, 3, 1, 0, 0, 1, 1]", "[0, 0, 1, 1, 0, 0, 1, 3]"] {
            let pad = format!("%p = pad(%x) mode=constant pads={pads}");
            refused(&[&pad, &format!("{POOL} kind=average")], "the padding would be as wide as the window");
        }
    }

    #[test]
    fn refuses_indices_of_padded_elements() {
        let text = "
            graph g(%x: f32[n, 2, 6, 6]) -> (%y, %i) {
              %low = constant() value=f32[] {-inf}
              %p = pad(%x, _, %low) mode=constant pads=[0, 0, 1, 1, 0, 0, 1, 1]
              %y, %i = pool(%p) kind=max kernel=[3, 3] strides=[2, 2] dilations=[1, 1]
            }";
        assert_eq!(run_rule(FusePad, text).reasons(), ["the indices of the maxima are read"]);
    }
}
