//! What the tests of all passes share: running one pass on a graph in text form, and comparing outputs.

pub(crate) use trt_fuse_ir::eval::difference;
use trt_fuse_ir::eval::eval_graph;
use trt_fuse_ir::{Capabilities, Element, Graph, Tensor, verify};

use crate::{Options, Pass, PassContext, Remark, Rule, Rules, Siblings};

/// A pass run on a graph in text form.
pub(crate) struct Run {
    pub(crate) before: Graph,
    pub(crate) after: Graph,
    pub(crate) rewrites: usize,
    pub(crate) remarks: Vec<Remark>,
}

/// Runs a rule until it finds nothing more, and verifies what it leaves.
pub(crate) fn run_rule(rule: impl Rule + 'static, text: &str) -> Run {
    run_pass(&Rules::one(rule), text)
}

/// Runs a rule that must fire, on given inputs: the outputs must be the same, bit by bit.
pub(crate) fn run_rule_on(rule: impl Rule + 'static, text: &str, inputs: &[Tensor]) -> Run {
    let run = run_rule(rule, text);
    assert!(run.rewrites > 0, "{text}");
    let (expected, found) = (eval_graph(&run.before, inputs).unwrap(), eval_graph(&run.after, inputs).unwrap());
    assert_eq!(expected, found, "{text}\n{}", run.after);
    run
}

/// As [`run_rule_on`], on an operator of two vectors of a type.
pub(crate) fn run_elementwise<T: Element>(rule: impl Rule + 'static, op: &str, a: Vec<T>, b: Vec<T>) -> Run {
    let (dtype, n) = (T::DTYPE, a.len());
    let text = format!("graph g(%a: {dtype}[{n}], %b: {dtype}[{n}]) -> (%y) {{ %y = {op}(%a, %b) }}");
    run_rule_on(rule, &text, &[Tensor::vector(a), Tensor::vector(b)])
}

/// The graph after a rule for a target.
pub(crate) fn run_for(rule: impl Rule + 'static, before: &Graph, target: &Capabilities) -> Graph {
    let mut after = before.clone();
    let options = Options::default();
    Rules::one(rule).run(&mut after, &mut PassContext::new(target, &options)).unwrap();
    after
}

/// Runs a pass once, verifies what it leaves, and checks that a second run changes nothing.
pub(crate) fn run_pass(pass: &dyn Pass, text: &str) -> Run {
    run_on(pass, parsed(text))
}

/// As [`run_rule`], with such siblings merged.
pub(crate) fn run_rule_on_siblings(rule: impl Rule + 'static, siblings: Siblings, text: &str) -> Run {
    run_pass_on_siblings(&Rules::one(rule), siblings, text)
}

/// As [`run_rule`], with options.
pub(crate) fn run_rule_with(rule: impl Rule + 'static, options: &Options, text: &str) -> Run {
    run_rule_on_target(rule, &Capabilities::default(), options, text)
}

fn parsed(text: &str) -> Graph {
    text.parse().unwrap_or_else(|error| panic!("{error}\n{text}"))
}

/// As [`run_rule_with`], for a target.
pub(crate) fn run_rule_on_target(
    rule: impl Rule + 'static,
    target: &Capabilities,
    options: &Options,
    text: &str,
) -> Run {
    let before = parsed(text);
    run_on_target(&Rules::one(rule), target, options, before)
}

/// As [`run_pass`], with such siblings merged.
pub(crate) fn run_pass_on_siblings(pass: &dyn Pass, siblings: Siblings, text: &str) -> Run {
    let before = parsed(text);
    run_with(pass, &Options { siblings, ..Options::default() }, before)
}

/// As [`run_pass`], on a graph.
pub(crate) fn run_on(pass: &dyn Pass, before: Graph) -> Run {
    run_with(pass, &Options::default(), before)
}

fn run_with(pass: &dyn Pass, options: &Options, before: Graph) -> Run {
    run_on_target(pass, &Capabilities::default(), options, before)
}

fn run_on_target(pass: &dyn Pass, target: &Capabilities, options: &Options, before: Graph) -> Run {
    let mut after = before.clone();
    let mut context = PassContext::new(target, options);
    let outcome = pass.run(&mut after, &mut context).unwrap();
    context.settle(pass.name(), &mut after).unwrap();
    if let Err(errors) = verify(&after) {
        panic!("{errors}\n{after}");
    }
    let mut again = after.clone();
    let second = pass.run(&mut again, &mut PassContext::new(target, options)).unwrap();
    assert_eq!(second.rewrites(), 0, "a second run changes the graph:\n{after}\n{again}");
    Run { before, after, rewrites: outcome.rewrites(), remarks: context.remarks }
}

impl Run {
    /// The graph after, in text form; checks that outputs on pseudo-random inputs agree within `tolerance` (relative to
    /// the largest output), symbols taken as `size`.
    pub(crate) fn equal_within(&self, tolerance: f64, size: i64) -> &Self {
        let inputs = random_inputs(&self.before, size, 1);
        let expected = eval_graph(&self.before, &inputs).unwrap();
        let found = eval_graph(&self.after, &inputs).unwrap();
        assert_eq!(expected.len(), found.len());
        for (expected, found) in expected.iter().zip(&found) {
            let gap = difference(expected, found);
            assert!(gap <= tolerance, "outputs differ by {gap}\n{}\n{}", self.before, self.after);
        }
        self
    }

    /// The reasons that the pass gave for not firing.
    pub(crate) fn reasons(&self) -> Vec<&str> {
        self.remarks.iter().map(|remark| remark.reason.as_str()).collect()
    }
}

/// Random inputs of a graph, all symbols taken as `size`.
pub(crate) fn random_inputs(graph: &Graph, size: i64, seed: u64) -> Vec<Tensor> {
    trt_fuse_ir::eval::random_inputs(graph, &|_| Some(size), seed).unwrap()
}
