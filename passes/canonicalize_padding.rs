//! Writes SAME padding as numbers.
//!
//! ```text
//! %y = conv(%x, %w) strides=[2, 2] padding=same_upper      %y = conv(%x, %w) strides=[2, 2] padding=[0, 0, 1, 1]
//! ```
//!
//! Fires on Conv, ConvTranspose and Pool where the padding follows from the sizes: these are numbers, or multiples of
//! the stride as expressions. A ConvTranspose that states its output's shape states padding instead. Rounding up, which
//! SAME padding overrules, is switched off.
//!
//! Refuses when
//! - the padding depends on a size that is not known before, or the axis is empty: SAME padding gives no window then, and
//!   padding in numbers cannot say so;
//! - the stated output is larger than what the convolution gives.
//!
//! Order: before `fuse_pad` and the fusions that look at padding.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::{Conv, ConvTranspose, Pool};
use trt_fuse_ir::{Dim, Graph, Ints, NodeId, Op, OpKind, Padding, Patch, ValueRef};

use crate::{Miss, Rule, RuleContext};

/// Writes SAME padding as numbers.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizePadding;

const UNKNOWN: &str = "the padding depends on a size that is not known before";
const TOO_LARGE: &str = "the stated output is larger than what the convolution gives";

impl Rule for CanonicalizePadding {
    fn name(&self) -> &'static str {
        "canonicalize_padding"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Conv, OpKind::ConvTranspose, OpKind::Pool]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        let op = match &node.op {
            Op::Conv(op) if op.padding.explicit().is_none() => conv(graph, root, op),
            Op::ConvTranspose(op) if op.padding.explicit().is_none() || op.output_shape.is_some() => {
                conv_transpose(graph, root, op)
            }
            Op::Pool(op) if op.padding.explicit().is_none() => pool(graph, root, op),
            _ => return Err(Miss::NoMatch),
        };
        let op = op.map_err(|reason| Miss::Blocked { reason, at: root })?;
        let outputs = node.outputs.len();
        let mut patch = Patch::new(self.name(), root);
        let new = patch.add_many(op, &graph.node_inputs(root), outputs);
        for slot in 0..outputs as u32 {
            patch.replace(ValueRef { node: root, slot }, ValueRef { node: new, slot });
        }
        patch.absorb([root]);
        Ok(patch)
    }
}

fn conv(graph: &Graph, root: NodeId, op: &Conv) -> Result<Op, &'static str> {
    let (sizes, kernel) = (spatial(graph, root, 0)?, spatial(graph, root, 1)?);
    let totals = same_totals(sizes, kernel, &op.strides, &op.dilations)?;
    Ok(Conv { padding: halves(&totals, &op.padding), ..op.clone() }.into())
}

fn pool(graph: &Graph, root: NodeId, op: &Pool) -> Result<Op, &'static str> {
    let kernel: Vec<Dim> = op.kernel.iter().copied().map(Dim::fixed).collect();
    let totals = same_totals(spatial(graph, root, 0)?, &kernel, &op.strides, &op.dilations)?;
    Ok(Pool { padding: halves(&totals, &op.padding), ceil_mode: false, ..op.clone() }.into())
}

fn conv_transpose(graph: &Graph, root: NodeId, op: &ConvTranspose) -> Result<Op, &'static str> {
    let (sizes, kernel) = (spatial(graph, root, 0)?, spatial(graph, root, 1)?);
    let mut totals = Ints::new();
    let windows = sizes.iter().zip(kernel).zip(op.strides.iter().zip(&op.dilations)).zip(&op.output_padding);
    for (axis, (((size, kernel), (stride, dilation)), added)) in windows.enumerate() {
        let stride = Dim::fixed(*stride);
        let full = &(size - &Dim::fixed(1)) * &stride + extent(kernel, *dilation) + Dim::fixed(*added);
        let wanted = match &op.output_shape {
            Some(shape) => Dim::fixed(*shape.get(axis).ok_or(UNKNOWN)?),
            None => size * &stride,
        };
        let total = (full - wanted).value().ok_or(UNKNOWN)?;
        if total < 0 {
            return Err(TOO_LARGE);
        }
        totals.push(total);
    }
    Ok(ConvTranspose { padding: halves(&totals, &op.padding), output_shape: None, ..op.clone() }.into())
}

