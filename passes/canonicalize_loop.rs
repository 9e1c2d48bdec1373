//! Finds the trip count of loops that a comparison of a counter ends.
//!
//! ```text
//! %go = less(%first, %limit)
//! %last, %ys = loop(_, %go, %first, %limit) carried=2 body="graph b(%r: i64[], %c: bool[], %i: i32[], %n: i32[]) ->
//!     (%more as .., %next as .., %n as .., %y as ..) { %next = add(%i, 1) %more = less(%next, %n) .. }"
//! ```
//! becomes
//! ```text
//! %1 = max(%limit, 0)                                        where %first is 0
//! %last, %ys = loop(%1, _, %first, %limit) carried=2 body="graph b(..) -> (%c as .., %next as .., %n as .., %y as ..) .."
//! ```
//!
//! tf2onnx writes every loop of TensorFlow so. With a trip count the length of scan outputs is known before the loop, which
//! TensorRT asks for, and a loop of few rounds is unrolled.
//!
//! Fires on a body whose condition is `less(counter + step, limit)`, or several of them joined by `and`. The counter is the
//! number of the round, or a carried value of i32 or i64 that becomes the sum and is first a constant of at least 0; the
//! step a positive constant; the limit a constant, or a capture or a carried value that stays as it is, of i32 or i64. The
//! loop begins in any case, or where the same holds of the first values. Conversions to wider types, and to floats, change
//! nothing.
//!
//! Refuses when
//! - something in the condition is none of that;
//! - the body's condition is also read by something else;
//! - whether the loop begins is another question than whether it goes on.
//!
//! Order: after `sink_captures`, which makes limits constant; before `fold_control_flow`.
//!
//! Numerics: bit-exact, for counters that do not wrap around and that the type of the comparison tells apart (below 2^24 in
//! f32). A limit beyond i32 counts as i32's largest number: nothing has so many rounds.

use std::sync::Arc;

use trt_fuse_ir::op::{BinaryOp, Body, Loop, UnaryOp};
use trt_fuse_ir::{DType, Graph, NodeId, Op, OpKind, Patch, Tensor, ValueRef};

use crate::formula::Formula;
use crate::pass::{Miss, Rule, RuleContext};

const OTHER: &str = "its condition is no comparison of a counter with a limit";
const ALSO_READ: &str = "its condition is also read inside";
const BEGINNING: &str = "whether it begins is another question than whether it goes on";

/// Body inputs that are no carried values: the number of the round and the condition.
const OWN: usize = 2;
/// More than a loop has rounds.
const MOST: i64 = i32::MAX as i64;

/// The rule.
#[derive(Debug, Default)]
pub(crate) struct CanonicalizeLoop;

impl Rule for CanonicalizeLoop {
    fn name(&self) -> &'static str {
        "canonicalize_loop"
    }

    fn roots(&self) -> &'static [OpKind] {
        &[OpKind::Loop]
    }

    fn rewrite(&self, graph: &Graph, root: NodeId, _: &RuleContext<'_>) -> Result<Patch, Miss> {
        let Some(Op::Loop(op)) = graph.op(root) else { return Err(Miss::NoMatch) };
        if op.always_continues() {
            return Err(Miss::NoMatch);
        }
        let blocked = |reason| Miss::Blocked { reason, at: root };
        let body = &*op.body.0;
        let condition = body.outputs().first().ok_or(Miss::NoMatch)?.value;
        let compared = comparisons(body, condition).ok_or(blocked(OTHER))?;
        let operands = graph.node_inputs(root);
        let terms: Option<Vec<Term>> = compared.iter().map(|pair| Term::of(graph, &operands, op, *pair)).collect();
        let terms = terms.ok_or(blocked(OTHER))?;
        let is_only_output = body.outputs().iter().filter(|output| output.value == condition).count() == 1;
        if body.reader_count(condition) > 0 || !is_only_output {
            return Err(blocked(ALSO_READ));
        }
        let begins = match operands.get(1).copied().flatten() {
            None => true,
            Some(first) if number(graph, first) == Some(1.0) => true,
            Some(first) => {
                let first = comparisons(graph, first).ok_or(blocked(BEGINNING))?;
                if !begin_alike(graph, &terms, &first) {
                    return Err(blocked(BEGINNING));
                }
                false
            }
        };

        let mut f = Formula::new(self.name(), graph, root);
        let mut rounds = None;
        for term in &terms {
            let count = term.rounds(&mut f)?;
            rounds = Some(rounds.map_or(count, |rounds| f.binary(BinaryOp::Min, rounds, count)));
        }
        let mut rounds = rounds.ok_or(Miss::NoMatch)?;
        if begins {
            rounds = f.with_number(BinaryOp::Max, rounds, DType::I64, 1.0)?;
        }
        if let Some(most) = operands.first().copied().flatten() {
            let most = f.cast(most, DType::I64);
            rounds = f.binary(BinaryOp::Min, rounds, most);
        }
        let mut inputs = operands.to_vec();
        for (slot, input) in [(0, Some(rounds)), (1, None)] {
            *inputs.get_mut(slot).ok_or(Miss::NoMatch)? = input;
        }
        let body = handing_on(body, condition).ok_or(blocked(OTHER))?;
        let looped = Loop { body, carried: op.carried };
        let values = f.many(looped.into(), &inputs, graph.node(root).map_or(0, |node| node.outputs.len()));
        Ok(f.results(&values))
    }
}

