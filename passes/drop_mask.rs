//! Drops the mask of an attention that hides nothing.
//!
//! ```text
//! %0 = constant() value=f32[] {0}
//! %m = expand(%0) shape=[n, 1, 1, k] : f32[n, 1, 1, k]
//! %y = attention(%q, %key, %v, %m)                        %y = attention(%q, %key, %v)
//! ```
//!
//! Fires where every element of the mask is zero, or true, as a constant or an expansion of one. An attention mask that is
//! fixed to 1 becomes this, and kernels for attention without a mask need not read one.
//!
//! Refuses nothing: a mask gives the output no dimension.
//!
//! Order: none. `canonicalize_uniform` and `sink_expand` bring an expansion here.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::{DType, Graph, NodeId, OpKind, Patch, ValueRef};

use crate::pattern::expanded;
use crate::{Miss, Rule, RuleContext};

/// Drops the mask of an attention that hides nothing.
#[derive(Debug, Default)]
pub(crate) struct DropMask;

impl Rule for DropMask {
    fn name(&self) -> &'static str {
        "drop_mask"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Attention]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let mut inputs = graph.node_inputs(root);
        let mask = inputs.get(MASK).copied().flatten().ok_or(Miss::NoMatch)?;
        if !hides_nothing(graph, mask) {
            return Err(Miss::NoMatch);
        }
        let node = graph.node(root).ok_or(Miss::NoMatch)?;
        inputs.truncate(MASK);
        let mut patch = Patch::new(self.name(), root);
        let outputs = patch.add_many(node.op.clone(), &inputs, node.outputs.len());
        for slot in 0..node.outputs.len() as u32 {
            patch.replace(ValueRef { node: root, slot }, ValueRef { node: outputs, slot });
        }
        patch.absorb([root]);
        Ok(patch)
    }
}

/// The input of attention that masks.
const MASK: usize = 3;

/// Whether a mask is zero, or true, everywhere.
fn hides_nothing(graph: &Graph, mask: ValueRef) -> bool {
    let constant = graph.constant(expanded(graph, mask).unwrap_or(mask));
    let neutral = if graph.dtype(mask) == DType::Bool { 1.0 } else { 0.0 };
    constant.and_then(|constant| constant.uniform_f64()) == Some(neutral)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    /// Attention masked by `%m`, which `lines` define.
    fn run(lines: &str) -> Run {
        let inputs = "%q: f32[n, 2, 3, 4], %k: f32[n, 2, s, 4], %v: f32[n, 2, s, 5], %x: f32[1, s]";
        let y = "%y = attention(%q, %k, %v, %m) scale=0.5 causal=none scores=product";
        run_rule(DropMask, &format!("graph g({inputs}) -> (%y) {{ {lines} {y} }}"))
    }

    #[test]
    fn fires_on_an_expansion_of_zero() {
        let run = run("%zero = constant() value=f32[] {0} %m = expand(%zero) shape=[n, 1, 1, s]");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @"
        graph g(%q: f32[n, 2, 3, 4], %k: f32[n, 2, s, 4], %v: f32[n, 2, s, 5], %x: f32[1, s]) -> (%y) {
          %y = attention(%q, %k, %v) scale=0.5 causal=none scores=product : f32[n, 2, 3, 5]
        }
        ");
    }

    #[test]
    fn fires_on_constants_and_on_booleans() {
        for lines in [
            "%m = constant() value=f32[1, 1] {0}",
            "%m = constant() value=bool[1, 1] {1}",
            "%true = constant() value=bool[1] {1} %m = expand(%true) shape=[3, s]",
        ] {
            assert_eq!(run(lines).equal_within(0.0, 3).rewrites, 1, "{lines}");
        }
    }

    #[test]
    fn leaves_masks_that_hide_something_alone() {
        for lines in [
            "%m = constant() value=f32[1, 1] {1}",
            "%m = constant() value=bool[1, 1] {0}",
            "%m = constant() value=f32[3, 1] {0, 0, -1}",
            "%m = relu(%x)",
            "%m = expand(%x) shape=[3, s]",
        ] {
            assert_eq!(run(lines).rewrites, 0, "{lines}");
        }
    }
}