/// The sizes of an input's spatial axes.
fn spatial(graph: &Graph, root: NodeId, slot: usize) -> Result<&[Dim], &'static str> {
    let shape = graph.input(root, slot).and_then(|value| graph.info(value)?.shape.as_ref());
    shape.and_then(|shape| shape.get(2..)).ok_or(UNKNOWN)
}

/// Elements from a window's first to its last.
fn extent(kernel: &Dim, dilation: i64) -> Dim {
    &(kernel - &Dim::fixed(1)) * &Dim::fixed(dilation) + Dim::fixed(1)
}

/// Padding of each axis so that there are `ceil(size / stride)` windows.
fn same_totals(sizes: &[Dim], kernel: &[Dim], strides: &[i64], dilations: &[i64]) -> Result<Ints, &'static str> {
    let windows = sizes.iter().zip(kernel).zip(strides.iter().zip(dilations));
    let total = |((size, kernel), (stride, dilation)): ((&Dim, &Dim), (&i64, &i64))| {
        let stride = Dim::fixed(*stride);
        let count = Some(size).filter(|size| !size.is(0))?.ceil_div(&stride)?;
        let covered = &(&count - &Dim::fixed(1)) * &stride + extent(kernel, *dilation);
        Some((&covered - size).value()?.max(0))
    };
    windows.map(total).collect::<Option<Ints>>().ok_or(UNKNOWN)
}