/// The body with the condition that it is given for the one that it gives; `None` if that has another shape.
fn handing_on(body: &Graph, condition: ValueRef) -> Option<Body> {
    let given = *body.inputs().get(1)?;
    let mut body = body.clone();
    let mut patch = Patch::new("canonicalize_loop", condition.node);
    patch.replace(condition, given.into());
    body.apply(&patch).ok()?;
    Some(Body(Arc::new(body)))
}

/// A counter that goes on by a step while it is below a limit.
#[derive(Debug)]
struct Term {
    first: i64,
    step: i64,
    limit: Limit,
}

/// What a counter is compared with.
#[derive(Debug)]
enum Limit {
    Number(i64),
    /// A value outside of the loop.
    Value(ValueRef),
}

impl Term {
    /// What is compared inside of a body, if it is a counter and its limit.
    fn of(
        graph: &Graph,
        operands: &[Option<ValueRef>],
        op: &Loop,
        (counter, limit): (ValueRef, ValueRef),
    ) -> Option<Self> {
        let body = &*op.body.0;
        let Some(Op::Binary(BinaryOp::Add)) = body.op(counter.node) else { return None };
        let (a, b) = (body.input(counter.node, 0)?, body.input(counter.node, 1)?);
        let (from, step) = match (whole(body, a), whole(body, b)) {
            (None, Some(step)) => (a, step),
            (Some(step), None) => (b, step),
            _ => return None,
        };
        let carried = OWN..OWN + op.carried;
        let place = |value: ValueRef| body.inputs().iter().position(|id| ValueRef::from(*id) == value);
        let next = |at: usize| Some(plain(body, body.outputs().get(at.checked_sub(1)?)?.value));
        let outside = |at: usize| (*operands.get(at)?).filter(|value| counts(graph, *value));
        let at = place(plain(body, from))?;
        let first = match at {
            0 if step == 1 => 0,
            _ if carried.contains(&at) && step > 0 && next(at)? == counter => whole(graph, outside(at)?)?,
            _ => return None,
        };
        let limit = match whole(body, limit) {
            Some(limit) => Limit::Number(limit),
            None => {
                let at = place(limit)?;
                let stays = at >= carried.end || (carried.contains(&at) && next(at)? == limit);
                Limit::Value(outside(at).filter(|_| stays)?)
            }
        };
        (first >= 0 && counts(body, counter)).then_some(Self { first, step, limit })
    }

    /// How often the counter goes on. Where TensorRT counts in i32, nothing in between is beyond it.
    fn rounds(&self, f: &mut Formula<'_>) -> Result<ValueRef, Miss> {
        let up = |rounds: i64| (rounds.max(0) + self.step - 1) / self.step;
        let limit = match self.limit {
            Limit::Number(limit) => return Ok(f.constant(Tensor::scalar(up(limit - self.first)))),
            Limit::Value(limit) => limit,
        };
        // No size is so large.
        let is_size = f.graph().info(limit).is_some_and(|info| info.known_elements().is_some());
        let limit = f.cast(limit, DType::I64);
        let mut rounds = f.with_number(BinaryOp::Max, limit, DType::I64, self.first as f64)?;
        if !is_size {
            rounds = f.with_number(BinaryOp::Min, rounds, DType::I64, (MOST - self.step) as f64)?;
        }
        if self.first > 0 {
            rounds = f.with_number(BinaryOp::Sub, rounds, DType::I64, self.first as f64)?;
        }
        if self.step > 1 {
            rounds = f.with_number(BinaryOp::Add, rounds, DType::I64, (self.step - 1) as f64)?;
            rounds = f.with_number(BinaryOp::Div, rounds, DType::I64, self.step as f64)?;
        }
        Ok(rounds)
    }

