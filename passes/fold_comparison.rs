//! Folds a comparison of counted places whose truth no size changes.
//!
//! ```text
//! %p = range(0, %n, 1) : i64[n]                 %true = constant() value=bool[] {1}
//! %y = greater_or_equal(%p, 0) : bool[n]        %y = expand(%true) shape=[n] : bool[n]
//! ```
//!
//! Fires on a comparison of two i64 values that grow by fixed steps along each axis ([`Progression`]), if it holds for every
//! element or for none. Exporters compare places with the bounds of a mask that masks nothing.
//!
//! Refuses nothing; what some elements hold for, or what is not known, is no match.
//!
//! Order: after `fold_constants`, before `drop_identity`, which drops what the truth makes neutral.
//!
//! Numerics: bit-exact.

use trt_fuse_ir::op::{BinaryOp, Expand};
use trt_fuse_ir::{Graph, NodeId, Op, OpKind, Patch, Tensor};

use crate::progression::Progression;
use crate::{Miss, Rule, RuleContext};

/// Folds a comparison of counted places whose truth no size changes.
#[derive(Debug, Default)]
pub(crate) struct FoldComparison;

impl Rule for FoldComparison {
    fn name(&self) -> &'static str {
        "fold_comparison"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Binary]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, context: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Binary(op)) = graph.op(root).filter(|op| matches!(op, Op::Binary(op) if op.is_comparison()))
        else {
            return Err(Miss::NoMatch);
        };
        let truth = truth(graph, root, *op).ok_or(Miss::NoMatch)?;
        let shape = graph.info(root.into()).and_then(|info| info.shape.clone());
        let shape = shape.filter(|shape| context.symbols.tell(shape)).ok_or(Miss::NoMatch)?;
        let mut patch = Patch::new(self.name(), root);
        let truth = patch.constant(Tensor::scalar(truth));
        let y = patch.add(Expand { shape: Some(shape) }, &[Some(truth)]);
        patch.replace(root.into(), y).absorb([root]);
        Ok(patch)
    }
}

/// What a comparison comes to for every element.
fn truth(graph: &Graph, root: NodeId, op: BinaryOp) -> Option<bool> {
    let shape = graph.info(root.into())?.shape.as_ref()?;
    let (a, b) = (graph.input(root, 0)?, graph.input(root, 1)?);
    let difference = Progression::of(graph, a)?.minus(Progression::of(graph, b)?, shape)?;
    let (at_least, at_most) = (|bound| difference.at_least(bound), |bound| difference.at_most(bound));
    let (holds, fails) = match op {
        BinaryOp::Greater => (at_least(1), at_most(0)),
        BinaryOp::GreaterOrEqual => (at_least(0), at_most(-1)),
        BinaryOp::Less => (at_most(-1), at_least(0)),
        BinaryOp::LessOrEqual => (at_most(0), at_least(1)),
        BinaryOp::Equal => (at_least(0) && at_most(0), at_least(1) || at_most(-1)),
        _ => return None,
    };
    (holds || fails).then_some(holds)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Run, run_rule};

    /// On places that count up from 0, and those of another axis behind the past.
    fn run(line: &str) -> Run {
        let text = format!(
            "graph g(%x: f32[n, m]) -> (%y) {{
               %s = shape(%x) start=0 %0 = constant() value=i64[] {{0}} %1 = constant() value=i64[] {{1}} %2 = constant() value=i64[] {{2}}
               %down = constant() value=i64[] {{-1}}
               %n = gather(%s, %0) axis=0 %m = gather(%s, %1) axis=0
               %p = range(%0, %n, %1) %q = range(%0, %m, %1) %back = sub(%0, %q) %column = unsqueeze(%p) axes=[1]
               {line} }}"
        );
        run_rule(FoldComparison, &text)
    }

    #[test]
    fn fires_on_places_that_are_not_negative() {
        let run = run("%y = greater_or_equal(%column, %0)");
        insta::assert_snapshot!(run.equal_within(0.0, 3).after, @r"
        graph g(%x: f32[n, m]) -> (%y) {
          %y.fold_comparison = constant() value=bool[] {1}
          %y = expand(%y.fold_comparison) shape=[n, 1] : bool[n, 1]
        }
        ");
    }

    #[test]
    fn fires_on_what_holds_for_every_element_or_none() {
        for (line, holds) in [
            ("%y = less(%p, %n)", 1),
            ("%y = greater(%n, %column)", 1),
            ("%y = less_or_equal(%n, %p)", 0),
            ("%y = less(%p, %0)", 0),
            ("%y = greater(%p, %down)", 1),
            ("%y = less_or_equal(%p, %down)", 0),
            ("%y = equal(%p, %down)", 0),
            ("%y = equal(%p, %p)", 1),
            ("%y = equal(%n, %p)", 0),
            ("%y = less_or_equal(%back, %q)", 1),
            ("%d = add(%column, %q) %y = less(%d, %0)", 0),
            ("%d = sub(%back, %column) %y = less_or_equal(%d, %0)", 1),
            ("%d = sub(%back, %column) %y = greater(%d, %0)", 0),
        ] {
            let run = run(line);
            assert_eq!(run.equal_within(0.0, 3).rewrites, 1, "{line}");
            assert!(run.after.to_string().contains(&format!("value=bool[] {{{holds}}}")), "{line}\n{}", run.after);
        }
    }

    #[test]
    fn what_some_elements_hold_for_stays() {
        for line in [
            "%y = greater(%p, %0)",
            "%y = greater(%p, %1)",
            "%y = less(%p, %m)",
            "%y = less_or_equal(%column, %q)",
            "%y = less(%column, %2)",
            "%y = equal(%p, %0)",
            "%d = sub(%q, %column) %y = less_or_equal(%d, %0)",
            "%d = mul(%n, %p) %y = greater(%d, %p)",
            "%most = constant() value=i64[] {9223372036854775807} %d = add(%p, %most) %y = greater_or_equal(%d, %0)",
        ] {
            assert_eq!(run(line).rewrites, 0, "{line}");
        }
    }

    #[test]
    fn what_is_no_comparison_of_places_stays() {
        for line in [
            "%y = add(%p, %0)",
            "%c = cast(%p) to=i32 %z = constant() value=i32[] {0} %y = less(%c, %z)",
            "%y = less(%x, %x)",
        ] {
            assert_eq!(run(line).rewrites, 0, "{line}");
        }
    }
}