/// Totals split in two; an odd element goes to the end for SAME_UPPER, to the beginning otherwise.
fn halves(totals: &[i64], padding: &Padding) -> Padding {
    let smaller = totals.iter().map(|total| total / 2);
    let larger = totals.iter().map(|total| total - total / 2);
    Padding::Explicit(match padding {
        Padding::SameUpper => smaller.chain(larger).collect(),
        Padding::SameLower | Padding::Explicit(_) => larger.chain(smaller).collect(),
    })
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::{Op, Padding};

    use super::CanonicalizePadding;
    use crate::testing::{Run, run_rule};

    /// The padding that one operator is left with.
    fn padding(run: &Run) -> Vec<i64> {
        let paddings = run.after.node_ids().filter_map(|id| match run.after.op(id)? {
            Op::Conv(op) => Some(op.padding.clone()),
            Op::ConvTranspose(op) => Some(op.padding.clone()),
            Op::Pool(op) => Some(op.padding.clone()),
            _ => None,
        });
        match paddings.last() {
            Some(Padding::Explicit(pads)) => pads.to_vec(),
            other => panic!("{other:?}"),
        }
    }

    fn conv(shape: &str, padding: &str, stride: i64, kernel: i64) -> String {
        format!(
            "graph g(%x: f32[{shape}], %w: f32[2, 3, {kernel}, {kernel}]) -> (%y) {{
              %y = conv(%x, %w) strides=[{stride}, {stride}] dilations=[1, 1] groups=1 padding={padding}
            }}"
        )
    }

    #[test]
    fn fixed_sizes() {
        // ceil(5 / 2) = 3 windows reach over 2 * 2 + 3 = 7 elements; ceil(8 / 2) = 4 over 9.
        let run = run_rule(CanonicalizePadding, &conv("n, 3, 5, 8", "same_upper", 2, 3));
        insta::assert_snapshot!(run.equal_within(0.0, 2).after, @"
        graph g(%x: f32[n, 3, 5, 8], %w: f32[2, 3, 3, 3]) -> (%y) {
          %y = conv(%x, %w) strides=[2, 2] dilations=[1, 1] padding=[1, 0, 1, 1] groups=1 : f32[n, 2, 3, 4]
        }
        ");
        let run = run_rule(CanonicalizePadding, &conv("n, 3, 5, 8", "same_lower", 2, 3));
        assert_eq!(padding(&run), [1, 1, 1, 0]);
        run.equal_within(0.0, 2);
    }

    #[test]
    fn nothing_stays_nothing() {
        let run = run_rule(CanonicalizePadding, &conv("1, 3, w, 4", "same_upper", 1, 3));
        assert_eq!(padding(&run), [1, 1, 1, 1]);
        run.equal_within(0.0, 0);
    }

    #[test]
    fn symbolic_sizes_at_stride_one() {
        let run = run_rule(CanonicalizePadding, &conv("1, 3, h, w", "same_upper", 1, 4));
        assert_eq!(padding(&run), [1, 1, 2, 2]);
        run.equal_within(0.0, 5);
    }

    #[test]
    fn a_window_smaller_than_its_step_needs_none() {
        let run = run_rule(CanonicalizePadding, &conv("n, 3, 7, 7", "same_upper", 3, 1));
        assert_eq!(padding(&run), [0, 0, 0, 0]);
        run.equal_within(0.0, 2);
    }

    #[test]
    fn pooling_no_longer_rounds_up() {
        for kind in ["max", "average", "average_include_pad"] {
            let text = format!(
                "graph g(%x: f32[n, 3, 5, 8]) -> (%y) {{
                  %y = pool(%x) kind={kind} kernel=[3, 2] strides=[2, 3] dilations=[1, 1] padding=same_lower ceil_mode=true
                }}"
            );
            let run = run_rule(CanonicalizePadding, &text);
            assert_eq!(padding(&run), [1, 0, 1, 0]);
            assert!(!run.after.to_string().contains("ceil_mode"));
            run.equal_within(0.0, 2);
        }
    }

    fn transposed(rest: &str) -> String {
        format!(
            "graph g(%x: f32[n, 3, 4, 4], %w: f32[3, 2, 3, 3]) -> (%y) {{
              %y = conv_transpose(%x, %w) strides=[2, 2] dilations=[1, 1] output_padding=[0, 0] groups=1 {rest}
            }}"
        )
    }

    #[test]
    fn a_transposed_convolution() {
        // (4 - 1) * 2 + 3 = 9 elements, 8 wanted.
        let run = run_rule(CanonicalizePadding, &transposed("padding=same_upper"));
        assert_eq!(padding(&run), [0, 0, 1, 1]);
        run.equal_within(0.0, 2);
        let run = run_rule(CanonicalizePadding, &transposed("output_shape=[6, 9]"));
        assert_eq!(padding(&run), [2, 0, 1, 0]);
        run.equal_within(0.0, 2);
    }

    #[test]
    fn refuses_a_size_that_is_not_known() {
        let reason = "the padding depends on a size that is not known before";
        let run = run_rule(CanonicalizePadding, &conv("1, 3, h, w", "same_upper", 2, 3));
        assert_eq!(run.reasons(), [reason]);
        let run = run_rule(CanonicalizePadding, &conv("n, 3, 0, 5", "same_upper", 1, 1));
        assert_eq!(run.reasons(), [reason]);
        let pool = "graph g(%x: f32[1, 3, w]) -> (%y) {
            %y = pool(%x) kind=max kernel=[3] strides=[2] dilations=[1] padding=same_lower }";
        assert_eq!(run_rule(CanonicalizePadding, pool).reasons(), [reason]);
        let stated = transposed("output_shape=[6, 9]").replace("4, 4]", "h, 4]");
        assert_eq!(run_rule(CanonicalizePadding, &stated).reasons(), [reason]);
    }

    #[test]
    fn explicit_padding_stays() {
        for text in [conv("n, 3, 5, 8", "[1, 0, 1, 1]", 2, 3), transposed("padding=[0, 0, 1, 1]")] {
            let run = run_rule(CanonicalizePadding, &text);
            assert_eq!((run.rewrites, run.reasons()), (0, vec![]), "{text}");
        }
    }

    #[test]
    fn refuses_an_output_that_is_too_large() {
        let reason = "the stated output is larger than what the convolution gives";
        assert_eq!(run_rule(CanonicalizePadding, &transposed("output_shape=[10, 9]")).reasons(), [reason]);
    }
}