    /// Whether this is what is compared before the loop.
    fn is_of(&self, graph: &Graph, (counter, limit): (ValueRef, ValueRef)) -> bool {
        whole(graph, counter) == Some(self.first)
            && match self.limit {
                Limit::Number(wanted) => whole(graph, limit) == Some(wanted),
                Limit::Value(wanted) => {
                    let known = whole(graph, wanted);
                    converted(graph, wanted) == limit || (known.is_some() && whole(graph, limit) == known)
                }
            }
    }
}

/// Whether a value has a type that counters count in.
fn counts(graph: &Graph, value: ValueRef) -> bool {
    matches!(graph.dtype(value), DType::I32 | DType::I64)
}

/// Whether what is compared before the loop is what goes on in it, and nothing else.
fn begin_alike(graph: &Graph, terms: &[Term], compared: &[(ValueRef, ValueRef)]) -> bool {
    terms.iter().all(|term| compared.iter().any(|pair| term.is_of(graph, *pair)))
        && compared.iter().all(|pair| terms.iter().any(|term| term.is_of(graph, *pair)))
}

/// What is less than what, for a condition to hold; `None` if it asks for something else.
fn comparisons(graph: &Graph, condition: ValueRef) -> Option<Vec<(ValueRef, ValueRef)>> {
    let condition = plain(graph, condition);
    let Some(Op::Binary(op)) = graph.op(condition.node) else { return None };
    let (a, b) = (graph.input(condition.node, 0)?, graph.input(condition.node, 1)?);
    Some(match op {
        BinaryOp::And => [comparisons(graph, a)?, comparisons(graph, b)?].concat(),
        BinaryOp::Less => vec![(converted(graph, a), converted(graph, b))],
        BinaryOp::Greater => vec![(converted(graph, b), converted(graph, a))],
        _ => return None,
    })
}

/// What is handed on unchanged.
fn plain(graph: &Graph, mut value: ValueRef) -> ValueRef {
    while let (Some(Op::Unary(UnaryOp::Identity)), Some(source)) = (graph.op(value.node), graph.input(value.node, 0)) {
        value = source;
    }
    value
}

/// The integers that are converted to a type that holds them all, or to floats.
fn converted(graph: &Graph, value: ValueRef) -> ValueRef {
    let mut value = plain(graph, value);
    while let (Some(Op::Cast(cast)), Some(source)) = (graph.op(value.node), graph.input(value.node, 0)) {
        let is_wider = match graph.dtype(source) {
            DType::I32 => matches!(cast.to, DType::I64 | DType::F32 | DType::F64),
            DType::I64 => matches!(cast.to, DType::F32 | DType::F64),
            _ => false,
        };
        if !is_wider {
            break;
        }
        value = plain(graph, source);
    }
    value
}

/// The one number that a value is known to be.
fn number(graph: &Graph, value: ValueRef) -> Option<f64> {
    let tensor = graph.info(value)?.as_constant()?;
    let numbers = tensor.to_i64s().map(|all| all.iter().map(|number| *number as f64).collect());
    match numbers.or_else(|| tensor.to_f64s())?.as_slice() {
        [number] => Some(*number),
        _ => None,
    }
}

/// The same, of a whole number that i32 holds.
fn whole(graph: &Graph, value: ValueRef) -> Option<i64> {
    let number = number(graph, value)?;
    (number.fract() == 0.0 && number.abs() < MOST as f64).then_some(number as i64)
}

#[cfg(test)]
mod tests {
    use trt_fuse_ir::eval::eval_graph;

    use super::*;
    use crate::testing::{Run, run_rule};

    const BODY: &str = "graph b(%r: i64[], %c: bool[], %i: i32[], %n: i32[], %v: f32[2]) -> \
        (%more, %next, %n as \"same\", %w, %v as \"seen\") { \
        %one = constant() value=i32[] {1} %next = add(%i, %one) %w = add(%v, %v) %more = less(%next, %n) }";
    const LOOP: &str = "%first = constant() value=i32[] {1} %go = less(%first, %limit) \
        %a, %b, %y, %z = loop(_, %go, %first, %limit, %x) carried=3 body=BODY";

    fn text(nodes: &str, body: &str) -> String {
        let body = format!("{body:?}");
        let nodes = nodes.replace("BODY", &body);
        format!("graph g(%limit: i32[], %x: f32[2], %on: bool[], %other: i32[]) -> (%a, %y, %z) {{ {nodes} }}")
    }

    fn run(nodes: &str, body: &str) -> Run {
        run_rule(CanonicalizeLoop, &text(nodes, body))
    }

    /// The graph before and after, for limits below, at and above the first number.
    fn check(run: &Run) {
        assert_eq!(run.rewrites, 1, "{}", run.after);
        let ops = run.after.live().into_iter().filter_map(|id| run.after.op(id));
        assert!(ops.into_iter().any(|op| matches!(op, Op::Loop(op) if op.always_continues())), "{}", run.after);
        for limit in [-3, 0, 1, 2, 4, 5, 7] {
            let x = Tensor::vector(vec![1.0_f32, -3.0]);
            let inputs = [Tensor::scalar(limit), x, Tensor::scalar(true), Tensor::scalar(-1)];
            let [before, after] = [&run.before, &run.after].map(|graph| eval_graph(graph, &inputs).unwrap());
            assert_eq!(before, after, "to {limit}");
        }
    }

    #[test]
    fn fires() {
        let run = run(LOOP, BODY);
        check(&run);
        insta::assert_snapshot!(run.after, @r#"
        graph g(%limit: i32[], %x: f32[2], %on: bool[], %other: i32[]) -> (%a, %y, %z) {
          %a.1 = cast(%limit) to=i64 saturate=true : i64[]
          %a.canonicalize_loop = constant() value=i64[] {1}
          %a.2 = max(%a.1, %a.canonicalize_loop) : i64[]
          %a.canonicalize_loop.1 = constant() value=i64[] {2147483646}
          %a.3 = min(%a.2, %a.canonicalize_loop.1) : i64[]
          %a.canonicalize_loop.2 = constant() value=i64[] {1}
          %a.4 = sub(%a.3, %a.canonicalize_loop.2) : i64[]
          %first = constant() value=i32[] {1}
          %a, %b, %y, %z = loop(%a.4, _, %first, %limit, %x) body="graph b(%r: i64[], %c: bool[], %i: i32[], %n: i32[], %v: f32[2]) -> (%c as \"more\", %next, %n as \"same\", %w, %v as \"seen\") {\n  %one = constant() value=i32[] {1}\n  %next = add(%i, %one) : i32[]\n  %w = add(%v, %v) : f32[2]\n  %more = less(%next, %n) : bool[]\n}\n" carried=3 : i32[], i32[], f32[2], f32[a.trips, 2]
        }
        "#);
    }

    #[test]
    fn fires_on_a_loop_that_begins_in_any_case() {
        let always = LOOP.replace("loop(_, %go", "loop(_, _");
        check(&run(&always, BODY));
        let yes = LOOP.replace("%go = less(%first, %limit)", "%go = constant() value=bool[] {1}");
        check(&run(&yes, BODY));
    }

    #[test]
    fn fires_on_steps_other_forms_and_conversions() {
        for (from, to) in [
            ("i32[] {1}", "i32[] {3}"),
            ("add(%i, %one)", "add(%one, %i)"),
            ("less(%next, %n)", "greater(%n, %next)"),
            ("%more = less(%next, %n)", "%p = cast(%next) to=f32 %q = cast(%n) to=f32 %more = less(%p, %q)"),
            ("%more = less(%next, %n)", "%m = less(%next, %n) %more = identity(%m)"),
        ] {
            check(&run(LOOP, &BODY.replace(from, to)));
        }
        // A capture for the limit, and one of the number of the round.
        let captured = BODY
            .replace(", %n as \"same\"", "")
            .replace("%i: i32[], %n: i32[], %v: f32[2]", "%i: i32[], %v: f32[2], %n: i32[]");
        let nodes =
            LOOP.replace("%a, %b,", "%a,").replace("%first, %limit, %x) carried=3", "%first, %x, %limit) carried=2");
        check(&run(&nodes, &captured));
    }

    #[test]
    fn fires_on_several_comparisons_and_a_trip_count() {
        let both = BODY.replace(
            "%more = less(%next, %n)",
            "%m = less(%next, %n) %u = constant() value=i64[] {1} %s = add(%r, %u) %five = constant() value=i64[] {5} \
             %l = less(%s, %five) %more = and(%m, %l)",
        );
        let begins = "%m = less(%first, %limit) %zero = constant() value=i64[] {0} %five = constant() value=i64[] {5} \
                      %l = less(%zero, %five) %go = and(%l, %m)";
        check(&run(&LOOP.replace("%go = less(%first, %limit)", begins), &both));
        let most = LOOP.replace("loop(_", "loop(%most").replacen("%go", "%most = constant() value=i64[] {2} %go", 1);
        check(&run(&most, BODY));
    }

    #[test]
    fn refuses_other_conditions() {
        for (from, to) in [
            ("less(%next, %n)", "equal(%next, %n)"),
            ("less(%next, %n)", "less(%i, %n)"),
            ("i32[] {1}", "i32[] {-1}"),
            ("add(%i, %one)", "add(%i, %n)"),
            ("%more, %next,", "%more, %i,"),
            ("%n as \"same\"", "%next as \"same\""),
            // Other numbers may be one as i8.
            (
                "%more = less(%next, %n)",
                "%p = cast(%next) to=i8 saturate=true %q = cast(%n) to=i8 saturate=true %more = less(%p, %q)",
            ),
        ] {
            assert_eq!(run(LOOP, &BODY.replace(from, to)).reasons(), [OTHER], "{to}");
        }
        // What wraps around sooner, and what begins below 0 or at run time.
        let (nodes, body) = (LOOP.replace("i32", "u8").replace("%limit", "%l"), BODY.replace("i32", "u8"));
        let nodes = format!("%l = cast(%limit) to=u8 saturate=true {nodes}");
        assert_eq!(run(&nodes, &body).reasons(), [OTHER]);
        for first in ["constant() value=i32[] {-1}", "add(%other, %other)"] {
            assert_eq!(run(&LOOP.replace("constant() value=i32[] {1}", first), BODY).reasons(), [OTHER], "{first}");
        }
        let one_element = |text: &str| text.replace("%i: i32[]", "%i: i32[1]").replace("i32[] {1}", "i32[1] {1}");
        assert_eq!(run(&one_element(LOOP), &one_element(BODY)).rewrites, 0);
    }

    #[test]
    fn refuses_a_condition_that_is_also_read() {
        let read = BODY.replace("%w = add(%v, %v)", "%k = cast(%more) to=f32 %w = add(%v, %k)");
        let read =
            read.replace("%more = less(%next, %n) }", "}").replace("%k = cast", "%more = less(%next, %n) %k = cast");
        assert_eq!(run(LOOP, &read).reasons(), [ALSO_READ]);
    }

    #[test]
    fn refuses_another_beginning() {
        for go in ["%go = identity(%on)", "%go = less(%limit, %first)", "%l = less(%first, %limit) %go = and(%l, %on)"]
        {
            let nodes = LOOP.replace("%go = less(%first, %limit)", go);
            assert_eq!(run(&nodes, BODY).reasons(), [BEGINNING], "{go}");
        }
        // The same twice is not two of them.
        let twice = BODY.replace("%more = less(%next, %n)", "%m = less(%next, %n) %more = and(%m, %m)");
        let go = "%l = less(%first, %limit) %o = less(%first, %other) %go = and(%l, %o)";
        let nodes = LOOP.replace("%go = less(%first, %limit)", go);
        assert_eq!(run(&nodes, &twice).reasons(), [BEGINNING]);
        check(&run(LOOP, &twice));
    }

    #[test]
    fn leaves_a_loop_that_its_count_ends() {
        let counted = BODY.replace("(%more,", "(%c as \"on\",");
        assert_eq!(run(LOOP, &counted).rewrites, 0);
    }
}
